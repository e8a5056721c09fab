"""The current split of each model: what it is, how it came, and what holds when nothing comes any more.

A split reaches a worker by push and by poll. The poll confirms it: a split that nobody has confirmed for a stated time
is stale, and a stale split sends everything to its baseline. The last split is kept in a file, so that a worker can
start with the store dead; it then serves the baseline of what it knew, until the store speaks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from canary.core.arms import Split
from gateway.errors import SettingsError
from gateway.settings import check_replica

_LOG = logging.getLogger("linnet.gateway")
_POLLS_OF_AN_OLDER = 3


@dataclass(frozen=True, slots=True)
class Route:
    """What a request follows. `reduced` says why everything goes to the baseline ("" if nothing is wrong)."""

    split: Split
    reduced: str = ""


@dataclass(slots=True)
class _Known:
    """What a worker knows about one model."""

    split: Split
    confirmed_at: float | None = None  # when the store last named it, None if it never did
    tripped: str = ""
    older_polls: int = 0


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
    """All models' routes in one worker. `now` is a monotonic time in seconds everywhere."""

    def __init__(self, static: Iterable[Split], files: SplitFiles, worker: str, stale_s: float) -> None:
        static = tuple(static)
        self._static = {split.model: split for split in static}
        self._files = files
        self._worker = worker
        self._stale_s = stale_s
        self._known = {split.model: _Known(files.read(split.model) or split) for split in static}
        self._routes: dict[str, Route] = {}
        self.look(0.0)

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

    def offer(self, split: Split, now: float, *, polled: bool) -> bool:
        """Take a split from the store; tell whether it is now the current one.

        A push may overtake a poll, so an older generation is not believed at once; one that several polls in a row
        return is the truth of a store that was restored or replaced.
        """
        problem = unusable(split)
        if problem is not None:
            _LOG.warning("split of %s refused: %s", split.model, problem)
            return False
        known = self._known.get(split.model)
        if known is not None and known.confirmed_at is not None and split.generation < known.split.generation:
            known.older_polls += polled
            if known.older_polls < _POLLS_OF_AN_OLDER:
                return False
        if known is None or split != known.split:
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
        known = self._known.get(model)
        if known is not None and known.confirmed_at is None and model in self._static:
            self._known[model] = _Known(self._static[model])
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

    def _adopt(self, split: Split, before: _Known | None) -> _Known:
        newer = before is None or split.generation != before.split.generation
        known = self._known[split.model] = _Known(split, tripped="" if newer or before is None else before.tripped)
        self._files.write(split, self._worker)
        return known

    def _look(self, known: _Known, now: float) -> None:
        reduced = known.tripped
        if not reduced and known.split.candidate is not None:
            if known.confirmed_at is None:
                reduced = "the store has not confirmed this split yet"
            elif now - known.confirmed_at > self._stale_s:
                reduced = f"the store has not confirmed this split for {self._stale_s:g} s"
        split = known.split
        if reduced:
            split = replace(split, candidate=None, percent=0.0, shadow_percent=0.0)
        before = self._routes.get(split.model)
        if reduced and (before is None or before.reduced != reduced):
            _LOG.warning("model %s: baseline only: %s", split.model, reduced)
        self._routes[split.model] = Route(split, reduced)


def unusable(split: Split) -> str | None:
    """Say why a split cannot be routed by, None if it can."""
    arms = [split.baseline] if split.candidate is None else [split.baseline, split.candidate]
    if not 0 <= split.percent <= 100 or not 0 <= split.shadow_percent <= 100:  # noqa: PLR2004
        return "a percent outside 0..100"
    if any(not arm.replicas for arm in arms):
        return "an arm without replicas"
    try:
        for url in (url for arm in arms for url in arm.replicas):
            check_replica(split.model, url)
    except SettingsError as error:
        return str(error)
    return None
