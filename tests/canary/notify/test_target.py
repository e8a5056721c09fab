"""Receivers, as a spec names them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from canary.card.spec import SpecError, parse
from canary.notify.target import Kind, Misconfigured, NotifySpec, host
from tests.canary.specs import SPEC

VARIABLE = "LINNET_NOTIFY_SECRET"
HOOK = "{url: 'https://hooks.example.com/linnet', secret_env: LINNET_NOTIFY_SECRET}"


def spec(*receivers: str) -> str:
    """Return the spec with receivers."""
    return SPEC + "notify:\n" + "".join(f"  - {one}\n" for one in receivers)


def test_a_receiver_hears_everything_unless_told_otherwise() -> None:
    """The short form, and one of each field."""
    whole = "{url_env: LINNET_NOTIFY_SLACK, events: [hold, rollback], form: slack}"
    first, second = parse(spec(HOOK, whole), "r.yaml").notify
    assert (first.events, first.form) == (tuple(Kind), "json")
    assert (second.events, second.form, second.secret_env) == ((Kind.HOLD, Kind.ROLLBACK), "slack", None)


@pytest.mark.parametrize(
    ("receiver", "words"),
    [
        ("x", "r.yaml:25: notify.0"),
        ("{}", "give either url or url_env"),
        (
            "{url: 'https://a.b/', url_env: LINNET_NOTIFY_URL, secret_env: LINNET_NOTIFY_SECRET}",
            "either url or url_env",
        ),
        ("{url: 'https://a.b/'}", "nothing signs it; add secret_env"),
        ("{url: 'ftp://a.b/', form: slack}", "no web address"),
        ("{url: 'file:///etc/passwd', form: slack}", "no web address"),
        ("{url: 'https://', form: slack}", "no web address"),
        ("{url: 'https://a:99999/', form: slack}", "no URL"),
        ("{url: 'https://ann:pw@a.b/', form: slack}", "a user or password in the address"),
        ("{url: 'https://a.b/ c', form: slack}", "a space or a fragment"),
        ('{url: "https://a.b/\\n", form: slack}', "no web address"),
        ("{url: 'https://a.b/', secret_env: AWS_SECRET_ACCESS_KEY}", "LINNET_NOTIFY_"),
        ("{url_env: LINNET_ADMIN_KEY, form: slack}", "LINNET_NOTIFY_"),
        ("{url: 'https://a.b/', form: teams}", "'json' or 'slack'"),
        ("{url: 'https://a.b/', form: slack, events: []}", "at least 1 item"),
        ("{url: 'https://a.b/', form: slack, events: [all]}", "'phase', 'hold', 'breach' or 'rollback'"),
        ("{url: 'https://a.b/', form: slack, evnets: [hold]}", "did you mean events"),
        ("{url: 'https://a.b/', secret: abc}", "unknown"),
    ],
)
def test_each_fault_is_a_line_with_its_place(receiver, words) -> None:
    """What, where, the mend; and nothing of a password."""
    with pytest.raises(SpecError) as refused:
        parse(spec(receiver), "r.yaml")
    said = "\n".join(refused.value.lines)
    assert all(line.startswith("r.yaml:2") for line in refused.value.lines)
    assert words in said
    assert "pw" not in said


def test_not_too_many_receivers() -> None:
    """Each has a lane and a queue of its own."""
    with pytest.raises(SpecError, match="at most 8 items"):
        parse(spec(*[HOOK] * 9), "r.yaml")


def test_what_the_environment_lacks_is_named_without_its_value() -> None:
    """The variable, never what is in it."""
    signed = NotifySpec(url="https://a.b/", secret_env=VARIABLE)
    assert (signed.address({}), signed.secret({VARIABLE: " s3cret\n"})) == ("https://a.b/", b"s3cret")
    with pytest.raises(Misconfigured, match=f"{VARIABLE} is not set"):
        signed.secret({})
    hidden = NotifySpec(url_env="LINNET_NOTIFY_SLACK", form="slack")
    assert hidden.address({"LINNET_NOTIFY_SLACK": "https://hooks.slack.com/T/B/x"}).endswith("/T/B/x")
    with pytest.raises(Misconfigured) as refused:
        hidden.address({"LINNET_NOTIFY_SLACK": "s3cret"})
    assert "s3cret" not in str(refused.value)
    assert hidden.secret({}) is None


def test_an_address_is_shown_as_its_host() -> None:
    """Slack's path is a secret."""
    assert host("https://hooks.slack.com/services/T/B/x?y=z") == "hooks.slack.com"


def test_a_receiver_alone_is_checked_too() -> None:
    """As a value, without a spec around it."""
    with pytest.raises(ValidationError, match="one address is needed"):
        NotifySpec(form="slack")
