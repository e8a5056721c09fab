"""The admin API over HTTP semantics, against a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from canary.api.app import create_app
from canary.storage import keys
from canary.storage.store import Store
from tests.canary.specs import SPEC, changed
from tests.canary.world import BY, LOAD, World
from tests.support.valkey import Valkey


@pytest.fixture
async def world(store: Store) -> World:
    """A control plane with two engines."""
    world = World(store)
    await world.engines()
    return world


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of its listener."""
    app = create_app(world.store, world.metrics, clock=lambda: world.now)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
        yield client


ORDER = {"actor": "ann", "reason": "because"}


def error(response: httpx.Response, status: int, exit_code: int) -> str:
    """Return an error's message."""
    assert response.status_code == status
    body = response.json()
    assert set(body) == {"error"}
    assert body["error"]["exit_code"] == exit_code
    return body["error"]["message"]


async def test_a_release_is_started_told_and_read(world: World, http: httpx.AsyncClient) -> None:
    """Start, status, a command, the audit and the report's material."""
    started = await http.post("/admin/v1/releases", json={"spec": SPEC, **ORDER})
    assert started.status_code == 201
    assert started.json()["phase"] == "draft"
    assert (await http.get("/admin/v1/models")).json() == {"models": ["m"]}
    told = await http.post("/admin/v1/models/m/commands", json={"verb": "pause", **ORDER})
    assert told.json()["overlays"]["paused"] == "because"
    assert (await http.get("/admin/v1/models/m/status")).json()["phase"] == "draft"
    entries = (await http.get("/admin/v1/audit", params={"model": "m", "count": 1})).json()["entries"]
    assert [entry["what"] for entry in entries] == ["pause"]
    material = (await http.get("/admin/v1/models/m/report")).json()
    assert material["release"]["spec"] == SPEC
    assert material["split"]["baseline"]["engine"] == "base"
    assert material["reports"] == {"load": None, "eval": None}


async def test_reports_are_put_and_read(http: httpx.AsyncClient) -> None:
    """A gate's report belongs to one digest, and to no other address."""
    where = "/admin/v1/models/m/reports/load/d-new"
    assert "no load report" in error(await http.get(where), 404, 1)
    assert (await http.put(where, json=LOAD)).status_code == 200
    assert (await http.get(where)).json() == LOAD
    assert (await http.put(where, params={"actor": "ci\n@host"}, json={**LOAD, "verdict": "fail"})).status_code == 200
    told = (await http.get("/admin/v1/audit", params={"model": "m"})).json()["entries"]
    assert [(one["who"], one["what"]) for one in told] == [
        ("unknown", "load report: pass"),
        ("ci @host", "load report: fail"),
    ]
    assert "actor" in error(await http.put(where, params={"actor": "x" * 201}, json=LOAD), 422, 2)
    assert "another model or digest" in error(await http.put(where[:-1] + "x", json=LOAD), 422, 2)
    assert "kind" in error(await http.put("/admin/v1/models/m/reports/other/d", json={}), 422, 2)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "exit_code", "word"),
    [
        ("GET", "/admin/v1/models/absent/status", None, 404, 1, "linnet start"),
        ("GET", "/admin/v1/models/a:b/status", None, 422, 2, "pattern"),
        ("POST", "/admin/v1/models/m/commands", {"verb": "launch", **ORDER}, 422, 2, "no such verb"),
        ("POST", "/admin/v1/models/m/commands", {"verb": "pause", "actor": "a"}, 422, 2, "--reason"),
        ("POST", "/admin/v1/models/m/commands", {"verb": "pause", "why": "x", **ORDER}, 422, 2, "why"),
        ("POST", "/admin/v1/models/m/commands", {"verb": "retry", **ORDER}, 409, 1, "abort or roll back first"),
        ("POST", "/admin/v1/models/m/commands", {"verb": "pause", "if_generation": 9, **ORDER}, 409, 4, "generation 1"),
        ("POST", "/admin/v1/releases", {"spec": changed("usd: 5,", "usd: x,"), **ORDER}, 422, 2, "spec:7: "),
        ("POST", "/admin/v1/releases", {"spec": SPEC, **ORDER}, 409, 1, "--supersede"),
        ("GET", "/admin/v1/audit?count=0", None, 422, 2, "count"),
        ("GET", "/nowhere", None, 404, 2, "/nowhere"),
        ("DELETE", "/admin/v1/models", None, 405, 2, "DELETE"),
    ],
)
async def test_each_error_has_one_body(world, http, *, method, path, body, status, exit_code, word) -> None:
    """The command line's exit code and one line that says the mend."""
    await world.start()
    message = error(await http.request(method, path, json=body), status, exit_code)
    assert word in message


async def test_bodies_are_bounded(http: httpx.AsyncClient) -> None:
    """A body of two megabytes, or of unknown length, is not read."""
    big = await http.post("/admin/v1/releases", content=b"x" * (2 << 20))
    assert "at most" in error(big, 413, 2)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    assert error(await http.post("/admin/v1/releases", content=pieces()), 413, 2)


async def test_what_is_damaged_is_told_and_numbers_without_end_are_nothing(world: World, http) -> None:
    """A state that cannot be read is one line; infinities of the statistics become null."""
    await world.start()
    await world.step()
    await world.store._redis.set(keys.findings("m"), '[{"guardrail": "x", "slice": "", "evidence": -Infinity}]')
    assert (await http.get("/admin/v1/models/m/status")).json()["guardrails"][0]["evidence"] is None
    await world.store._redis.set(keys.release("m"), '{"phase": "lost"}')
    assert "cannot be read" in error(await http.get("/admin/v1/models/m/status"), 409, 1)
    assert "cannot be read" in error(await http.post("/admin/v1/releases", json={"spec": SPEC, **ORDER}), 409, 1)


async def test_a_fault_of_ours_has_a_body_too(world: World) -> None:
    """No traceback reaches a client."""
    await world.start()
    await world.step()
    await world.store._redis.set(keys.findings("m"), "damaged")
    app = create_app(world.store, world.metrics)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        assert "log says why" in error(await client.get("/admin/v1/models/m/status"), 500, 1)


async def test_metrics_name_the_release(world: World, http: httpx.AsyncClient) -> None:
    """The contract's names, with the model as the only free label."""
    await world.to_canary()
    await world.traffic(100)
    await world.step()
    await world.priced(completion_tokens=50, usd=0.0002)
    arms = {
        arm: {**LOAD["arms"][arm], "usd_per_million_tokens": usd} for arm, usd in (("baseline", 3), ("candidate", None))
    }
    await world.store.put_report("m", "load", "d-new", {**LOAD, "arms": arms}, BY)
    await world.engines(base="ended")
    await world.say("rollback")
    text = (await http.get("/metrics")).text
    for line in (
        'linnet_release_phase{model="m",phase="rolled_back"} 1.0',
        'linnet_release_generation{model="m"} 7.0',
        'linnet_split_ratio{arm="candidate",kind="desired",model="m"} 0.0',
        'linnet_guardrail_verdict{guardrail="error_rate",model="m",slice="",verdict="fail"} 0.0',
        'linnet_guardrail_evidence{guardrail="error_rate",model="m",slice=""}',
        'linnet_releases_total{model="m",result="rolled_back"} 1.0',
        'linnet_cost_usd_per_million_tokens{arm="baseline",kind="bill",model="m"} 3.0',
        'linnet_cost_usd_per_million_tokens{arm="candidate",kind="calibrated",model="m"} 4.0',
        'linnet_engine_up{engine="base"} 0.0',
        'linnet_engine_up{engine="new"} 1.0',
        "linnet_store_up 1.0",
    ):
        assert line in text
    assert 'linnet_cost_usd_per_million_tokens{arm="candidate",kind="bill"' not in text


async def test_without_the_store_it_lives_but_is_not_ready(valkey: Valkey) -> None:
    """Liveness and metrics answer; everything else is one line, exit code 3."""
    store = Store.connect(valkey.url)
    app = create_app(store, World(store).metrics)
    valkey.kill()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as http:
        assert (await http.get("/livez")).status_code == 200
        assert "linnet up" in error(await http.get("/readyz"), 503, 3)
        assert "linnet_store_up 0.0" in (await http.get("/metrics")).text
        assert error(await http.get("/admin/v1/models"), 503, 3)
        assert error(await http.post("/admin/v1/releases", json={"spec": SPEC, **ORDER}), 503, 3)
    await store.close()


@pytest.mark.parametrize(
    "damage",
    [
        {"arms": []},
        {"arms": {"candidate": 7}},
        {"arms": {"candidate": {"price": [1]}}},
        {"arms": {"candidate": {"price": [0, 0, "dear"]}}},
        {"arms": {"candidate": {"seconds": "long"}}},
        {"created_ms": "today"},
        {"created_ms": None},
        {"reasons": 7},
    ],
)
async def test_a_load_report_that_cannot_be_read_is_refused(world: World, http: httpx.AsyncClient, damage) -> None:
    """Once in the store it would keep the controller from judging, and the status from being told."""
    await world.start()
    put = await http.put("/admin/v1/models/m/reports/load/d-new", json={**LOAD, **damage})
    assert "linnet loadtest SPEC" in error(put, 422, 2)
    assert (await http.put("/admin/v1/models/m/reports/load/d-new", json=LOAD)).status_code == 200
