"""Sums of many runs at once: counts of events, and costs with their squares, by (run, stage, arm)."""

from __future__ import annotations

import numpy as np

from bench.guardrails.bets import BASELINE, CANDIDATE, Bools, Events, Floats, Ints, Ratio, beyond
from bench.guardrails.streams import Reports
from canary.core.signals.sight import Z95
from canary.core.tally import COST2_GRID, COST_GRID, GROUP_COST_GRID, GROUPS, SQUARES

RATES = {"error_rate": "failed", "empty": "empty", "truncated": "truncated"}
_WORDS = ("n", "x", "y", "xx", "yy", "xy")


class Rates:
    """Events among requests that are done; evidence is of units, of which each has an event once. By guardrail."""

    def __init__(self, runs: int, shares: list[float], planned: int) -> None:
        self._events, self._stages = Events(shares, planned), len(shares)
        self.done: Ints = np.zeros((runs, len(shares), 2), np.int64)
        self._counts = {name: np.zeros_like(self.done) for name in RATES}
        self._units = {name: np.zeros_like(self.done) for name in RATES}
        self.log_e: dict[str, Floats] = {name: np.zeros(runs) for name in RATES}

    def take(self, reports: Reports, cells: Ints) -> None:
        """Count reports; `cells` is their place in (run, stage, arm)."""
        self.done += np.bincount(cells, minlength=self.done.size).reshape(self.done.shape)
        for name, word in RATES.items():
            _count(self._counts[name], cells, getattr(reports, word))
            fresh = getattr(reports, f"first_{word}")
            _count(self._units[name], cells, fresh)
            rows = np.unique(reports.run[fresh])
            if rows.size:
                self.log_e[name][rows] = self._events.log_e(self._units[name][rows])

    def beyond(self, name: str, rows: Ints, margin: float, stage: int) -> Bools:
        """Tell whether the difference of rates is beyond its margin, since the start or in the stage (`read_rate`)."""
        n, k = self.done[rows].astype(float), self._counts[name][rows]
        both = n.min(axis=-1) > 0
        weight = np.where(both, n.prod(axis=-1) / np.maximum(1, n.sum(axis=-1)), 0.0)
        rate = k / np.maximum(1, n)
        apart = rate[..., CANDIDATE] - rate[..., BASELINE]
        total = weight.sum(axis=1)
        pooled = (weight * apart).sum(axis=1) / np.where(total > 0, total, 1.0)
        doubted = np.minimum(1.0, (k + 1) / (n + 2))
        error = np.sqrt((doubted * (1 - doubted) / np.maximum(1, n)).sum(axis=-1))
        late = np.where(both, apart - Z95 * error, -np.inf)
        return beyond(margin, pooled, late[:, stage])


def _count(counts: Ints, cells: Ints, events: Bools) -> None:
    places = cells[events]
    if places.size:
        np.add.at(counts.reshape(-1), places, np.int64(1))


class Costs:
    """Costs and tokens of requests that stand for themselves."""

    def __init__(self, runs: int, stages: int) -> None:
        self._sums: dict[str, Floats] = {word: np.zeros((runs, stages, 2)) for word in _WORDS}

    def take(self, reports: Reports, cells: Ints) -> None:
        """Add the priced among reports; `cells` is their place in (run, stage, arm)."""
        priced = reports.priced
        x, y = reports.cost[priced], reports.tokens[priced]
        weights = {"n": None, "x": x, "y": y, "xx": np.rint(x * x / SQUARES), "yy": y * y, "xy": x * y}
        for word, weight in weights.items():
            _add(self._sums[word], cells[priced], weight)

    def ratios(self) -> dict[str, Ratio]:
        """Return the costs a token and a request, by guardrail."""
        n, x, y, xx, yy, xy = (self._sums[word] for word in _WORDS)
        x, xx, xy = x / COST_GRID, xx / COST2_GRID, xy / COST_GRID
        return {
            "cost_per_token": Ratio(n=n, x=x, y=y, xx=xx, yy=yy, xy=xy),
            "cost_per_request": Ratio(n=n, x=x, y=n, xx=xx, yy=n, xy=x),
        }


class GroupCosts:
    """Costs and tokens where units stick to an arm: independent are groups of units, and their spread is between."""

    def __init__(self, runs: int, stages: int) -> None:
        self._cost: Floats = np.zeros((runs, stages, 2))
        self._of: dict[str, Floats] = {word: np.zeros((runs, stages, 2, GROUPS)) for word in _WORDS[:3]}

    def take(self, reports: Reports, cells: Ints) -> None:
        """As `Costs.take`."""
        priced = reports.priced
        cost = reports.cost[priced]
        _add(self._cost, cells[priced], cost)
        where = cells[priced] * GROUPS + reports.unit[priced] % GROUPS
        steps = np.rint(cost / (COST_GRID // GROUP_COST_GRID))
        for word, weight in {"n": None, "x": steps, "y": reports.tokens[priced]}.items():
            _add(self._of[word], where, weight)

    def ratios(self) -> dict[str, Ratio]:
        """As `Costs.ratios`; n is how many groups there are."""
        n, x, y = self._of["n"], self._of["x"] / GROUP_COST_GRID, self._of["y"]
        groups, cost = (n > 0).sum(axis=-1).astype(float), self._cost / COST_GRID

        xx, xy = _products(x, x), _products(x, y)
        # The groups' dollars are rounded more coarsely than the sum: the product adds what is left, and so do we.
        xn = cost - x.sum(axis=-1) + _products(x, n)
        return {
            "cost_per_token": Ratio(
                n=groups,
                x=cost,
                y=y.sum(axis=-1),
                xx=xx,
                yy=_products(y, y),
                xy=xy,
                leans=_leans(x, y, cost),
                requests=n.sum(axis=-1),
            ),
            "cost_per_request": Ratio(
                n=groups,
                x=cost,
                y=n.sum(axis=-1),
                xx=xx,
                yy=_products(n, n),
                xy=xn,
                leans=_leans(x, n, cost),
                requests=n.sum(axis=-1),
            ),
        }


def _leans(x: Floats, y: Floats, total: Floats) -> Floats | None:
    """Return `ratios.Sums.leans`; of a single stage nobody asks."""
    if x.shape[1] == 1:
        return None
    ratio = total / np.maximum(1.0, y.sum(axis=-1))
    found: Floats = (x - ratio[..., None] * y) / np.where(total > 0, total, 1.0)[..., None]
    return found


def _products(one: Floats, other: Floats) -> Floats:
    found: Floats = np.einsum("...g,...g->...", one, other)
    return found


def _add(sums: Floats, places: Ints, weights: Ints | Floats | None) -> None:
    sums += np.bincount(places, weights, minlength=sums.size).reshape(sums.shape)
