"""The simulated engine itself: what runs, what it counts, and when each token falls due."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from typing import Any

from serving.simulated.ask import Ask
from serving.simulated.behaviour import Behaviour
from serving.simulated.language import Speaker, chance

_STALL_LOOK_S = 0.02
_BLOCK = 16  # vLLM caches prompts in blocks of this many tokens
_BLOCKS = 100_000


class Fate(StrEnum):
    """What the draw of lots has in store for a request."""

    WELL = "well"
    REFUSED = "refused"  # 500 before the first byte
    BROKEN = "broken"  # an error event after a token
    CUT = "cut"  # the connection goes after a token
    DEATH = "death"  # the whole engine goes after a token


class Engine:
    """One engine: its behaviour now, its slots, its counters. `die` ends it the hard way.

    Tokens fall due on a schedule that starts when the request gets its slot, so a busy machine delays single tokens,
    not the whole answer.
    """

    def __init__(
        self,
        model: str,
        behaviour: Behaviour,
        *,
        seed: int,
        slots: int,
        longest: int,
        die: Callable[[], None],
        adapters: Sequence[str] = (),
        serves: Sequence[str] = ("generate",),
        blocks: int = _BLOCKS,
    ) -> None:
        self.model = model
        self.names = (model, *adapters)  # LoRA adapters share the engine
        self.serves = frozenset(serves)
        self.behaviour = behaviour
        self.longest = longest
        self.die = die
        self.counts: Counter[str] = Counter()
        self.last: dict[str, Any] = {}
        self._seed = seed
        self._slots = asyncio.Semaphore(slots)
        self._room = blocks
        self._blocks: dict[int, None] = {}  # the least recently used first

    @property
    def speaker(self) -> Speaker:
        """Who answers, with the accuracy of this moment."""
        return Speaker(self.behaviour.accuracy, self._seed)

    def fate(self) -> Fate:
        """Draw the next request's lot; the same seed draws the same lots in order of arrival."""
        self.counts["started"] += 1
        number, how = self.counts["started"], self.behaviour
        if how.die_after and number > how.die_after:
            return Fate.DEATH
        lots = ((Fate.REFUSED, how.error_rate), (Fate.BROKEN, how.midstream_error_rate), (Fate.CUT, how.cut_rate))
        drawn = (fate for fate, rate in lots if chance(self._seed, fate, number) < rate)
        return next(drawn, Fate.WELL)

    def cached(self, ask: Ask) -> int:
        """How many of the prompt's tokens were computed before, block by block from its beginning; remembers it."""
        chain, known = hash(ask.model), 0
        for block in range(len(ask.ids) // _BLOCK):
            chain = hash((chain, ask.ids[block * _BLOCK : (block + 1) * _BLOCK]))
            known += known == block and chain in self._blocks
            self._blocks.pop(chain, None)
            self._blocks[chain] = None
        known = min(known, (len(ask.ids) - 1) // _BLOCK)  # the last token is always computed
        while len(self._blocks) > self._room:
            del self._blocks[next(iter(self._blocks))]
        self.counts["prompt"] += len(ask.ids)
        self.counts["cached"] += known * _BLOCK
        return known * _BLOCK

    def length(self, ask: Ask) -> tuple[int, str]:
        """How many tokens each choice gets, and its finish_reason."""
        natural = self.longest if ask.ignore_eos else self.speaker.length(ask.prompt)
        limit = min(ask.limit or self.longest, self.longest - len(ask.ids))
        return (natural, "stop") if natural <= limit else (limit, "length")

    async def steps(self, ask: Ask, count: int) -> AsyncGenerator[list[str], None]:
        """Yield `count` steps when they fall due: the next word of each choice."""
        voices = [self.speaker.words(ask.prompt, choice) for choice in range(ask.choices)]
        async with self.running() as due:
            for step in range(count):
                await self._until(due + step * self.behaviour.tpot_ms / 1000)
                self.counts["generated"] += len(voices)
                yield [next(voice) for voice in voices]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[float]:
        """Hold a slot; gives the loop's time at which the first step falls due."""
        with self._counted("waiting"):
            await self._slots.acquire()
        try:
            with self._counted("running"):
                yield asyncio.get_running_loop().time() + self.behaviour.ttft_ms / 1000
        finally:
            self._slots.release()

    async def step(self, tokens: int) -> None:
        """Do work of one step: `tokens` are read, none is made."""
        self.counts["prompt"] += tokens
        async with self.running() as due:
            await self._until(due)

    async def _until(self, due: float) -> None:
        left = due - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)
        while self.behaviour.stall:  # noqa: ASYNC110 - a test sets it back whenever it likes
            await asyncio.sleep(_STALL_LOOK_S)

    def metrics(self) -> dict[str, tuple[str, float]]:
        """The values behind /metrics, by vLLM's names."""
        return {
            "num_requests_running": ("gauge", self.counts["running"]),
            "num_requests_waiting": ("gauge", self.counts["waiting"]),
            "kv_cache_usage_perc": ("gauge", 0.0),
            "num_preemptions_total": ("counter", 0),
            "prompt_tokens_total": ("counter", self.counts["prompt"]),
            "prompt_tokens_cached_total": ("counter", self.counts["cached"]),
            "prefix_cache_queries_total": ("counter", self.counts["prompt"]),
            "prefix_cache_hits_total": ("counter", self.counts["cached"]),
            "generation_tokens_total": ("counter", self.counts["generated"]),
            "request_success_total": ("counter", self.counts["finished"]),
        }

    @contextmanager
    def _counted(self, what: str) -> Iterator[None]:
        self.counts[what] += 1
        try:
            yield
        finally:
            self.counts[what] -= 1
