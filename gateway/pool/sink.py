"""Who hears an engine's reply, and how long one waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.errors import UpstreamError

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds one request may wait: for the first byte of an answer, between its pieces, and in all."""

    first_byte_s: float
    between_s: float
    total_s: float


class Sink(Protocol):
    """Who hears one reply: its head, its pieces, and one last word. Nothing comes after that.

    `at` is when the bytes came that said so, in monotonic seconds.
    """

    def head(self, status: int, headers: Headers, at: float) -> None:
        """Take the status and the headers; names are lower-case."""

    def body(self, piece: bytes, at: float) -> None:
        """Take a piece of the body as it came."""

    def ended(self, at: float) -> None:
        """The last word of a reply that is complete."""

    def failed(self, error: UpstreamError) -> None:
        """The last word of a reply that is not."""
