"""The names of everything in the store: one place, so that no two rooms spell a key differently."""

from __future__ import annotations

ROOT = "linnet:"
SPLIT = ":split"  # what follows a model's name in the key of its split
MODELS = "linnet:models"  # set of public model names
SPLITS = "linnet:splits"  # pub/sub channel: a split's JSON, published by the script that writes it
WORKERS = "linnet:workers"  # zset worker -> unix_ms of its last heartbeat
FLUSHED = "linnet:flushed"  # hash worker -> number of its last delta applied
TRIPS = "linnet:trips"  # stream of T0 trips
AUDIT = "linnet:audit"  # stream: who, what, why, before, after, generation, evidence, unix_ms, model, seq, chain
NOTIFIED = "linnet:notified"  # id of the last audit entry whose notifications were all seen to
AUDIT_HEAD = "linnet:audit:head"  # "seq chain" of its last entry
REFERENCES = "linnet:references"  # set of models whose baseline's replicas were compared with each other
LEADER = "linnet:leader"  # string "id:token" with a lease
TOKEN = "linnet:leader:token"  # noqa: S105 - a counter of leases, not a secret
ENGINES = "linnet:engines"  # hash engine -> JSON
RESULTS = "linnet:results"  # hash "model|result" -> attempts that ended so
API_KEYS = "linnet:apikeys"  # hash SHA-256 of a key -> its record (JSON)
API_KEYS_CHANGED = "linnet:apikeys:changed"  # pub/sub channel: "hash record", by the script that writes it


def release(model: str) -> str:
    """Return the key of the release state (JSON)."""
    return f"{ROOT}{model}:release"


def split(model: str) -> str:
    """Return the key of what workers route by (JSON)."""
    return f"{ROOT}{model}{SPLIT}"


def acks(model: str) -> str:
    """Return the key of the hash worker -> "generation:unix_ms"."""
    return f"{ROOT}{model}:acks"


def tally(model: str, release_name: str, attempt: int) -> str:
    """Return the key of an attempt's sums (hash); those of no release, attempt 0, are the reference's."""
    return f"{ROOT}{model}:tally:{release_name}:{attempt}"


def units(model: str, release_name: str, attempt: int) -> str:
    """Return the key of the bitmap that has a bit for each event a unit of the attempt has had (8 MiB at most)."""
    return f"{ROOT}{model}:units:{release_name}:{attempt}"


def reference(model: str) -> str:
    """Return the key of what comparing the baseline with itself has told of its machines (JSON)."""
    return f"{ROOT}{model}:reference"


def report(model: str, kind: str, digest: str) -> str:
    """Return the key of a gate's report (JSON) for one digest."""
    return f"{ROOT}{model}:report:{kind}:{digest}"


def load_tests(model: str, digest: str) -> str:
    """Return the key of the hash created_ms -> seconds of each load test of a digest (JSON)."""
    return f"{ROOT}{model}:loadtests:{digest}"


def quarantine(model: str) -> str:
    """Return the key of the hash digest -> reason of its rollback."""
    return f"{ROOT}{model}:quarantine"


def attempts(model: str) -> str:
    """Return the key of the hash release -> attempts started."""
    return f"{ROOT}{model}:attempts"


def analysis(model: str, release_name: str, attempt: int) -> str:
    """Return the key of the guardrails' memory (JSON)."""
    return f"{ROOT}{model}:analysis:{release_name}:{attempt}"


def findings(model: str) -> str:
    """Return the key of the last findings (JSON)."""
    return f"{ROOT}{model}:findings"


def look(model: str) -> str:
    """Return the key of the controller's last look (JSON): when, and the evidence it saw."""
    return f"{ROOT}{model}:look"


def acknowledged(model: str) -> str:
    """Return the key of the last generation whose acknowledgement by all workers was recorded."""
    return f"{ROOT}{model}:acknowledged"


def command(model: str, idempotency_key: str) -> str:
    """Return the key that remembers a command, so that its replay changes nothing."""
    return f"{ROOT}{model}:command:{idempotency_key}"


def usage_minute(key_id: str, minute: int) -> str:
    """Return the key of the hash worker -> "requests tokens" used in one minute (Unix minutes)."""
    return f"{ROOT}usage:{key_id}:{minute}"


def usage_day(key_id: str, day: int) -> str:
    """Return the key of the hash worker -> USD spent in one UTC day (Unix days)."""
    return f"{ROOT}usage:{key_id}:d{day}"
