"""A request whose head was read: everything that is known before its body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.door.access import Caller
from gateway.door.ask import Ask
from gateway.door.multipart import Upload
from gateway.routes.table import Route

Asked = Ask | Upload  # what a body says


@dataclass(slots=True)
class Guest:
    """Who asks for what: all that a head says. `headers` by lower-case name.

    `body_most` is how many bytes the body may have; `keys` is the state of the API keys by which the caller is known.
    """

    route: Route
    headers: Mapping[bytes, bytes]
    caller: Caller
    body_most: int
    keys: int = 0
