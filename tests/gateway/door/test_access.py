"""Who is let in: keys by hash, never open once closed, on a real store that may die, forget and come back."""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canary.core.events import Cause
from canary.storage import keys as names
from canary.storage.apikeys import ApiKey, ApiKeys, KeyLimits, Scope, checked, hash_of
from canary.storage.store import Store, StoreError
from gateway.door import access
from gateway.door.access import KeyFile, Keys, check_bind, identify, keys_at_start
from gateway.errors import ApiError, SettingsError
from tests.gateway.rig import MODEL, House, until
from tests.support.valkey import Valkey

CAUSE = Cause("ann", "because", 1_800_000_000.0)
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def api_keys(store: Store) -> ApiKeys:
    """The keys of an empty store."""
    return store.api_keys()


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    """Where a worker keeps what it knows."""
    return KeyFile(tmp_path)


@pytest.fixture
def keys(api_keys: ApiKeys, file: KeyFile) -> Keys:
    """A worker's view, nothing known yet."""
    return Keys(api_keys, file, "w1", loopback=True)


async def make(api_keys: ApiKeys, *scopes: str, limits: KeyLimits | None = None) -> tuple[ApiKey, bytes]:
    """Make a key; return it with the header that presents it."""
    wish = checked("k", scopes or ["inference"], limits or KeyLimits())
    key, secret = await api_keys.create(wish, CAUSE)
    return key, b"Bearer " + secret.encode()


def refused(keys: Keys, header: bytes | None) -> tuple[int, str]:
    """Return status and code of a refusal."""
    with pytest.raises(ApiError) as error:
        keys.identify(header)
    return error.value.status, error.value.code


UNKNOWN = (401, "invalid_api_key")


def test_without_any_key_everybody_here_is_a_tester(keys: Keys) -> None:
    """As long as no key was ever made; who presents something is told from who does not."""
    for header in (None, b"", b"Bearer x", b"\xff"):
        assert keys.identify(header) == identify(header)
        assert keys.identify(header).scopes == {Scope.INFERENCE, Scope.TESTER}
    assert keys.identify(b"Bearer x") is keys.identify(b"Bearer x")
    assert not keys.needed


def test_strangers_cost_bounded_memory(keys: Keys) -> None:
    """A flood of made-up keys is not remembered."""
    for number in range(5000):
        keys.identify(b"Bearer %d" % number)
    assert len(keys._strangers) <= 1024


async def test_a_key_is_its_owner(keys: Keys, api_keys: ApiKeys) -> None:
    """Scopes, id and limits come from its record; asked again, it is the same object."""
    key, header = await make(api_keys, "inference", "tester", limits=KeyLimits(rpm=5))
    await keys.poll()
    caller = keys.identify(header)
    assert (caller.key_id, caller.scopes, caller.limits) == (key.id, key.scopes, KeyLimits(rpm=5))
    assert caller.key_hash == hash_of(header[7:].decode())
    await make(api_keys)
    await keys.poll()
    assert keys.identify(header) is caller
    assert keys.identify(b"bEaReR " + header[7:]) is caller


async def test_a_key_without_limits_says_so_by_none(keys: Keys, api_keys: ApiKeys) -> None:
    """What is not limited costs one look."""
    _, header = await make(api_keys)
    await keys.poll()
    assert keys.identify(header).limits is None


@pytest.mark.parametrize(
    "form",
    [b"", b"Bearer", b"Bearer ", b"%s", b"Basic %s", b"Bearer  %s", b"Bearer %s ", b"Bearer\t%s", b"Bearer \xff%s",
     b"Bearer %s\xc3\xa9", b"Bearer %s, Bearer %s", b"Bearer lk-", b"Token %s"],
)  # fmt: skip
async def test_whatever_is_no_key_is_a_401(keys: Keys, api_keys: ApiKeys, form: bytes) -> None:
    """OpenAI's code; other schemes, other spaces, bytes beyond ASCII, nothing at all."""
    _, header = await make(api_keys)
    await keys.poll()
    assert refused(keys, form.replace(b"%s", header[7:])) == UNKNOWN
    assert refused(keys, None) == UNKNOWN


async def test_a_refusal_is_openais_and_says_nothing_of_the_key(keys: Keys, api_keys: ApiKeys) -> None:
    """No retry, a challenge as HTTP wants it, and not one byte of what was presented."""
    await make(api_keys)
    await keys.poll()
    with pytest.raises(ApiError) as error:
        keys.identify(b"Bearer sk-secret")
    assert b'"invalid_request_error"' in error.value.body()
    assert b"secret" not in error.value.body()
    assert {(b"www-authenticate", b"Bearer"), (b"x-should-retry", b"false")} <= set(error.value.headers())


@pytest.mark.source
async def test_a_key_is_compared_in_constant_time_by_its_hash(keys: Keys, api_keys: ApiKeys, monkeypatch) -> None:
    """How long a refusal takes says nothing of the key: only digests are looked up and compared."""
    _, header = await make(api_keys)
    await keys.poll()
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(access, "compare_digest", lambda *two: compared.append(two) or compare_digest(*two))
    keys.identify(header)
    digest = sha256(header[7:]).digest()
    assert compared == [(digest, digest)]
    assert header[7:] not in repr(vars(keys)).encode()


@pytest.mark.parametrize("scopes", [("admin",), ("tester",), ("admin", "tester")])
async def test_a_key_without_inference_is_a_403(keys: Keys, api_keys: ApiKeys, scopes) -> None:
    """An admin's key may not be spent on answers."""
    _, header = await make(api_keys, *scopes)
    await keys.poll()
    assert refused(keys, header) == (403, "insufficient_permissions")


async def test_the_hash_is_no_key(keys: Keys, api_keys: ApiKeys) -> None:
    """Who reads the store cannot call."""
    _, header = await make(api_keys)
    await keys.poll()
    assert refused(keys, b"Bearer " + hash_of(header[7:].decode()).encode()) == UNKNOWN


@pytest.fixture
async def running() -> AsyncIterator[Callable[[Callable[[], Awaitable[None]]], None]]:
    """Run a loop of the worker beside the test."""
    tasks = set()
    yield lambda act: tasks.add(asyncio.ensure_future(act()))
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError, StoreError):
            await task


async def test_a_revoked_key_is_refused_at_once(keys: Keys, api_keys: ApiKeys, running) -> None:
    """By push; a fresh key is let in as fast."""
    _, old = await make(api_keys)
    running(keys.listen)
    await until(lambda: keys.needed, "the first look")
    began = time.monotonic()
    key, header = await make(api_keys)
    await until(lambda: not _refuses(keys, header), "let in")
    await api_keys.revoke(key.id, CAUSE)
    await until(lambda: _refuses(keys, header), "refused")
    assert time.monotonic() - began < 2
    assert keys.identify(old)


def _refuses(keys: Keys, header: bytes) -> bool:
    try:
        keys.identify(header)
    except ApiError:
        return True
    return False


async def test_when_all_are_revoked_nobody_is_let_in(keys: Keys, api_keys: ApiKeys) -> None:
    """A revocation never opens what was closed."""
    key, header = await make(api_keys)
    await api_keys.revoke(key.id, CAUSE)
    await keys.poll()
    assert keys.needed
    assert refused(keys, header) == refused(keys, None) == UNKNOWN


async def test_a_lost_store_changes_nothing(valkey: Valkey, file: KeyFile) -> None:
    """What is known holds, here and after a restart with the store dead; loopback or not."""
    store = Store.connect(valkey.url)
    key, header = await make(store.api_keys())
    _, second = await make(store.api_keys())
    keys = Keys(store.api_keys(), file, "w1", loopback=True)
    await keys.poll()
    valkey.kill()
    for loopback in (True, False):
        reborn = Keys(store.api_keys(), file, "w2", loopback=loopback)
        for worker in (keys, reborn):
            with pytest.raises(StoreError):
                await worker.poll()
            assert worker.identify(header).key_id == key.id
            assert refused(worker, None) == UNKNOWN
    valkey.start()
    await store.api_keys().revoke(key.id, CAUSE)
    await reborn.poll()
    assert refused(reborn, header) == UNKNOWN
    assert reborn.identify(second)
    await store.close()


async def test_an_emptied_store_opens_nothing(
    store: Store, keys: Keys, api_keys: ApiKeys, file: KeyFile, caplog
) -> None:
    """What was known holds until the store knows a key again; the line says so once. Then the store's word holds."""
    _, old = await make(api_keys)
    await keys.poll()
    await store._redis.flushall()
    for worker in (keys, Keys(api_keys, file, "w2", loopback=True)):
        caplog.clear()
        await worker.poll()
        await worker.poll()
        assert len(caplog.records) == 1
        assert worker.identify(old)
        assert refused(worker, None) == UNKNOWN
    _, new = await make(api_keys)
    await keys.poll()
    assert keys.identify(new)
    assert refused(keys, old) == UNKNOWN


async def test_a_backup_does_not_bring_a_revoked_key_back(store: Store, keys: Keys, api_keys: ApiKeys, file) -> None:
    """Revoked is for good, also for a worker that learned of it in another life."""
    key, header = await make(api_keys)
    before = await api_keys.texts()
    await api_keys.revoke(key.id, CAUSE)
    await keys.poll()
    await store._redis.hset(names.API_KEYS, mapping=before)
    for worker in (keys, Keys(api_keys, file, "w2", loopback=True)):
        await worker.poll()
        assert refused(worker, header) == UNKNOWN


async def test_a_poll_that_a_push_overtook_is_not_believed(api_keys: ApiKeys, file: KeyFile) -> None:
    """A key that was just made is not forgotten again."""

    class Slow(ApiKeys):
        async def texts(self) -> dict[str, str]:
            found = await super().texts()
            keys._pushed += 1  # a push arrives while this answer is on its way
            return found

    keys = Keys(Slow(api_keys._redis, ""), file, "w1", loopback=True)
    await make(api_keys)
    await keys.poll()
    assert not keys.needed


async def test_a_damaged_record_closes_and_opens_nothing(store: Store, keys: Keys) -> None:
    """Somebody made a key: from now on one is needed."""
    await store._redis.hset(names.API_KEYS, "a" * 64, "{")
    await keys.poll()
    assert refused(keys, None) == UNKNOWN


async def test_the_file_is_for_its_owner_alone_and_holds_no_key(keys: Keys, api_keys: ApiKeys, tmp_path: Path) -> None:
    """0600, whole at every moment, hashes only."""
    _, header = await make(api_keys)
    await keys.poll()
    assert _files(tmp_path) == {"apikeys": 0o600}
    assert keys._file.read() == keys._known
    assert header[7:].decode() not in str(keys._known)


def _files(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("text", ["", "[]", "null", '{"a": 1}', '"x"', "\x00"])
def test_a_damaged_file_lets_nobody_in(api_keys, file: KeyFile, tmp_path: Path, text: str) -> None:
    """There were keys once; who they were, the store will say."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "apikeys").write_text(text)
    assert refused(Keys(api_keys, file, "w1", loopback=True), None) == UNKNOWN


async def test_a_full_disk_costs_a_warning(api_keys: ApiKeys, tmp_path: Path, caplog) -> None:
    """The keys hold in memory."""
    (tmp_path / "gateway").write_text("a file where the folder should be")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyFile, "read", lambda _: None)
        keys = Keys(api_keys, KeyFile(tmp_path), "w1", loopback=True)
    _, header = await make(api_keys)
    await keys.poll()
    assert keys.identify(header)
    assert "cannot keep the API keys" in caplog.text


def test_an_address_that_others_reach_needs_a_key_to_be_known(api_keys, file: KeyFile) -> None:
    """One line otherwise; and behind such an address nobody is let in without a key, whatever the worker knows."""
    for host in ("127.0.0.1", "::1", "localhost"):
        check_bind(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        check_bind(host, keys_known=True)
        with pytest.raises(SettingsError, match="linnet keys create") as error:
            check_bind(host)
        assert "\n" not in str(error.value)
    assert refused(Keys(api_keys, file, "w1", loopback=False), None) == UNKNOWN


def test_at_the_start_the_store_is_asked_and_the_file_if_it_is_dead(valkey: Valkey, tmp_path: Path) -> None:
    """What the store says is kept, so that the workers know it too."""
    assert not keys_at_start(NOWHERE, tmp_path)
    assert not keys_at_start(valkey.url, tmp_path)
    asyncio.run(_make_at(valkey.url))
    assert keys_at_start(valkey.url, tmp_path)
    assert keys_at_start(NOWHERE, tmp_path)
    assert KeyFile(tmp_path).read()


async def _make_at(url: str) -> None:
    store = Store.connect(url)
    await make(store.api_keys())
    await store.close()


@given(st.binary(max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_but_the_key_open_the_door(api_keys, file: KeyFile, given_bytes: bytes) -> None:
    """Whatever a client sends as Authorization, it is refused as a client's fault, and nothing else breaks."""
    keys = Keys(api_keys, file, "w1", loopback=False)
    keys._adopt({hash_of("lk-right"): ApiKey("key_1", "k", frozenset({Scope.INFERENCE}))})
    assert keys.identify(b"Bearer lk-right").key_id == "key_1"
    for header in (given_bytes, b"Bearer " + given_bytes):
        assert refused(keys, header) == UNKNOWN


async def test_the_gateway_asks_for_a_key_once_there_is_one(house: House, api_keys: ApiKeys) -> None:
    """Answers and the list of models; whoever watches over the process needs none."""
    assert (await house.ask()).status_code == 200
    key, header = await make(api_keys)
    await until(lambda: house.app.parts.keys.needed, "the key was heard of")
    with_key = {"Authorization": header.decode()}
    assert (await house.ask(headers=with_key)).status_code == 200
    assert (await house.http.get("/v1/models", headers=with_key)).status_code == 200
    await api_keys.revoke(key.id, CAUSE)
    await until(lambda: _refuses(house.app.parts.keys, header), "the revocation was heard of")
    for headers in (with_key, {}, {"Authorization": "Bearer \xff"}):
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        for answer in (await house.ask(headers=raw), await house.http.get("/v1/models", headers=raw)):
            assert (answer.status_code, answer.json()["error"]["code"]) == UNKNOWN
            assert answer.headers["x-should-retry"] == "false"
    for path in ("/livez", "/readyz"):
        assert (await house.http.get(path)).status_code == 200


async def test_only_a_tester_chooses_the_arm(house: House, api_keys: ApiKeys) -> None:
    """The scope that every loopback caller had is now a key's."""
    _, app = await make(api_keys)
    _, tester = await make(api_keys, "inference", "tester")
    await until(lambda: len(house.app.parts.keys._callers) == 2, "the keys were heard of")
    forced = {"X-Linnet-Arm": "candidate"}
    assert (await house.ask(headers={**forced, "Authorization": app.decode()})).status_code == 403
    answer = await house.ask(headers={**forced, "Authorization": tester.decode()})
    assert (answer.status_code, answer.headers["x-linnet-arm"]) == (200, "candidate")


async def test_openais_own_client_understands_the_refusals(house: House, api_keys: ApiKeys) -> None:
    """Its exceptions for a wrong key, and for one that may not ask."""
    _, admin = await make(api_keys, "admin")
    await until(lambda: house.app.parts.keys.needed, "the key was heard of")
    for secret, kind in (("lk-wrong", openai.AuthenticationError), (admin[7:].decode(), openai.PermissionDeniedError)):
        async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=secret) as client:
            with pytest.raises(kind):
                await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])
