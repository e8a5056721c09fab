"""The proxied routes: what reaches an engine, and in which form it answers. Whatever is not listed here does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Form(StrEnum):
    """The shape of a request and its answer."""

    CHAT = "chat"  # messages in; whole, or a stream that ends with [DONE]
    COMPLETION = "completion"  # a prompt in; answers like CHAT
    RESPONSES = "responses"  # input in; whole, or typed events without [DONE]
    PLAIN = "plain"  # JSON in, JSON out
    UPLOAD = "upload"  # multipart in


@dataclass(frozen=True, slots=True)
class Route:
    """One path, the same at the gateway and at the engine. `evidence`: its answers say something about an arm."""

    path: str
    form: Form
    evidence: bool = True

    @property
    def raw(self) -> bytes:
        """The path as it stands in a request."""
        return _RAW[self.path]


_ROUTES: Final = (
    Route("/v1/chat/completions", Form.CHAT),
    Route("/v1/completions", Form.COMPLETION),
    Route("/v1/responses", Form.RESPONSES),
    Route("/v1/embeddings", Form.PLAIN),
    Route("/rerank", Form.PLAIN),
    Route("/v1/rerank", Form.PLAIN),
    Route("/v2/rerank", Form.PLAIN),
    Route("/score", Form.PLAIN),
    Route("/v1/score", Form.PLAIN),
    # The tokenizer is not the model: how it answers is no evidence.
    Route("/tokenize", Form.PLAIN, evidence=False),
    Route("/detokenize", Form.PLAIN, evidence=False),
    Route("/v1/audio/transcriptions", Form.UPLOAD),
    Route("/v1/audio/translations", Form.UPLOAD),
)

_RAW: Final = {route.path: route.path.encode() for route in _ROUTES}
PROXIED: Mapping[bytes, Route] = {_RAW[route.path]: route for route in _ROUTES}
