"""Who asks what: everything that is decided about a request before an engine is chosen to be asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import count
from time import monotonic
from typing import Final

from gateway.door import ask, multipart
from gateway.door.access import Keys
from gateway.door.ask import JSON_TYPE, Ask, Bounds
from gateway.door.client import Client, Header
from gateway.door.guest import Asked, Guest
from gateway.errors import ApiError, no_model
from gateway.record.log import Entry
from gateway.relay.desk import Desk
from gateway.relay.exchange import Exchange
from gateway.routes.table import Form, Route
from gateway.split.choice import ARM, REQUEST_ID, SESSION, SLICE, choose, request_id_from
from gateway.split.splits import Splits

_CODING: Final = b"transfer-encoding"
_AUTHORIZATION: Final = b"authorization"
_TYPE: Final = b"content-type"
_LENGTH: Final = b"content-length"
_ENCODING: Final = b"content-encoding"
# Two of one of these mean two things to two readers.
_ONCE: Final = (b"host", _AUTHORIZATION, _TYPE, _ENCODING, _CODING, ARM, REQUEST_ID, SESSION, SLICE)
_DIGITS: Final = 12  # of a length
_ASKED_FOR_USAGE: Final = frozenset({Form.CHAT, Form.COMPLETION})
_TYPES: Final = dict.fromkeys(Form, JSON_TYPE) | {Form.UPLOAD: b"multipart/form-data"}


class Reception:
    """Reads heads and bodies of proxied requests, and starts their exchanges."""

    def __init__(self, desk: Desk, splits: Splits, keys: Keys, bounds: Bounds, fresh: str) -> None:
        self._desk = desk
        self._splits = splits
        self._keys = keys
        self._bounds = bounds
        self._fresh = fresh  # no other process begins its request ids with it
        self._numbers = count()

    def request_id(self, headers: Mapping[bytes, bytes]) -> str:
        """Return the client's request id, made harmless, else a fresh one."""
        return request_id_from(headers.get(REQUEST_ID), f"{self._fresh}{next(self._numbers):012x}")

    def greet(self, route: Route, headers: Sequence[Header], known: Mapping[bytes, bytes]) -> Guest:
        """Judge a request by its head, before a byte of its body is kept; `known` are the headers by name.

        Raises ApiError.
        """
        if len(known) != len(headers):
            _refuse_doubled(headers)
        caller = self._keys.identify(known.get(_AUTHORIZATION))
        given = known.get(_TYPE, JSON_TYPE)
        if given != JSON_TYPE or route.form is Form.UPLOAD:
            _check_type(route, given)
        if _ENCODING in known and known[_ENCODING].lower() != b"identity":
            raise ApiError(415, "A compressed body is not read; send it as it is.", "unsupported_media_type")
        if _CODING in known and known[_CODING].lower() != b"chunked":
            raise ApiError(400, "The only transfer coding is chunked.", "invalid_http")
        most = self._desk.limits.body_bytes
        declared = known.get(_LENGTH, b"0")
        if not declared.isdigit() or len(declared) > _DIGITS or int(declared) > most:
            raise too_large(most)
        return Guest(route, known, caller, most, self._keys.changes)

    def still(self, guest: Guest, size: int) -> bool:
        """Tell whether a head that was good before is good for a request whose body has so many bytes."""
        return guest.keys == self._keys.changes and size <= guest.body_most

    def serve(self, guest: Guest, body: bytes, client: Client) -> Exchange:
        """Start the exchange of a request that is complete. Raises ApiError."""
        began = monotonic()
        if guest.route.form is Form.UPLOAD:
            asked: Asked = multipart.read(body, guest.headers.get(_TYPE, b""))
        else:
            asked = self._read(guest.route, body)
        route = self._splits.route(asked.model)
        if route is None:
            raise no_model(asked.model)
        choice = choose(route, asked, guest, client.request_id, time.time())
        if guest.caller.limits is not None:
            client.name_quota(self._admitted(guest, asked, began))
        exchange = Exchange(self._desk, client, choice, asked, guest, began=began)
        exchange.start()
        return exchange

    def refused(self, error: ApiError, request_id: str, path: str) -> None:
        """Count, and log, a request that reached no arm."""
        self._desk.metrics.refused()
        if self._desk.log is not None:
            now = int(time.time() * 1000)
            self._desk.log.write(Entry(now, request_id, "", path, error.status, "refused", 0.0))

    def _read(self, route: Route, body: bytes) -> Ask:
        # An engine's tokenizer needs no model's name, so its clients give none; with one model there is no doubt.
        models = () if route.evidence else self._splits.models
        usual = models[0] if len(models) == 1 else ""
        asked = ask.read(body, self._bounds, usage=route.form in _ASKED_FOR_USAGE, model=usual)
        if route.form is Form.RESPONSES and asked.get("background"):
            raise ApiError(400, "Answers in the background cannot be fetched here.", "unsupported", param="background")
        return asked

    def _admitted(self, guest: Guest, asked: Asked, now: float) -> bytes:
        """Reserve what a request may cost its caller; say in the answer what is left. Raises ApiError."""
        try:
            return self._desk.quota.admit(guest.caller, asked.tokens, now)
        except ApiError as error:
            self._desk.metrics.quota_refused(error.kind)
            raise


def too_large(most: int) -> ApiError:
    """Say 413."""
    return ApiError(413, f"The body is larger than {most} bytes.", "request_too_large")


def _check_type(route: Route, given: bytes) -> None:
    wanted = _TYPES[route.form]
    if given.partition(b";")[0].strip().lower() != wanted:
        raise ApiError(415, f"The content type must be {wanted.decode()}.", "unsupported_media_type")


def _refuse_doubled(headers: Sequence[Header]) -> None:
    names = [name for name, _ in headers]
    doubled = next((name for name in _ONCE if names.count(name) > 1), None)
    if doubled is not None:
        raise ApiError(400, f"The header {doubled.decode()} is given twice.", "doubled_header")
