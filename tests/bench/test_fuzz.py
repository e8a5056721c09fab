"""The fuzzer finds what it is there for, and finds nothing in the parsers as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from bench.fuzz.__main__ import TARGETS, main, run
from bench.fuzz.mutate import Mutator, cut
from gateway.door import ask, multipart
from gateway.door.protocol import Door
from gateway.pool.connection import Connection
from gateway.relay import template
from gateway.relay.naming import PublicName
from gateway.repeat import Repeat
from serving import quick, sse

INPUTS = 1500


@pytest.mark.parametrize("name", TARGETS)
def test_no_law_is_broken(name: str):
    """A short run of every parser, the same one each time; `python -m bench.fuzz --inputs 1000000` is the long one."""
    found = run(TARGETS[name], INPUTS, seed=11)
    assert found.broken == []
    assert len(found.said) > 5


def first_model(self: ask.Ask, served: str) -> bytes:
    """Replace the first thing that looks like a model's name, as a gateway in a hurry would."""
    return bytes(self._body).replace(self.model.encode(), served.encode(), 1)


def last_piece(self: Door, body: bytes) -> None:
    """Keep the last piece of a body alone."""
    self._parts = [body]


def anywhere(self: PublicName, raw: bytes) -> bytes:
    """Rename wherever the name stands."""
    return raw.replace(b"served-name", b"support")


def without_counting(self: Repeat, message: bytes) -> bytes | None:
    """Take whatever follows a known head as its body."""
    _, digits, rest = message.partition(self._before)
    _, after, body = rest.partition(self._after)
    return body if digits and after else None


BREAKS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "ask": (ask.Ask, "forward", first_model),
    "json": (quick, "_QUICK", json.loads),
    "upload": (multipart.Upload, "forward", lambda upload, served: upload.body.replace(b"support", served.encode())),
    "request": (Door, "on_body", last_piece),
    "reply": (Connection, "on_message_begin", lambda _: None),
    "repeated request": (Repeat, "body", without_counting),
    "repeated reply": (Repeat, "body", without_counting),
    "frames": (sse.FrameSplitter, "feed", lambda _, data: [data]),
    "chat": (template, "_is_text", lambda _: True),
    "names": (PublicName, "body", anywhere),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_parser_that_cheats_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch):
    """Each law is seen red: a likely mistake breaks it within some thousand inputs."""
    place, attribute, mistake = BREAKS[name]
    monkeypatch.setattr(place, attribute, mistake)
    found = run(TARGETS[name], 40_000, seed=11)
    assert found.broken


def test_the_same_seed_makes_the_same_inputs():
    """A finding can be replayed."""
    target = TARGETS["ask"]
    first, second = (Mutator(target.seeds, target.words, Random(5)) for _ in range(2))
    assert [first.make() for _ in range(200)] == [second.make() for _ in range(200)]


def test_pieces_are_the_whole():
    """Cutting loses nothing."""
    chance = Random(5)
    for size in (0, 1, 7, 300):
        raw = chance.randbytes(size)
        assert all(b"".join(cut(raw, chance)) == raw for _ in range(50))


def test_one_parser_may_be_chosen(capsys: pytest.CaptureFixture[str]):
    """A short run says its line, and leaves the page of results alone."""
    assert main(["--inputs", "50", "--only", "names"]) == 0
    assert "0 broken" in capsys.readouterr().out
