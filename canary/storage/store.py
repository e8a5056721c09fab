"""The store: everything that outlives a process, and the one script by which a release changes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from canary.core.events import Cause
from canary.spending import kept
from canary.storage import keys, scripts
from canary.storage.audit import AuditLog
from canary.storage.chain import sealed
from canary.storage.link import StoreError, loads
from canary.storage.records import Batch, Change, Committed, Lease, Trip, reported
from canary.storage.worker_store import LIVE_MS, WorkerStore

__all__ = ["Batch", "Change", "Committed", "Lease", "Store", "StoreError", "Trip"]

_SEARCHED = 5_000
_TRIP_BLOCK_MS = 500


class Store(WorkerStore):
    """The whole store: what a controller writes under its lease, what people say, and what anybody may read."""

    def audit_log(self) -> AuditLog:
        """Return the audit as a whole, on the same connections."""
        return AuditLog(self._redis, self.url)

    # Engines and reports.

    async def register_engine(self, engine: Mapping[str, Any]) -> None:
        """Publish where an engine serves: name, url, served_model, digest, state, pid."""
        await self._ask(self._redis.hset(keys.ENGINES, engine["name"], json.dumps(dict(engine))))

    async def forget_engine(self, name: str) -> None:
        """Take an engine off the list."""
        await self._ask(self._redis.hdel(keys.ENGINES, name))

    async def engines(self) -> dict[str, dict[str, Any]]:
        """Return the registered engines by name."""
        found = await self._ask(self._redis.hgetall(keys.ENGINES))
        return {name: loads(text) for name, text in found.items()}

    async def put_report(self, model: str, kind: str, digest: str, report: Mapping[str, Any], cause: Cause) -> None:
        """Keep a gate's report ("load" or "eval") for one candidate's digest, and say so in the audit.

        Each load test enters the ledger.
        """
        names = [keys.report(model, kind, digest), keys.load_tests(model, digest), keys.AUDIT, keys.AUDIT_HEAD]
        text, entered = json.dumps(dict(report)), kept(report) if kind == "load" else ("", "")
        told = reported(model, kind, digest, text, cause)
        await self._run(scripts.REPORT, names, [text, *entered, *sealed(told)])

    async def get_report(self, model: str, kind: str, digest: str) -> dict[str, Any] | None:
        """Return a gate's report, None if there is none for this digest."""
        return await self._json(keys.report(model, kind, digest))

    async def load_tests(self, model: str, digest: str) -> dict[str, str]:
        """Return what is kept of each load test of a digest (see canary.spending)."""
        return cast("dict[str, str]", await self._ask(self._redis.hgetall(keys.load_tests(model, digest))))

    # Releases: reading.

    async def release_text(self, model: str) -> str:
        """Return the release state as it stands ("" for none); a change names it as its `before`."""
        return cast("str", await self._ask(self._redis.get(keys.release(model))) or "")

    async def remembered(self, model: str, key: str) -> str | None:
        """Return the reply of a command that was carried out before under this idempotency key."""
        return cast("str | None", await self._ask(self._redis.get(keys.command(model, key))))

    async def remember(self, model: str, key: str, reply: str) -> None:
        """Keep for a day that a command under this idempotency key had nothing to change."""
        await self._ask(self._redis.set(keys.command(model, key), reply, ex=86_400, nx=True))

    async def attempts(self, model: str, release: str) -> int:
        """Return how many attempts of `release` were started."""
        return int(await self._ask(self._redis.hget(keys.attempts(model), release)) or 0)

    async def quarantined(self, model: str) -> dict[str, str]:
        """Return the digests that were rolled back, with their reasons."""
        return cast("dict[str, str]", await self._ask(self._redis.hgetall(keys.quarantine(model))))

    async def tallies(self, model: str, release: str, attempt: int) -> dict[str, str]:
        """Return an attempt's sums: "{stage}|{arm}|{slice}|{name}" -> number."""
        return cast("dict[str, str]", await self._ask(self._redis.hgetall(keys.tally(model, release, attempt))))

    async def references(self) -> frozenset[str]:
        """Return the models with a reference; its sums are the tallies of release "", attempt 0."""
        return frozenset(await self._ask(self._redis.smembers(keys.REFERENCES)))

    async def reference(self, model: str) -> str:
        """Return what is known of the baseline's machines (see canary.references), "" for nothing yet."""
        return cast("str", await self._ask(self._redis.get(keys.reference(model))) or "")

    async def forget(self, model: str, release: str, attempt: int, fields: Sequence[str]) -> None:
        """Drop sums of an attempt that have been taken into the guardrails' memory."""
        if fields:
            await self._ask(self._redis.hdel(keys.tally(model, release, attempt), *fields))

    async def analysis(self, model: str, release: str, attempt: int) -> str | None:
        """Return the guardrails' memory, None before the first look."""
        return cast("str | None", await self._ask(self._redis.get(keys.analysis(model, release, attempt))))

    async def findings(self, model: str) -> str | None:
        """Return the last findings (see canary.core.finding), None before the first look."""
        return cast("str | None", await self._ask(self._redis.get(keys.findings(model))))

    async def last_look(self, model: str) -> dict[str, Any] | None:
        """Return what the controller saw last, None before the first look."""
        return await self._json(keys.look(model))

    async def workers(self, now_ms: int) -> tuple[str, ...]:
        """Return the workers whose heartbeat is fresh."""
        found = await self._ask(self._redis.zrangebyscore(keys.WORKERS, now_ms - LIVE_MS, "+inf"))
        return tuple(found)

    async def forget_workers(self, before_ms: int) -> None:
        """Drop heartbeats, flush numbers and acknowledgements of workers not heard of since `before_ms`."""
        gone = await self._ask(self._redis.zrangebyscore(keys.WORKERS, "-inf", before_ms))
        if not gone:
            return
        for model in await self.models():
            await self._ask(self._redis.hdel(keys.acks(model), *gone))
        await self._ask(self._redis.hdel(keys.FLUSHED, *gone))
        await self._ask(self._redis.zrem(keys.WORKERS, *gone))

    async def acks(self, model: str) -> dict[str, tuple[int, int]]:
        """Return each worker's (generation, unix_ms of its acknowledgement)."""
        found = await self._ask(self._redis.hgetall(keys.acks(model)))
        pairs = ((worker, text.partition(":")) for worker, text in found.items())
        return {worker: (int(generation), int(unix_ms)) for worker, (generation, _, unix_ms) in pairs}

    async def acknowledged(self, model: str) -> int:
        """Return the last generation whose acknowledgement by all workers is in the audit, -1 for none."""
        found = await self._ask(self._redis.get(keys.acknowledged(model)))
        return -1 if found is None else int(found)

    async def results(self) -> dict[tuple[str, str], int]:
        """Return how many attempts of each model ended how."""
        found = await self._ask(self._redis.hgetall(keys.RESULTS))
        split = ((name.rpartition("|"), count) for name, count in found.items())
        return {(model, result): int(count) for (model, _, result), count in split}

    async def audit(self, model: str | None = None, count: int = 1000) -> list[dict[str, str]]:
        """Return up to `count` of the latest audit entries, oldest first, each with its stream id.

        One model's are searched among the last `_SEARCHED` of all, so that a long audit costs no more than a second.
        """
        entries = await self._ask(self._redis.xrevrange(keys.AUDIT, count=max(count, _SEARCHED) if model else count))
        chosen = [{"id": key, **fields} for key, fields in entries if model in (None, fields.get("model"))]
        return chosen[:count][::-1]

    async def notified(self) -> str:
        """Return the id of the last audit entry whose notifications were all seen to, "" for none yet."""
        return cast("str", await self._ask(self._redis.get(keys.NOTIFIED)) or "")

    async def trips(self, after: str) -> tuple[str, list[Trip]]:
        """Wait up to half a second for trips after the stream id `after`; return the last id and the trips."""
        found = await self._ask(self._redis.xread({keys.TRIPS: after}, block=_TRIP_BLOCK_MS))
        entries = found[0][1] if found else []
        trips = [trip for _, fields in entries if (trip := _trip(fields)) is not None]
        return (entries[-1][0] if entries else after), trips

    # Releases: writing. A change of a release goes through `commit` and nothing else.

    async def commit(self, change: Change) -> Committed:
        """Write one change of a release, whole or not at all; see `scripts.COMMIT`."""
        names = [
            keys.release(change.model),
            keys.split(change.model),
            keys.MODELS,
            keys.AUDIT,
            keys.LEADER,
            keys.command(change.model, change.key),
            keys.quarantine(change.model),
            keys.attempts(change.model),
            keys.RESULTS,
            keys.AUDIT_HEAD,
        ]
        words = [change.to_json(), change.before, change.after, change.split, keys.SPLITS]
        code, detail = await self._run(scripts.COMMIT, names, words)
        return Committed(code, detail)

    async def lead(self, holder: str, token: int | None, lease_ms: int) -> Lease | None:
        """Take or renew the lease; None while another holds it. `token` is the one of the lease held, None at first."""
        words = [holder, "" if token is None else str(token), str(lease_ms)]
        found = await self._run(scripts.LEAD, [keys.LEADER, keys.TOKEN], words)
        return Lease(holder, int(found)) if int(found) else None

    async def resign(self, lease: Lease) -> None:
        """Give the lease back, so that another controller need not wait for its end."""
        await self._run(scripts.RESIGN, [keys.LEADER], [lease.fence])

    async def write(self, lease: Lease, values: Mapping[str, str]) -> bool:
        """Set keys under the lease, all or none; False, and nothing written, once another leads."""
        return bool(await self._run(scripts.FENCED_SET, [keys.LEADER, *values], [lease.fence, *values.values()]))

    async def record_acknowledged(self, lease: Lease, model: str, generation: int, audit: Mapping[str, str]) -> bool:
        """Append the audit entry `acknowledged` once a generation; False if it is there, or another leads."""
        names = [keys.LEADER, keys.acknowledged(model), keys.AUDIT, keys.AUDIT_HEAD]
        return bool(await self._run(scripts.ACKNOWLEDGED, names, [lease.fence, str(generation), *sealed(audit)]))

    async def _json(self, key: str) -> dict[str, Any] | None:
        text = await self._ask(self._redis.get(key))
        return None if text is None else cast("dict[str, Any]", loads(text))


def _trip(fields: Mapping[str, str]) -> Trip | None:
    """Read a trip; None for what is none."""
    try:
        return Trip.from_fields(fields)
    except (KeyError, ValueError):
        return None
