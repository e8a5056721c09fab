"""Fuzz every parser: `python -m bench.fuzz --inputs 1000000`; `--only NAME` for one, `--seed N` for another chance.

Prints a line a parser and writes bench/results/fuzz.md; 1 if a law was broken: the input is shown, and can be replayed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from bench.fuzz import bodies, lines, streams
from bench.fuzz.laws import Broken
from bench.fuzz.mutate import Mutator

_RESULTS = Path(__file__).parents[1] / "results" / "fuzz.md"
_MOST_FOUND = 5


@dataclass(frozen=True, slots=True)
class Target:
    """A parser: what of it is held, by which law, from which inputs on. A law returns what the parser said."""

    what: str
    law: Callable[[bytes, Random], str]
    seeds: Sequence[bytes]
    words: Sequence[bytes]


TARGETS = {
    "ask": Target("a body: door/ask.py, beside Python's json", bodies.asked, bodies.JSON_SEEDS, bodies.JSON_WORDS),
    "json": Target(
        "a JSON text: serving/quick.py, beside Python's json", bodies.quick, bodies.TEXT_SEEDS, bodies.TEXT_WORDS
    ),
    "upload": Target(
        "an upload: door/multipart.py, beside the mail parser",
        bodies.uploaded, bodies.UPLOAD_SEEDS, bodies.UPLOAD_WORDS,
    ),
    "request": Target(
        "a client's bytes: llhttp and door/protocol.py, beside h11",
        lines.requested, lines.REQUEST_SEEDS, lines.REQUEST_WORDS,
    ),
    "reply": Target(
        "an engine's bytes: llhttp and pool/connection.py, beside h11",
        lines.replied, lines.REPLY_SEEDS, lines.REPLY_WORDS,
    ),
    "repeated request": Target(
        "a client's bytes behind a head that is known: repeat.py and door/protocol.py, beside a door that forgets",
        lines.requested_again, lines.REPEATED_REQUESTS, (*lines.REQUEST_WORDS, *lines.LENGTHS),
    ),
    "repeated reply": Target(
        "an engine's bytes behind a head that is known: repeat.py and pool/connection.py, likewise",
        lines.replied_again, lines.REPEATED_REPLIES, (*lines.REPLY_WORDS, *lines.LENGTHS),
    ),
    "frames": Target("a stream's frames: serving/sse.py", streams.split, streams.STREAM_SEEDS, streams.STREAM_WORDS),
    "chat": Target(
        "a chat's stream: relay/answer.py and template.py, beside the slow way",
        streams.chat, streams.STREAM_SEEDS, streams.STREAM_WORDS,
    ),
    "responses": Target(
        "a stream of /v1/responses, likewise", streams.responses, streams.STREAM_SEEDS, streams.STREAM_WORDS
    ),
    "names": Target(
        "the model's name in an answer: relay/naming.py, beside Python's json",
        streams.named, streams.NAME_SEEDS, streams.STREAM_WORDS,
    ),
}  # fmt: skip


@dataclass(slots=True)
class Found:
    """What a run found: inputs that broke a law, and how many different things the parser said."""

    inputs: int
    broken: list[tuple[bytes, str]] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    seconds: float = 0.0


def run(target: Target, inputs: int, seed: int) -> Found:
    """Hold a law against so many inputs; the same seed makes the same ones."""
    chance = Random(seed)
    mutator = Mutator(target.seeds, target.words, chance)
    found, began = Found(inputs), time.monotonic()
    for _ in range(inputs):
        raw = mutator.make()
        try:
            said = target.law(raw, chance)
        except Broken as law:
            found.broken.append((raw, str(law)))
        except Exception as error:  # noqa: BLE001 - whatever escapes a parser is what is looked for
            found.broken.append((raw, f"raised {error!r}"))
        else:
            found.said.add(said)
            mutator.learn(raw, said)
        if len(found.broken) >= _MOST_FOUND:
            break
    found.seconds = time.monotonic() - began
    return found


def table(results: dict[str, Found], seed: int) -> str:
    """Return the page of results."""
    head = (
        f"# Fuzzing\n\n`python -m bench.fuzz --inputs N --seed {seed}`, {datetime.now(UTC):%Y-%m-%d}, "
        f"Python {platform.python_version()}. An answer that is new (a status and its reason, how a stream ended) "
        "makes its input a seed.\n\n"
        "| parser | inputs | different answers | laws broken | seconds |\n|---|---|---|---|---|\n"
    )
    rows = [
        f"| {TARGETS[name].what} | {found.inputs:,} | {len(found.said)} | {len(found.broken)} | {found.seconds:.0f} |\n"
        for name, found in results.items()
    ]
    return head + "".join(rows)


def main(words: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=sorted(TARGETS), action="append")
    asked = parser.parse_args(words)
    results: dict[str, Found] = {}
    for name in asked.only or TARGETS:
        results[name] = found = run(TARGETS[name], asked.inputs, asked.seed)
        print(f"{name:16} {len(found.said):5} answers {len(found.broken)} broken {found.seconds:6.1f} s", flush=True)
        for raw, law in found.broken:
            print(f"  {law}\n    {raw!r}")
    if not asked.only:
        _RESULTS.write_text(table(results, asked.seed))
    return int(any(found.broken for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
