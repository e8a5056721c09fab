from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pool.admission import Gate, OverloadedError, Ticket
from gateway.pool.options import PoolOptions


class Alarm:
    """A call that is due later."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Let it not happen."""
        self.call = None


class Clock:
    """Time that passes when a test says so; timers fire in order."""

    def __init__(self) -> None:
        self.now = 100.0
        self.alarms: list[tuple[float, int, Alarm]] = []
        self._number = count()

    def later(self, seconds: float, call: Callable[[], None]) -> Alarm:
        """As an event loop does it."""
        alarm = Alarm(call)
        heapq.heappush(self.alarms, (self.now + seconds, next(self._number), alarm))
        return alarm

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.alarms and self.alarms[0][0] <= end:
            self.now, _, alarm = heapq.heappop(self.alarms)
            if alarm.call is not None:
                alarm.call()
        self.now = end


class Door:
    """A gate with its clock; what happens to each request is written down."""

    def __init__(self, **options: float) -> None:
        self.clock = Clock()
        self.gate = Gate(PoolOptions(**options), self.clock.later, lambda: self.clock.now, Random(1).random)
        self.said: list[tuple[str, str]] = []

    def enter(self, name: str) -> Ticket:
        """Ask to go in."""
        ready, late = (lambda word=word: self.said.append((name, word)) for word in ("ready", "late"))
        return self.gate.enter(ready, late, self.clock.now)


def test_a_free_slot_lets_in_at_once():
    """The usual case: inside, and nobody is called."""
    door = Door(slots=2)
    assert (door.enter("a").inside, door.enter("b").inside, door.gate.inside, door.said) == (True, True, 2, [])


def test_no_slots_means_no_limit():
    """Zero is unlimited."""
    door = Door(slots=0)
    assert all(door.enter("a").inside for _ in range(5000))
    assert door.gate.spare


def test_a_slot_that_is_left_goes_to_the_one_who_waited_longest():
    """First come, first served."""
    door = Door(slots=1)
    first, second, third = (door.enter(name) for name in "abc")
    first.leave()
    assert (second.inside, third.inside, door.said) == (True, False, [("b", "ready")])


def test_leaving_twice_frees_one_slot():
    """A story may end in two ways at once."""
    door = Door(slots=1)
    ticket = door.enter("a")
    ticket.leave()
    ticket.leave()
    assert (door.gate.inside, door.enter("b").inside, door.enter("c").inside) == (0, True, False)


def test_a_full_queue_turns_away_at_once():
    """429, and SDKs are told to come back, each at its own time."""
    door = Door(slots=1, queue=1)
    door.enter("a")
    door.enter("b")
    with pytest.raises(OverloadedError) as caught:
        door.enter("c")
    headers = dict(caught.value.headers())
    assert (caught.value.status, caught.value.code, headers[b"retry-after"]) == (429, "overloaded", b"2")
    assert (headers[b"x-should-retry"], 1000 <= int(headers[b"retry-after-ms"]) < 2000) == (b"true", True)


def test_a_queue_of_none_turns_away_whoever_finds_no_slot():
    """Zero is no queue."""
    door = Door(slots=1, queue=0)
    door.enter("a")
    with pytest.raises(OverloadedError):
        door.enter("b")


def test_who_waits_too_long_is_told_so():
    """The deadline is each request's own; the slot goes to one whose time is not over."""
    door = Door(slots=1, queue_s=5)
    inside = door.enter("a")
    door.enter("b")
    door.clock.wait(3)
    door.enter("c")
    door.clock.wait(2.5)
    assert door.said == [("b", "late")]
    inside.leave()
    assert door.said == [("b", "late"), ("c", "ready")]
    assert (door.gate.too_late().status, door.gate.waiting) == (503, 0)


def test_a_client_that_leaves_the_queue_is_not_called():
    """Its place is free again at once, and it takes no slot later."""
    door = Door(slots=1, queue=1)
    inside, gone = door.enter("a"), door.enter("b")
    gone.leave()
    waiting = door.enter("c")
    inside.leave()
    door.clock.wait(99)
    assert (waiting.inside, door.said) == (True, [("c", "ready")])


def test_one_that_leaves_within_its_own_ready_does_not_nest():
    """An engine that refuses each at once must not make a stack of all who wait."""
    door = Door(slots=1, queue=5000)
    inside, served = door.enter("a"), []

    def join(number: int) -> None:
        tickets: list[Ticket] = []
        tickets.append(door.gate.enter(lambda: (served.append(number), tickets[0].leave()), lambda: None, 100.0))  # type: ignore[func-returns-value]

    for number in range(5000):
        join(number)
    inside.leave()
    assert (served, door.gate.inside) == (list(range(5000)), 0)


def test_nobody_overtakes_the_queue():
    """Not even one that asks again within its own `ready`, while two slots are free."""
    door = Door(slots=2)
    inside = [door.enter("a"), door.enter("b")]
    again: list[Ticket] = []
    door.gate.enter(lambda: again.append(door.enter("again")), lambda: None, door.clock.now)
    waiting = door.enter("c")
    door.gate.follow(PoolOptions(slots=4))
    assert (waiting.inside, again[0].inside, [name for name, _ in door.said]) == (True, False, ["c"])
    inside[0].leave()
    assert door.said[1:] == [("again", "ready")]


def test_a_ready_that_raises_does_not_lock_the_gate():
    """Whoever comes after is still let in."""
    door = Door(slots=1)
    inside = door.enter("a")
    broken = door.gate.enter([].pop, lambda: None, door.clock.now)
    with pytest.raises(IndexError):
        inside.leave()
    waiting = door.enter("c")
    broken.leave()
    assert waiting.inside


def test_shadows_go_in_only_where_nobody_has_to_wait():
    """They are shed first."""
    door = Door(slots=2)
    ticket = door.enter("a")
    spare_at_first = door.gate.spare
    door.enter("b")
    assert (spare_at_first, door.gate.spare) == (True, False)
    door.enter("c")
    ticket.leave()
    assert not door.gate.spare


def test_more_slots_let_in_at_once_and_fewer_turn_nobody_out():
    """A file of models may be reloaded at any time."""
    door = Door(slots=1)
    door.enter("a")
    door.enter("b")
    door.gate.follow(PoolOptions(slots=2))
    assert door.said == [("b", "ready")]
    door.gate.follow(PoolOptions(slots=1))
    assert (door.gate.inside, door.enter("c").inside) == (2, False)


@given(
    st.integers(1, 3),
    st.integers(0, 4),
    st.lists(st.one_of(st.just("enter"), st.integers(0, 9), st.floats(0.1, 4)), max_size=60),
)
def test_slots_and_queue_are_never_exceeded_and_nobody_is_forgotten(slots: int, queue: int, acts: list[str | float]):
    """Whatever happens in whatever order: each request is inside, waiting, gone or told, and exactly one of these."""
    door = Door(slots=slots, queue=queue, queue_s=5)
    tickets: dict[str, Ticket] = {}
    refused = gone = 0
    for act in acts:
        if act == "enter":
            name = str(len(tickets) + refused + gone)
            try:
                tickets[name] = door.enter(name)
            except OverloadedError:
                refused += 1
        elif isinstance(act, int):
            name = list(tickets)[act % len(tickets)] if tickets else ""
            if name:
                tickets.pop(name).leave()
                gone += 1
        else:
            door.clock.wait(float(act))
        late = {name for name, word in door.said if word == "late"}
        inside = {name for name, ticket in tickets.items() if ticket.inside}
        waiting = set(tickets) - inside - late
        assert (len(inside), len(waiting)) == (door.gate.inside, door.gate.waiting)
        assert len(inside) <= slots
        assert len(waiting) <= queue
        assert not waiting or len(inside) == slots
        assert all(door.clock.now < tickets[name].until for name in waiting)
    told = [name for name, _ in door.said]
    assert len(told) == len(set(told))
