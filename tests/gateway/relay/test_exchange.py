from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from canary.core.arms import Endpoint, Split
from canary.core.tally import parse
from canary.storage.store import Store
from gateway.errors import ApiError
from tests.gateway.conftest import acknowledged
from tests.gateway.rig import LIMITS, MODEL, House, Sim, events, gateway, publish, simulated, until

FORCE_CANDIDATE = {"x-linnet-arm": "candidate"}


async def tally(store: Store, arm: str, name: str, slice_: str = "") -> int:
    """One count of the release under way, as the control plane reads it."""
    found = parse(await store.tallies(MODEL, "r1", 1))
    return found[3, arm, slice_].count(name) if (3, arm, slice_) in found else 0


async def ask_until(house: House, arm: str, start: int = 0) -> str:
    """Return a session that belongs to an arm."""
    for number in range(start, start + 200):
        answer = await house.ask(headers={"x-linnet-session": f"s{number}"})
        if answer.headers["x-linnet-arm"] == arm:
            return f"s{number}"
    raise AssertionError(f"no session on {arm}")


async def test_a_whole_answer_carries_the_public_name_and_the_headers(alone: House, base: Sim):
    """The app sees the model it asked for, its own request id, the arm and the generation."""
    answer = await alone.ask(headers={"x-request-id": "abc\t<1>"})
    assert answer.status_code == 200
    assert answer.json()["model"] == MODEL
    assert answer.headers["x-request-id"] == "abc1"
    assert answer.headers["x-linnet-arm"] == "baseline"
    assert answer.headers["x-linnet-generation"] == "0"
    assert base.engine.last["headers"]["x-request-id"] == "abc1"
    assert base.engine.last["body"]["model"] == "base"


async def test_every_answer_carries_the_request_id(alone: House):
    """Lists, health and refusals can be found in the logs as well."""
    for path in ("/v1/models", "/livez", "/nowhere"):
        answer = await alone.http.get(path, headers={"x-request-id": "mine\t1"})
        assert answer.headers["x-request-id"] == "mine1"
        assert len((await alone.http.get(path)).headers["x-request-id"]) == 32


async def test_a_stream_ends_well_and_hides_the_usage_nobody_asked_for(alone: House, base: Sim):
    """Usage is always asked of the engine, and its chunk taken out again."""
    answer = await alone.ask(stream=True)
    seen = events(answer.content)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert seen[-1] == "[DONE]"
    assert {chunk["model"] for chunk in seen[:-1]} == {MODEL}
    assert all(chunk["choices"] for chunk in seen[:-1])
    assert base.engine.last["body"]["stream_options"] == {"include_usage": True}


async def test_usage_reaches_the_client_that_asks_for_it(alone: House):
    """The usage-only chunk stays for those who want it."""
    answer = await alone.ask(stream=True, stream_options={"include_usage": True})
    assert events(answer.content)[-2]["usage"]["completion_tokens"] > 0


async def test_completions_are_served_too(alone: House):
    """The older route, streamed and whole."""
    body = {"model": MODEL, "prompt": "hello", "max_tokens": 4}
    whole = await alone.http.post("/v1/completions", json=body)
    streamed = await alone.http.post("/v1/completions", json={**body, "stream": True})
    assert whole.json()["choices"][0]["text"]
    assert events(streamed.content)[-1] == "[DONE]"


async def test_a_failing_candidate_is_answered_by_the_baseline_and_still_counted(house: House, cand: Sim, store: Store):
    """The client sees a good answer; the failure is the candidate's, the answer no evidence for the baseline."""
    session = await ask_until(house, "candidate")
    done = await until_tally(store, "candidate", "ok", 1)
    baseline = await tally(store, "baseline", "done")
    cand.behave(error_rate=1.0)
    for stream in (False, True):
        answer = await house.ask(headers={"x-linnet-session": session}, stream=stream)
        assert answer.status_code == 200
        assert answer.headers["x-linnet-arm"] == "baseline"
    await until_tally(store, "candidate", "error", 2)
    assert await tally(store, "candidate", "ok") == done
    assert await tally(store, "baseline", "done") == baseline
    assert await tally(store, "candidate", "assigned") == done + 2


async def test_a_dead_candidate_is_answered_by_the_baseline(house: House, cand: Sim, store: Store):
    """No connection, no error for the client."""
    session = await ask_until(house, "candidate")
    cand.kill()
    answer = await house.ask(headers={"x-linnet-session": session}, stream=True)
    assert answer.headers["x-linnet-arm"] == "baseline"
    assert events(answer.content)[-1] == "[DONE]"
    await until_tally(store, "candidate", "error", 1)


async def test_an_engine_that_dies_under_load_costs_no_client_its_answer(house: House, base: Sim, cand: Sim):
    """Whoever had no byte yet gets a good answer; whoever had is told inside the stream."""
    for sim in (base, cand):
        sim.behave(ttft_ms=60, tpot_ms=10)
    asking = [
        asyncio.ensure_future(
            house.ask(
                headers={"x-linnet-session": f"s{number}"}, stream=number % 2 == 0, max_tokens=100, ignore_eos=True
            )
        )
        for number in range(60)
    ]
    # Many tokens a stream, long before the end of any: some must have reached their clients, on a slow machine too.
    await until(lambda: cand.running > 5 and cand.engine.counts["generated"] > 300, "under way")
    cand.kill()
    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    streams = [events(answer.content) for number, answer in enumerate(answers) if number % 2 == 0]
    broken = [seen for seen in streams if any("error" in event for event in seen)]
    assert broken
    assert all(seen[-1] == "[DONE]" for seen in streams)
    assert all(seen[0]["choices"] for seen in broken)
    assert all(answer.json()["usage"] for answer in answers[1::2])


async def test_a_forced_arm_fails_openly_and_is_no_evidence(house: House, cand: Sim, store: Store):
    """A load test must see the candidate as it is."""
    good = await house.ask(headers=FORCE_CANDIDATE)
    assert good.headers["x-linnet-arm"] == "candidate"
    cand.behave(error_rate=1.0)
    bad = await house.ask(headers=FORCE_CANDIDATE)
    assert bad.status_code == 500
    assert bad.headers["x-should-retry"] == "true"
    assert "error" in bad.json()
    await asyncio.sleep(0.4)
    assert await tally(store, "candidate", "assigned") == 0
    assert await tally(store, "candidate", "done") == 0


async def test_a_stream_that_breaks_ends_in_an_error_event_and_done(alone: House, base: Sim):
    """The 200 is out already: the client is told inside the stream, and the stream ends as streams end."""
    base.behave(cut_rate=1.0)
    cut = events((await alone.ask(stream=True)).content)
    base.behave(cut_rate=0.0, midstream_error_rate=1.0)
    told = events((await alone.ask(stream=True)).content)
    for seen in (cut, told):
        assert seen[-1] == "[DONE]"
        assert "error" in seen[-2]
        assert [event for event in seen if "error" in event] == [seen[-2]]


async def test_a_client_error_passes_and_blames_nobody(house: House, store: Store):
    """400 of the engine is the client's, on whichever arm."""
    session = await ask_until(house, "candidate")
    answer = await house.ask(headers={"x-linnet-session": session}, max_tokens=10**6)
    assert answer.status_code == 400
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-linnet-arm"] == "candidate"
    await until_tally(store, "candidate", "client_error", 1)
    assert await tally(store, "candidate", "error") == 0


async def test_slices_and_prices_are_counted(house: House, store: Store):
    """Evidence lies under its slice; a slice nobody declared is none."""
    headers = {"x-linnet-slice": "domain"}
    for number in range(4):
        await house.ask(headers={**headers, "x-linnet-session": f"{number}"})
        await house.ask(headers={"x-linnet-slice": "nonsense", "x-linnet-session": f"{number}"})

    async def counted() -> bool:
        found = parse(await store.tallies(MODEL, "r1", 1))
        by_slice = dict.fromkeys(("", "domain"), 0)
        for (_, _, slice_), sums in found.items():
            by_slice[slice_] += sums.count("priced")
        return by_slice == {"": 4, "domain": 4}

    await until(counted, "priced requests")


async def until_tally(store: Store, arm: str, name: str, least: int) -> int:
    """Wait for a count."""

    async def there() -> int:
        found = await tally(store, arm, name)
        return found if found >= least else 0

    return await until(there, f"{arm} {name} >= {least}")


async def test_the_clients_other_bytes_reach_the_engine_unchanged(alone: House, base: Sim):
    """Unknown fields, big numbers and escapes pass; only `model` is another."""
    raw = b'{ "x_unknown" : {"a":[1,2.50,1e3]}, "model":"support", "messages":[{"role":"user","content":"\\u00e9"}]}'
    answer = await alone.http.post("/v1/chat/completions", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert base.engine.last["body"] == {**json.loads(raw), "model": "base"}


async def test_a_stream_without_end_of_frame_is_given_up(tmp_path: Path):
    """What waits for the other half of its frame is held, so it has a limit like a whole answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ")
            while True:
                writer.write(b"x" * 10_000)
                await writer.drain()
                await asyncio.sleep(0.01)

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        static = Split(MODEL, 0, Endpoint("e", "s", (url,)))
        async with gateway(tmp_path, static, limits=replace(LIMITS, answer_bytes=50_000)) as house:
            answer = await house.ask(stream=True)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "engine_bad_answer"


@asynccontextmanager
async def lingering(tmp_path: Path) -> AsyncIterator[tuple[House, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A stream of which all has been said and read, while its engine has not ended it."""
    said = (
        b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\ndata: [DONE]\n\n'
    )

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + said)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with gateway(tmp_path, Split(MODEL, 0, Endpoint("e", "s", (url,)))) as house:
            reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
            body = json.dumps({"model": MODEL, "prompt": "x", "stream": True}).encode()
            writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await reader.readuntil(b"[DONE]\n\n\r\n")
            yield house, reader, writer
            writer.close()


async def test_a_stream_that_has_said_all_is_cut_once(tmp_path: Path):
    """At the end of a drain there is nothing to add to it."""
    async with lingering(tmp_path) as (house, reader, _):
        for door in house.server.server_state.connections:
            door.shutdown()
            door.cut(ApiError(503, "no more", "shutting_down"))
        assert await reader.read() == b"0\r\n\r\n"


async def test_who_leaves_after_the_last_word_has_had_a_good_answer(tmp_path: Path):
    """Some SDKs hang up at [DONE]: that is no cancellation."""
    async with lingering(tmp_path) as (house, _, writer):
        writer.close()
        count = house.app.desk.metrics.series("linnet_requests_total", MODEL, "baseline", "ok")
        await until(lambda: count[0] == 1, "counted as good")


@pytest.fixture
async def control() -> AsyncIterator[Sim]:
    """The baseline's model on an engine of its own."""
    async with simulated("base") as sim:
        yield sim


async def test_a_control_answers_its_part_and_the_baseline_instead_of_it(
    split: Split, base: Sim, control: Sim, store: Store, tmp_path: Path
):
    """The client hears of the baseline in either case; a control that fails is the baseline's failure."""
    await publish(store, replace(split, control=control.endpoint(), control_percent=50))
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), store.url) as house:
        await until(lambda: acknowledged(store, 1), "acknowledgement")
        session = await ask_until(house, "baseline")  # at half, the control has all of the baseline
        assert (control.engine.counts["started"], base.engine.counts["started"]) == (1, 0)
        await until_tally(store, "control", "done", 1)
        assert (MODEL, "control") in house.app.parts.pools._pools  # with breakers and slots of its own
        await house.app.parts._sample()  # what nothing names any more is left
        assert control.url in {f"http://{replica.host}:{replica.port}" for replica in house.app.parts.pools.replicas}
        assert await tally(store, "control", "assigned") == await tally(store, "baseline", "done") == 1
        control.behave(error_rate=1.0)
        for stream in (False, True):
            answer = await house.ask(headers={"x-linnet-session": session}, stream=stream)
            assert (answer.status_code, answer.headers["x-linnet-arm"]) == (200, "baseline")
        await until_tally(store, "baseline", "error", 2)
        assert await tally(store, "baseline", "failed_again") == 1
        assert await tally(store, "baseline", "ok") == 1
        assert base.engine.counts["started"] == 2
