"""Two ways to a release: over HTTP to the control plane, or straight to the store with the control plane dead.

Both have the same methods and raise the same LinnetError, so no verb knows which one it was given.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from canary.errors import Conflict, LinnetError, Refused, TimedOut, Unreachable, Usage

TIMEOUT_S = 10.0
JSON = dict[str, Any]
ERRORS: Mapping[int, type[LinnetError]] = {1: Refused, 2: Usage, 3: Unreachable, 4: Conflict, 5: TimedOut}


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants done; `key` makes a repeated order one order."""

    verb: str
    actor: str
    reason: str
    key: str
    if_generation: int | None = None
    args: Mapping[str, Any] | None = None


class Client(Protocol):
    """What every verb needs of the other side; answers are parsed JSON."""

    def models(self) -> list[str]:
        """Return the public names of the models that have or had a release."""

    def status(self, model: str) -> JSON:
        """Return the status of one model."""

    def command(self, model: str, order: Order) -> JSON:
        """Carry out an order and return the new status."""

    def start(self, spec: str, where: str, order: Order) -> JSON:
        """Start the release of a spec's text (`where` names its file) and return the new status."""

    def audit(self, model: str | None, count: int) -> list[JSON]:
        """Return the last entries of the audit, oldest first."""

    def audit_chain(self, after: str) -> JSON:
        """Return a page of `entries` after a stream id ("" from the start), and the audit's `head` ({seq, chain})."""

    def material(self, model: str) -> JSON:
        """Return the raw material of the comparison report."""

    def engines(self) -> dict[str, JSON]:
        """Return the engines that the stack has registered, by name."""

    def put_report(self, model: str, kind: str, digest: str, report: JSON, actor: str) -> None:
        """Keep a gate's report for one digest; the audit says who put it there."""

    def keys(self) -> list[JSON]:
        """Return every API key, oldest first; no secret, no hash."""

    def create_key(self, wish: JSON, actor: str, reason: str) -> JSON:
        """Make a key of `wish` (name, scopes, rpm, tpm, usd_per_day); return it with its `secret`."""

    def revoke_key(self, key_id: str, actor: str, reason: str) -> JSON:
        """End a key and return it."""


def connect(url: str, store: str | None) -> Client:
    """Choose the way: the store if one is named, else the control plane."""
    if store is None:
        return Http(url, os.environ.get("LINNET_ADMIN_KEY", ""))
    from canary.console.direct import Direct  # noqa: PLC0415 - redis is slow to import, and most calls go over HTTP

    return Direct(store)


class Http:
    """The control plane's admin API; `key` is the admin's, "" for none."""

    def __init__(self, url: str, key: str = "") -> None:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise Usage("LINNET_ADMIN_KEY: not a key; set what `linnet keys create --scope admin` printed")
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._url = url.rstrip("/")
        parts = urlsplit(self._url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Usage(f"--url {url}: not a URL; write http://HOST:PORT")
        self._prefix = parts.path
        self._host = parts.hostname
        self._port = _port(url)
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    def models(self) -> list[str]:
        """See Client."""
        answer = self._ask("GET", "/admin/v1/models")
        return [entry["model"] if isinstance(entry, dict) else str(entry) for entry in answer["models"]]

    def status(self, model: str) -> JSON:
        """See Client."""
        return self._object("GET", f"/admin/v1/models/{quote(model, safe='')}/status")

    def command(self, model: str, order: Order) -> JSON:
        """See Client."""
        body = {
            "verb": order.verb,
            "reason": order.reason,
            "actor": order.actor,
            "if_generation": order.if_generation,
            "idempotency_key": order.key,
            "args": dict(order.args or {}),
        }
        return self._object("POST", f"/admin/v1/models/{quote(model, safe='')}/commands", body)

    def start(self, spec: str, where: str, order: Order) -> JSON:
        """See Client."""
        body = {
            "spec": spec,
            "where": where,
            "actor": order.actor,
            "reason": order.reason,
            "if_generation": order.if_generation,
            "idempotency_key": order.key,
            **dict(order.args or {}),
        }
        return self._object("POST", "/admin/v1/releases", body)

    def audit(self, model: str | None, count: int) -> list[JSON]:
        """See Client."""
        query = urlencode({"count": count, **({"model": model} if model else {})})
        answer = self._ask("GET", f"/admin/v1/audit?{query}")
        entries: list[JSON] = answer["entries"] if isinstance(answer, dict) else answer
        return entries

    def audit_chain(self, after: str) -> JSON:
        """See Client."""
        return self._object("GET", f"/admin/v1/audit/chain?{urlencode({'after': after})}")

    def material(self, model: str) -> JSON:
        """See Client."""
        return self._object("GET", f"/admin/v1/models/{quote(model, safe='')}/report")

    def engines(self) -> dict[str, JSON]:
        """See Client."""
        found: dict[str, JSON] = self._object("GET", "/admin/v1/engines")["engines"]
        return found

    def put_report(self, model: str, kind: str, digest: str, report: JSON, actor: str) -> None:
        """See Client."""
        path = f"/admin/v1/models/{quote(model, safe='')}/reports/{quote(kind, safe='')}/{quote(digest, safe='')}"
        self._ask("PUT", f"{path}?{urlencode({'actor': actor})}", report)

    def keys(self) -> list[JSON]:
        """See Client."""
        found: list[JSON] = self._object("GET", "/admin/v1/keys")["keys"]
        return found

    def create_key(self, wish: JSON, actor: str, reason: str) -> JSON:
        """See Client."""
        return self._object("POST", "/admin/v1/keys", {**wish, "actor": actor, "reason": reason})

    def revoke_key(self, key_id: str, actor: str, reason: str) -> JSON:
        """See Client."""
        return self._object("DELETE", f"/admin/v1/keys/{quote(key_id, safe='')}", {"actor": actor, "reason": reason})

    def _object(self, method: str, path: str, body: Any = None) -> JSON:
        answer = self._ask(method, path, body)
        if not isinstance(answer, dict):
            raise Unreachable(f"control plane {self._url}: not Linnet's answer; check --url")
        return answer

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        status, data = self._exchange(method, path, None if body is None else json.dumps(body).encode())
        try:
            answer = json.loads(data) if data else {}
        except ValueError as error:
            raise Unreachable(f"control plane {self._url}: HTTP {status}, not JSON; check --url") from error
        if status >= 400:  # noqa: PLR2004
            raise self._error(status, answer)
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection = self._kind(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request(method, self._prefix + path, body=body, headers=self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            what = getattr(error, "strerror", None) or str(error) or type(error).__name__
            mend = "start it (linnet up), or add --store URL to go straight to the store"
            raise Unreachable(f"control plane {self._url}: {what}; {mend}") from error
        finally:
            connection.close()

    def _error(self, status: int, answer: Any) -> LinnetError:
        error = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(error, dict) or "message" not in error:
            return Refused(f"control plane {self._url}: HTTP {status} without a reason; check --url")
        return ERRORS.get(error.get("exit_code", 1), Refused)(str(error["message"]))


def _port(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError as error:
        raise Usage(f"--url {url}: not a port; write http://HOST:PORT") from error


def only_model(client: Client, model: str | None) -> str:
    """Return `model`, or the only one there is. Raises Refused when there is none, Usage when there are several."""
    if model is not None:
        if not model.strip():
            raise Usage("--model: no name in it; write --model NAME, or leave it out where there is only one")
        return model
    names = client.models()
    if not names:
        raise Refused("no model has a release yet; start one: linnet start SPEC --reason TEXT")
    if len(names) > 1:
        raise Usage(f"several models ({', '.join(sorted(names))}); name one with --model")
    return names[0]
