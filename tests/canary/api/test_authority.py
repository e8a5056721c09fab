"""Who may use the admin API: the whole matrix of routes and keys, on a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from canary.api.app import create_app
from canary.api.authority import ROLES, Role
from canary.core.events import Cause
from canary.metrics import Metrics
from canary.storage import keys
from canary.storage.apikeys import KeyLimits, checked
from canary.storage.store import Store
from tests.support.valkey import Valkey

CAUSE = Cause("ann", "because", 1_800_000_000.0)
PLACES = {"model": "m", "kind": "load", "digest": "d", "key_id": "key_0"}
OTHERS = (("GET", "/nowhere"), ("GET", "/openapi.json"), ("HEAD", "/livez"), ("POST", "/metrics"), ("GET", "/livez/"))
DOORS = [*((method, path.format(**PLACES), role) for (method, path), role in ROLES.items()),
         *((method, path, Role.ADMIN) for method, path in OTHERS)]  # fmt: skip


@pytest.fixture
def app(store: Store) -> FastAPI:
    """The admin API."""
    return create_app(store, Metrics())


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it that calls without a key."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
        yield client


async def make(store: Store, *scopes: str) -> tuple[str, str]:
    """Make a key: its id, its secret."""
    key, secret = await store.api_keys().create(checked("k", scopes, KeyLimits()), CAUSE)
    return key.id, secret


def bearer(secret: str) -> dict[str, str]:
    """The header that presents a key."""
    return {"Authorization": f"Bearer {secret}"}


def test_the_table_names_every_route_and_no_other(app) -> None:
    """A route that nobody gave a role does not pass unseen."""
    spec = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert spec == set(ROLES)


@pytest.mark.parametrize(("method", "path", "role"), DOORS)
async def test_the_whole_matrix(store, http, method, path, role) -> None:
    """Open routes are open to all; every other way in is an admin's alone, once there has been one."""
    await make(store, "inference", "tester")
    before = await http.request(method, path)
    assert before.status_code not in {401, 403}
    admin_id, admin = await make(store, "admin")
    _, app_key = await make(store, "inference", "tester")
    revoked_id, revoked = await make(store, "admin")
    await store.api_keys().revoke(revoked_id, CAUSE)
    answers = {
        "nobody": await http.request(method, path),
        "wrong": await http.request(method, path, headers=bearer(admin[:-1])),
        "revoked": await http.request(method, path, headers=bearer(revoked)),
        "hash": await http.request(method, path, headers=bearer(next(iter(await store.api_keys().texts())))),
        "app": await http.request(method, path, headers=bearer(app_key)),
        "admin": await http.request(method, path, headers=bearer(admin)),
    }
    statuses = {who: answer.status_code for who, answer in answers.items()}
    assert statuses.pop("admin") == before.status_code
    if role is Role.OPEN:
        assert set(statuses.values()) == {before.status_code}
    else:
        assert statuses == {"nobody": 401, "wrong": 401, "revoked": 401, "hash": 401, "app": 403}
    await store.api_keys().revoke(admin_id, CAUSE)
    after = await http.request(method, path, headers=bearer(admin))
    assert (after.status_code == 401) is (role is Role.ADMIN)


@pytest.mark.parametrize(
    "header",
    [b"", b"Bearer", b"Bearer ", b"Basic %s", b"%s", b"Bearer  %s", b"Bearer %s ", b"Bearer \xff%s", b"Bearer %s" * 99],
)
async def test_a_malformed_header_is_a_401(store, http, header) -> None:
    """Any form but "Bearer KEY", and any byte beyond ASCII, is nobody."""
    _, admin = await make(store, "admin")
    presented = header.replace(b"%s", admin.encode())
    answer = await http.get("/admin/v1/models", headers=[(b"authorization", presented)])
    assert answer.status_code == 401
    assert "LINNET_ADMIN_KEY" in answer.json()["error"]["message"]
    assert admin not in answer.text


async def test_two_headers_are_nobody(store, http) -> None:
    """Two parsers might believe one each."""
    _, admin = await make(store, "admin")
    twice = [(b"authorization", f"Bearer {admin}".encode())] * 2
    assert (await http.get("/admin/v1/models", headers=twice)).status_code == 401


async def test_a_body_is_not_read_before_the_key(store, http) -> None:
    """An unknown caller learns nothing about what is wrong with their request."""
    await make(store, "admin")
    assert (await http.post("/admin/v1/releases", content=b"x" * (2 << 20))).status_code == 401
    assert (await http.post("/admin/v1/releases", content=b"{")).status_code == 401


async def test_keys_stay_needed_when_the_store_forgets(store, http) -> None:
    """A store that was emptied opens nothing that was closed."""
    await make(store, "admin")
    assert (await http.get("/admin/v1/models")).status_code == 401
    await store._redis.delete(keys.API_KEYS)
    assert (await http.get("/admin/v1/models")).status_code == 401


async def test_a_damaged_record_opens_nothing(store, http) -> None:
    """It may have been the admin's."""
    await store._redis.hset(keys.API_KEYS, "aa", "{")
    assert (await http.get("/admin/v1/models")).status_code == 401


async def test_a_listener_that_others_reach_needs_keys_from_the_start(store) -> None:
    """Even if the store knows of none."""
    app = create_app(store, Metrics(), keys_needed=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
        assert (await client.get("/admin/v1/models")).status_code == 401
        assert (await client.get("/livez")).status_code == 200


async def test_without_the_store_nobody_is_let_in(valkey: Valkey) -> None:
    """503, exit code 3, and not one line of a release."""
    store = Store.connect(valkey.url)
    _, admin = await make(store, "admin")
    app = create_app(store, Metrics())
    valkey.kill()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
        answer = await client.get("/admin/v1/models", headers=bearer(admin))
        assert (answer.status_code, answer.json()["error"]["exit_code"]) == (503, 3)
    await store.close()


async def test_keys_are_made_listed_and_revoked_over_http(store, http) -> None:
    """The secret is in the answer that made it and nowhere else; no cache may keep that answer."""
    admin_id, admin = await make(store, "admin")
    wish = {"name": "app", "scopes": ["inference"], "rpm": 5, "actor": "ann", "reason": "because"}
    made = await http.post("/admin/v1/keys", json=wish, headers=bearer(admin))
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    key = made.json()
    listed = await http.get("/admin/v1/keys", headers=bearer(admin))
    assert key["secret"] not in listed.text
    assert {one["name"] for one in listed.json()["keys"]} == {"k", "app"}
    said = {"actor": "bob", "reason": "leaked"}
    ended = await http.request("DELETE", f"/admin/v1/keys/{key['id']}", json=said, headers=bearer(admin))
    assert ended.json()["revoked_ms"] > 0
    assert [entry["who"] for entry in await store.audit()] == ["ann", f"ann ({admin_id})", f"bob ({admin_id})"]


async def test_a_report_is_told_with_the_key_that_put_it(store, http) -> None:
    """A name is a claim, the key proves it."""
    admin_id, admin = await make(store, "admin")
    where = "/admin/v1/models/m/reports/eval/d"
    assert (await http.put(where, json={"verdict": "pass"})).status_code == 401
    for query in ({}, {"actor": "ci"}):
        assert (await http.put(where, params=query, json={"verdict": "pass"}, headers=bearer(admin))).status_code == 200
    told = [entry["who"] for entry in await store.audit("m")]
    assert told == [f"unknown ({admin_id})", f"ci ({admin_id})"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("POST", "/admin/v1/keys", {"name": "a", "scopes": ["inference"]}, 422, "--reason"),
        ("POST", "/admin/v1/keys", {"name": "a", "scopes": ["root"], "reason": "x"}, 422, "root"),
        ("POST", "/admin/v1/keys", {"name": "a", "scopes": ["admin"], "rpm": -1, "reason": "x"}, 422, "--rpm -1"),
        ("POST", "/admin/v1/keys", {"name": "a", "scopes": ["admin"], "id": "b", "reason": "x"}, 422, "id"),
        ("DELETE", "/admin/v1/keys/key_0", {"reason": "x"}, 404, "keys list"),
        ("DELETE", "/admin/v1/keys/key_0", {}, 422, "--reason"),
        ("DELETE", "/admin/v1/keys/..", {"reason": "x"}, 404, "/admin/v1"),
    ],
)
async def test_a_wrong_request_is_one_line(store, http, *, method, path, body, status, word) -> None:
    """What, where, the mend; and nothing is written."""
    answer = await http.request(method, path, json=body)
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"]
    assert await store.audit() == []
