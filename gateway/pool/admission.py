"""Who may ask an arm's engines now: slots, and a short queue before them.

No task and no future for a request: whoever asks brings two callbacks. A queue is served first come, first served; all
wait equally long at most, so one timer on its head watches the whole of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from typing import Protocol

from gateway.errors import ApiError
from gateway.pool.options import PoolOptions

Call = Callable[[], None]


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Let it not happen."""


Later = Callable[[float, Call], Timer]  # an event loop's call_later


class OverloadedError(ApiError):
    """A request that was turned away for want of room; `wait_s` is when to come back."""

    def __init__(self, status: int, message: str, code: str, wait_s: float) -> None:
        super().__init__(status, message, code)
        self.wait_s = wait_s

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Whole seconds for everybody, milliseconds for OpenAI's SDKs: their clients must not all come back at once."""
        return [
            (b"content-type", b"application/json"),
            (b"x-should-retry", b"true"),
            (b"retry-after", b"%d" % ceil(self.wait_s)),
            (b"retry-after-ms", b"%d" % (1000 * self.wait_s)),
        ]


class Ticket:
    """One request at a gate: queued, inside, or done."""

    __slots__ = ("_gate", "inside", "late", "ready", "until")

    def __init__(self, gate: Gate, ready: Call, late: Call, until: float) -> None:
        self._gate: Gate | None = gate
        self.ready = ready
        self.late = late
        self.until = until
        self.inside = False

    def leave(self) -> None:
        """Give the slot, or the place in the queue, to the next; a second call does nothing."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.left(self)


class Gate:
    """One arm's slots in one worker. `chance` draws from [0, 1), `clock` reads monotonic seconds."""

    __slots__ = ("_admitting", "_chance", "_clock", "_later", "_options", "_queue", "_slots", "_timer", "inside")

    def __init__(
        self, options: PoolOptions, later: Later, clock: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self._later = later
        self._clock = clock
        self._chance = chance
        self._queue: OrderedDict[Ticket, None] = OrderedDict()
        self._timer: Timer | None = None
        self._admitting = False
        self.inside = 0
        self._follow(options)

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._queue)

    @property
    def spare(self) -> bool:
        """Whether work that nobody waits for may go in: shadow traffic is the first to be shed."""
        return self.inside < self._slots

    def follow(self, options: PoolOptions) -> None:
        """Go by new options from now on; who is inside stays, who waits keeps its deadline."""
        self._follow(options)
        self._admit()

    def enter(self, ready: Call, late: Call, now: float) -> Ticket:
        """Let a request in, or have it wait; `ticket.inside` tells which.

        Of a request that waits, exactly one is called: `ready` when it is let in, `late` when it waited too long; none
        if it leaves before. Neither is called from within here. Raises OverloadedError if no more may wait.
        """
        if self.inside < self._slots and not self._queue:
            self.inside += 1
            ticket = Ticket(self, ready, late, now)
            ticket.inside = True
            return ticket
        if len(self._queue) >= self._options.queue:
            raise self._overloaded(429, "too many requests wait for the model's engine; try again", "overloaded")
        ticket = Ticket(self, ready, late, now + self._options.queue_s)
        self._queue[ticket] = None
        if self._timer is None:
            self._timer = self._later(self._options.queue_s, self._expire)
        return ticket

    def too_late(self) -> OverloadedError:
        """Return what a request is told that waited too long."""
        return self._overloaded(503, "the model's engine had no room in time; try again", "overloaded")

    def left(self, ticket: Ticket) -> None:
        """Forget a ticket; `Ticket.leave` calls this."""
        if not ticket.inside:
            self._queue.pop(ticket, None)
            return
        self.inside -= 1
        if self._queue:
            self._admit()

    def _follow(self, options: PoolOptions) -> None:
        self._options = options
        self._slots = options.slots or float("inf")

    def _admit(self) -> None:
        """Let in whoever is next. One that leaves within its own `ready` must not make this call itself again."""
        if self._admitting:
            return
        self._admitting = True
        try:
            while self._queue and self.inside < self._slots:
                ticket, _ = self._queue.popitem(last=False)
                ticket.inside = True
                self.inside += 1
                ticket.ready()
        finally:
            self._admitting = False

    def _expire(self) -> None:
        """Turn away whose time is over, and look again when the next one's will be."""
        self._timer = None
        now = self._clock()
        due = []
        while self._queue:
            first = next(iter(self._queue))
            if first.until > now:
                self._timer = self._later(first.until - now, self._expire)
                break
            due.append(self._queue.popitem(last=False)[0])
        for ticket in due:
            ticket.late()

    def _overloaded(self, status: int, message: str, code: str) -> OverloadedError:
        """Let it come back after one to two seconds: sooner than that the queue has hardly moved."""
        return OverloadedError(status, message, code, 1 + self._chance())
