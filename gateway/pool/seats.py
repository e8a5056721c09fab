"""An arm's pool: which of its replicas is asked next.

A replica may serve several arms, as an engine does that serves a LoRA candidate beside its base. They share its
connections and its load; whether it can be trusted each arm finds out for itself, on its own seat there. Only that
nobody can be reached at all is told to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import inf

from gateway.pool.admission import Gate
from gateway.pool.balance import Ring, Rings, limit, of_two, weight
from gateway.pool.breaker import Breaker, State
from gateway.pool.options import Balance, PoolOptions
from gateway.pool.replica import Replica
from gateway.pool.retry import RetryBudget

Chance = Callable[[], float]


class Seat:
    """One replica's place in one pool: `held` tokens of this arm are outstanding there, usable since `since`.

    `index` is where its URL stands among the pool's.
    """

    __slots__ = ("breaker", "fits", "held", "index", "pool", "replica", "since")

    def __init__(self, pool: Pool, replica: Replica, chance: Chance, since: float) -> None:
        self.pool = pool
        self.replica = replica
        self.breaker = Breaker(pool.options, chance, self._turned)
        self.since = since
        self.held = 0
        self.index = -1
        self.fits = True  # as of the pool's last look
        replica.watchers.add(self)

    @property
    def load(self) -> int:
        """What the engine has in hand, for whichever arm."""
        return self.replica.tokens

    @property
    def closed(self) -> bool:
        """Whether it is asked like any other."""
        return self.breaker.state is State.CLOSED and not self.replica.down

    def take(self, tokens: int, now: float) -> int:
        """Note a request that is sent here; return what its result must bring along, the breaker's epoch."""
        self.held += tokens
        self.pool.held += tokens
        self.replica.tokens += tokens
        return self.breaker.begin(now)

    def give(self, tokens: int) -> None:
        """Note that a request is over."""
        self.held -= tokens
        self.pool.held -= tokens
        self.replica.tokens -= tokens

    # its replica calls these

    def unreachable(self, now: float) -> None:
        """Leave it alone at once."""
        self.breaker.unreachable(now)

    def reachable(self, now: float) -> None:
        """Let one request try."""
        self.breaker.reachable(now)

    def turned(self, now: float) -> None:
        """Look again; if it is back it starts slowly."""
        self.since = now
        self.pool.changed()

    def _turned(self) -> None:
        if self.breaker.state is State.CLOSED:
            self.since = self.breaker.closed_at
        self.pool.changed()


class Pool:
    """One arm's seats, its gate, and its model's retry budget. `chance` draws from [0, 1); times are monotonic seconds.

    Whom to choose from is looked up only when something has changed, so a pick costs the same for one replica as for a
    hundred.
    """

    def __init__(
        self, model: str, options: PoolOptions, gate: Gate, budget: RetryBudget, *, rings: Rings, chance: Chance
    ) -> None:
        self.model = model
        self.options = options
        self.gate = gate
        self.budget = budget
        self.urls: Sequence[str] = ()
        self.held = 0  # tokens outstanding
        self._rings = rings
        self._chance = chance
        self._known: dict[str, Seat] = {}
        self._seats: list[Seat] = []
        self._usable: list[Seat] = []
        self._due: list[Seat] = []
        self._look_at = 0.0
        self._ring: Ring | None = None

    @property
    def known(self) -> int:
        """How many replicas it remembers."""
        return len(self._known)

    def up(self, now: float) -> bool:
        """Tell whether a request would be sent to somebody who is not known to fail."""
        return any(
            not seat.replica.refused and (seat.closed or (seat.breaker.due(now) and not seat.replica.down))
            for seat in self._seats
        )

    def follow(self, urls: Sequence[str], replica_of: Callable[[str], Replica], now: float) -> None:
        """Go by these replicas from now on; one that joins others starts slowly, one that stays is known."""
        if urls != self.urls:
            since = now if self._known else -inf
            for url in urls:
                if url not in self._known:
                    self._known[url] = Seat(self, replica_of(url), self._chance, since)
            self._seats = [self._known[url] for url in urls]
            for index, seat in enumerate(self._seats):
                seat.index = index
            self._ring = None
            self.changed()
        self.urls = urls

    def obey(self, options: PoolOptions) -> None:
        """Go by other options from now on."""
        self.options = options
        self.gate.follow(options)
        self.budget.follow(options)
        for seat in self._known.values():
            seat.breaker.options = options
            seat.replica.options = options

    def forget(self, named: Collection[str]) -> None:
        """Leave the replicas that nothing names any more."""
        for url in [url for url in self._known if url not in named]:
            seat = self._known.pop(url)
            seat.replica.watchers.discard(seat)
            self.urls = ()  # should it be named again, it is another replica

    def changed(self) -> None:
        """Look again at the next pick."""
        self._look_at = 0.0

    def pick(self, tokens: int, affinity: str, now: float) -> Seat | None:
        """Return whom to send `tokens` more, None if there is nobody at all."""
        if now >= self._look_at:
            self._look(now)
        if self._due:
            return self._due[0]  # it becomes the probe, and the pool looks again
        usable = self._usable
        if len(usable) <= 1:
            return usable[0] if usable else None
        if affinity and self.options.balance is Balance.AFFINITY:
            home = self._home(tokens, affinity, now)
            if home is not None:
                return home
        return of_two(usable, tokens, now, self.options.slow_start_s, self._chance)

    def other(self, tried: Collection[Seat], now: float) -> Seat | None:
        """Return the least loaded of those that were not tried, a good one if there is one, None if all were."""
        if now >= self._look_at:
            self._look(now)
        left = [seat for seat in self._seats if seat not in tried]
        return min(left, key=lambda seat: (not seat.fits, seat.load), default=None)

    def _home(self, tokens: int, affinity: str, now: float) -> Seat | None:
        """Return the conversation's replica, or the next one on the ring that has room."""
        rules, seats = self.options, self._seats
        most = limit(self.held, tokens, len(self._usable), rules.load_bound, rules.load_floor)

        def fits(index: int) -> bool:
            seat = seats[index]
            return seat.fits and seat.held < most * weight(seat.since, now, rules.slow_start_s)

        if self._ring is None:
            self._ring = self._rings.of(self.urls)
        index = self._ring.first(affinity, fits)
        return None if index is None else seats[index]

    def _look(self, now: float) -> None:
        """Find out who may be asked: whoever is well; else whoever is not known to be down; else everybody."""
        seats = self._seats
        awake = [seat for seat in seats if not seat.replica.down]
        self._due = [seat for seat in awake if seat.breaker.due(now)]
        self._usable = [seat for seat in awake if seat.closed] or awake or seats
        usable = set(self._usable)
        for seat in seats:
            seat.fits = seat in usable
        waits = (seat.breaker.until for seat in seats if seat.breaker.state is State.OPEN)
        self._look_at = min((until for until in waits if until > now), default=inf)
