"""One try, against receivers as they are: slow, failing, hanging, redirecting."""

from __future__ import annotations

import time

import pytest

from canary.notify.message import message, signature
from canary.notify.sender import Result, Sender
from canary.notify.target import NotifySpec
from tests.canary.notify.receiver import close, drip, flood, hang, receiver, status
from tests.canary.notify.test_message import ENTRY

NOW = 1_800_000_000
TOLD = message(ENTRY, "json")
VARIABLE = "LINNET_NOTIFY_SECRET"
SECRETS = {VARIABLE: "s3cret"}


@pytest.fixture
async def sender():
    """A sender that waits for a third of a second."""
    one = Sender(SECRETS, timeout=0.3)
    yield one
    await one.close()


def signed(url: str) -> NotifySpec:
    """A receiver of the signed form."""
    return NotifySpec(url=url, secret_env=VARIABLE)


async def test_a_message_is_sent_with_its_id_and_signature(sender) -> None:
    """The bytes that were signed are those that come."""
    async with receiver() as one:
        assert (await sender.send(signed(one.url), TOLD, NOW))[0] is Result.SENT
        ((headers, body),) = one.heard
    assert body == TOLD.body
    assert headers["x-linnet-delivery"] == TOLD.id
    assert headers["x-linnet-event"] == "phase,breach,rollback"
    assert headers["x-linnet-signature"] == signature(b"s3cret", body, NOW)
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        *((code, Result.SENT) for code in (200, 201, 204)),
        *((code, Result.RETRIED) for code in (408, 425, 429, 500, 502, 503, 599)),
        *((code, Result.REJECTED) for code in (301, 304, 400, 401, 404, 410)),
    ],
)
async def test_the_status_says_whether_another_try_will_do(sender, code, result) -> None:
    """Refused for now, or for good."""
    async with receiver(status(code, body=b"")) as one:
        assert (await sender.send(signed(one.url), TOLD, NOW)) == (result, f"127.0.0.1: HTTP {code}")


async def test_no_redirect_is_followed(sender) -> None:
    """Nobody sends a signed message on to another place."""
    async with receiver() as other, receiver() as one:
        one.answers = [status(307, f"Location: {other.url}")]
        assert (await sender.send(signed(one.url), TOLD, NOW))[0] is Result.REJECTED
        assert (len(one.heard), other.heard) == (1, [])


@pytest.mark.parametrize("answer", [hang, drip, close])
async def test_who_does_not_answer_is_tried_again_and_costs_little_time(sender, answer) -> None:
    """The whole try has one limit, however the receiver dawdles."""
    async with receiver(answer) as one:
        began = time.monotonic()
        assert (await sender.send(signed(one.url), TOLD, NOW))[0] is Result.RETRIED
        assert time.monotonic() - began < 1


async def test_an_endless_answer_is_not_read(sender) -> None:
    """The status is all that counts."""
    async with receiver(flood) as one:
        assert (await sender.send(signed(one.url), TOLD, NOW))[0] is Result.SENT


async def test_nobody_there_is_tried_again(sender) -> None:
    """And told by its host alone."""
    result, line = await sender.send(signed("http://127.0.0.1:9/T/s3cret"), TOLD, NOW)
    assert (result, line) == (Result.RETRIED, "127.0.0.1: ConnectError")


async def test_what_the_environment_lacks_is_told() -> None:
    """No request is made without its signature."""
    async with receiver() as one:
        sender = Sender({})
        assert (await sender.send(signed(one.url), TOLD, NOW))[0] is Result.MISCONFIGURED
        await sender.close()
        assert one.heard == []
