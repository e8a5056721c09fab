"""The way to a release that needs no control plane: the same commands, through the same script, on the store itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from canary import commands
from canary import status as states
from canary.console.client import JSON, Order
from canary.core.events import Cause
from canary.errors import Refused, Unreachable
from canary.storage.apikeys import KeyLimits, checked
from canary.storage.store import Store, StoreError

T = TypeVar("T")


class Direct:
    """A Client on the store. Each call opens a connection of its own and closes it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def models(self) -> list[str]:
        """See Client."""
        return sorted(self._run(lambda store: store.models()))

    def status(self, model: str) -> JSON:
        """See Client."""
        return self._run(lambda store: states.status(store, model, time.time()))

    def command(self, model: str, order: Order) -> JSON:
        """See Client."""
        return self._execute(model, order, dict(order.args or {}))

    def start(self, spec: str, where: str, order: Order) -> JSON:
        """See Client."""
        return self._execute("", order, {**dict(order.args or {}), "spec": spec, "where": where})

    def audit(self, model: str | None, count: int) -> list[JSON]:
        """See Client."""
        return [dict(entry) for entry in self._run(lambda store: store.audit(model, count))]

    def audit_chain(self, after: str) -> JSON:
        """See Client."""
        return self._run(lambda store: store.audit_log().chain(after))

    def material(self, model: str) -> JSON:
        """See Client."""
        return self._run(lambda store: states.material(store, model, time.time()))

    def engines(self) -> dict[str, JSON]:
        """See Client."""
        return self._run(lambda store: store.engines())

    def put_report(self, model: str, kind: str, digest: str, report: JSON, actor: str) -> None:
        """See Client."""
        cause = Cause(actor, "", time.time())
        self._run(lambda store: store.put_report(model, kind, digest, report, cause))

    def keys(self) -> list[JSON]:
        """See Client."""
        return [key.to_dict() for key in self._run(lambda store: store.api_keys().every())]

    def create_key(self, wish: JSON, actor: str, reason: str) -> JSON:
        """See Client."""
        limits = KeyLimits(wish["rpm"], wish["tpm"], wish["usd_per_day"])
        asked, cause = checked(wish["name"], wish["scopes"], limits), Cause(actor, reason, time.time())
        key, secret = self._run(lambda store: store.api_keys().create(asked, cause))
        return {**key.to_dict(), "secret": secret}

    def revoke_key(self, key_id: str, actor: str, reason: str) -> JSON:
        """See Client."""
        cause = Cause(actor, reason, time.time())
        return self._run(lambda store: store.api_keys().revoke(key_id, cause)).to_dict()

    def _execute(self, model: str, order: Order, args: dict[str, Any]) -> JSON:
        command = commands.Command(
            verb=order.verb,
            model=model,
            actor=order.actor,
            reason=order.reason,
            if_generation=order.if_generation,
            idempotency_key=order.key,
            args=args,
        )
        return self._run(lambda store: commands.execute(store, command, time.time()))

    def _run(self, ask: Callable[[Store], Awaitable[T]]) -> T:
        try:
            return asyncio.run(self._asked(ask))
        except StoreError as error:
            raise Unreachable(str(error)) from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise Refused(f"store {self._url}: what it holds is not Linnet's ({error}); check --store") from error

    async def _asked(self, ask: Callable[[Store], Awaitable[T]]) -> T:
        store = Store.connect(self._url)
        try:
            return await ask(store)
        finally:
            await store.close()
