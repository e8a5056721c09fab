"""What a worker routes each model by: what it is, how it came, and what holds when nothing comes any more.

The file of models says which models there are; nothing else can add one. A split reaches a worker by push and by poll.
The poll confirms it: a split that nobody has confirmed for a stated time is stale, and a stale split sends everything
to its baseline. The last split is kept in a file, so that a worker can start with the store dead; it then serves the
baseline of what it knew, until the store speaks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from canary.core.arms import Split
from gateway.pool.options import PoolOptions
from gateway.split.catalogue import Catalogue, is_base_url

_LOG: Final = logging.getLogger("linnet.gateway")
_POLLS_OF_AN_OLDER: Final = 3
_TOLD_MOST: Final = 1000
_USUAL: Final = PoolOptions()


@dataclass(frozen=True, slots=True)
class Route:
    """What a request follows. `reduced` says why everything goes to the baseline ("" if nothing is wrong)."""

    split: Split
    reduced: str = ""
    pool: PoolOptions = _USUAL


@dataclass(slots=True)
class _Known:
    """What a worker knows about one model."""

    split: Split
    pool: PoolOptions = _USUAL
    confirmed_at: float | None = None  # when the store last named it, None if it never did
    tripped: str = ""
    older_polls: int = 0

    def reduced(self, now: float, stale_s: float) -> str:
        """Say why everything goes to the baseline, "" if it does not."""
        if self.tripped or self.split.candidate is None:
            return self.tripped
        if self.confirmed_at is None:
            return "the store has not confirmed this split yet"
        if now - self.confirmed_at > stale_s:
            return f"the store has not confirmed this split for {stale_s:g} s"
        return ""


class SplitFiles:
    """The last known split of each model, one small file each; a full disk costs a warning, never a request."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "gateway"

    def read(self, model: str) -> Split | None:
        """Return the last known split, None if there is none that can be read."""
        try:
            split = Split.from_json(self._path(model).read_bytes())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return split if split.model == model and unusable(split) is None else None

    def write(self, split: Split, worker: str) -> None:
        """Keep a split; the file is whole at every moment, and several workers may write it at once."""
        path = self._path(split.model)
        fresh = path.with_suffix(f".{quote(worker, safe='')}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh.write_text(split.to_json(), "utf-8")
            fresh.replace(path)
        except OSError as error:
            _LOG.warning("%s: cannot keep the last split (%s); free the disk or set LINNET_STATE", path, error)

    def _path(self, model: str) -> Path:
        return self._folder / f"{quote(model, safe='')}.json"


class Splits:
    """All models' routes in one worker. `now` is a monotonic time in seconds everywhere.

    `changes` grows whenever a route does; `models_file` is "ok", or why the file of models as it is now was refused.
    """

    def __init__(
        self,
        static: Iterable[Split],
        files: SplitFiles,
        worker: str,
        stale_s: float,
        pools: Mapping[str, PoolOptions] | None = None,
    ) -> None:
        self.changes = 0
        self.models_file = "ok"
        self._files = files
        self._worker = worker
        self._stale_s = stale_s
        self._static: dict[str, Split] = {}
        self._known: dict[str, _Known] = {}
        self._routes: dict[str, Route] = {}
        self._told: set[str] = set()
        self.list(Catalogue(tuple(static), pools or {}), 0.0)

    @property
    def models(self) -> Sequence[str]:
        """Every public model name."""
        return tuple(self._known)

    @property
    def routes(self) -> Mapping[str, Route]:
        """The route of every model."""
        return self._routes

    def route(self, model: str) -> Route | None:
        """Return what a request for `model` follows, None for an unknown model."""
        return self._routes.get(model)

    def list(self, catalogue: Catalogue, now: float) -> None:
        """Serve the models of a file, and no others. What the store has said about a model goes on to hold."""
        static = {split.model: split for split in catalogue.models}
        for model in self._known.keys() - static.keys():
            del self._known[model], self._routes[model]
            self.changes += 1
        for model, split in static.items():
            known = self._known.get(model)
            if known is None:
                known = _Known(self._files.read(model) or split)
            elif known.split is self._static.get(model):  # the store has said nothing yet
                known = _Known(split)
            known.pool = catalogue.pools.get(model, _USUAL)
            self._known[model] = known
            self._look(known, now)
        self._static = static

    def offer(self, split: Split, now: float, *, polled: bool) -> bool:
        """Take a split from the store; tell whether it is now the current one.

        A push may overtake a poll, so an older generation is not believed at once; one that several polls in a row
        return is the truth of a store that was restored or replaced.
        """
        known = self._known.get(split.model)
        if known is None:
            self._tell(split.model, "the file of models (LINNET_MODELS) does not name it; add it there")
            return False
        if split is not known.split and split != known.split:
            problem = unusable(split)
            if problem is not None:
                self._tell(split.model, problem)
                return False
            if known.confirmed_at is not None and split.generation < known.split.generation:
                known.older_polls += polled
                if known.older_polls < _POLLS_OF_AN_OLDER:
                    return False
            known = self._adopt(split, known)
        known.older_polls = 0
        known.confirmed_at = now
        self._look(known, now)
        return True

    def absent(self, model: str, now: float) -> None:
        """Hear from the store that it has no split of `model`.

        One kept from another life of the store is void then, and the file of models holds. One that this store has
        named before is only unconfirmed: a store that forgets must not switch a promoted model back.
        """
        known, static = self._known.get(model), self._static.get(model)
        if known is not None and static is not None and known.confirmed_at is None and known.split is not static:
            self._known[model] = _Known(static, known.pool)
            self._look(self._known[model], now)

    def trip(self, split: Split, reason: str, now: float) -> None:
        """Send everything of `split`'s attempt to the baseline until a newer generation arrives."""
        known = self._known.get(split.model)
        if known is not None and (known.split.release, known.split.attempt) == (split.release, split.attempt):
            known.tripped = reason
            self._look(known, now)

    def look(self, now: float) -> None:
        """Notice what has become stale."""
        for known in self._known.values():
            self._look(known, now)

    def _adopt(self, split: Split, before: _Known) -> _Known:
        newer = split.generation != before.split.generation
        known = _Known(split, before.pool, tripped="" if newer else before.tripped)
        self._known[split.model] = known
        self._files.write(split, self._worker)
        return known

    def _look(self, known: _Known, now: float) -> None:
        """Make the model's route anew if it differs from the one that is followed."""
        split, reduced = known.split, known.reduced(now, self._stale_s)
        before = self._routes.get(split.model)
        if before is not None and (before.reduced, before.pool) == (reduced, known.pool):
            # A reduced split is a copy, so it is compared by what the reduction leaves of it.
            same = before.split is split or (reduced and before.split == _baseline_only(split))
            if same:
                return
        if reduced and (before is None or before.reduced != reduced):
            _LOG.warning("model %s: baseline only: %s", split.model, reduced)
        self._routes[split.model] = Route(_baseline_only(split) if reduced else split, reduced, known.pool)
        self.changes += 1

    def _tell(self, model: str, problem: str) -> None:
        """Say once why a split is not followed."""
        line = f"split of {model} refused: {problem}"
        if line not in self._told and len(self._told) < _TOLD_MOST:
            self._told.add(line)
            _LOG.warning("%s", line)


def _baseline_only(split: Split) -> Split:
    return replace(split, candidate=None, control=None, percent=0.0, shadow_percent=0.0)


def unusable(split: Split) -> str | None:
    """Say why a split cannot be routed by, None if it can."""
    arms = [endpoint for endpoint in (split.baseline, split.candidate, split.control) if endpoint is not None]
    if not isinstance(split.generation, int) or not _is_percent(split.percent) or not _is_percent(split.shadow_percent):
        return "a generation or a percent that is none"
    if any(not arm.replicas for arm in arms):
        return "an arm without replicas"
    for url in (url for arm in arms for url in arm.replicas):
        if not is_base_url(url):
            return f"{url!r} is no base URL; write one such as http://127.0.0.1:8101"
    return None


def _is_percent(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 100  # noqa: PLR2004
