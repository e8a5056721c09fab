"""What goes wrong, by whose fault it is, and how a client is told.

GatewayError
├── SettingsError    the operator's: one line, exit 2
├── ApiError         the client's, or what is left when every engine failed: an OpenAI error body
└── UpstreamError    an engine's
    ├── ConnectError    no connection: nothing was sent
    ├── LostError             the connection ended inside an answer, or before one
    ├── LateError         one of the four limits passed
    └── BadAnswerError        not HTTP/1.1, or too large
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf

from serving import wire


class GatewayError(Exception):
    """The root: its text is one line that may be shown."""


class SettingsError(GatewayError):
    """The gateway cannot start like this."""


class UpstreamError(GatewayError):
    """An engine failed; `status` is what a client sees if nobody else can answer."""

    status = 502
    code = "engine_failed"


class ConnectError(UpstreamError):
    """No connection within the limit."""

    status = 503
    code = "engine_unreachable"


class LostError(UpstreamError):
    """The connection was lost. `heard` tells whether any byte of the answer had come."""

    code = "engine_died"

    def __init__(self, message: str, *, heard: bool) -> None:
        super().__init__(message)
        self.heard = heard


class LateError(UpstreamError):
    """A limit passed."""

    status = 504
    code = "engine_timeout"


class BadAnswerError(UpstreamError):
    """What came is no answer."""

    code = "engine_bad_answer"


class ApiError(GatewayError):
    """An answer of the gateway's own, in OpenAI's form."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        kind: str = "",
        retry_after_s: float | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """`retry_after_s` is when a repetition may succeed (infinity: never), `headers` are sent as they are."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        ours = status >= 500 or status == 429  # noqa: PLR2004 - LiteLLM takes "invalid_request_error" for the client's
        self.kind = kind or ("server_error" if ours else "invalid_request_error")
        self._retry_after_s = retry_after_s
        self._headers = headers

    def body(self) -> bytes:
        """OpenAI's error object."""
        return wire.error_body(str(self), self.kind, self.code, self.param)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What SDKs obey: openai-python retries as `x-should-retry` says, after `retry-after-ms` or `retry-after`.

        It would not wait longer than a minute, and try at once instead; so beyond that it is told not to.
        """
        head = [(b"content-type", b"application/json"), *self._headers]
        wait = self._retry_after_s
        if wait is None:
            wait = _RETRY_S if self.status in _RETRY else inf
        again = b"true" if wait <= _PATIENCE_S else b"false"
        head.append((b"x-should-retry", again))
        if wait < inf:
            head.append((b"retry-after", b"%d" % max(1, ceil(wait))))
        if self._retry_after_s is not None and wait < inf:
            head.append((b"retry-after-ms", b"%d" % max(1, ceil(wait * 1000))))
        return head


_RETRY_S = 1.0
_PATIENCE_S = 60.0
_RETRY = frozenset({429, 502, 503, 504})


def of_upstream(error: UpstreamError) -> ApiError:
    """What a client is told: which kind of failure, never where the engine lives."""
    return ApiError(error.status, _SAID.get(error.code, _SAID[UpstreamError.code]), error.code)


_SAID = {
    ConnectError.code: "the model's engine cannot be reached; try again",
    LostError.code: "the model's engine ended the connection; try again",
    LateError.code: "the model's engine did not answer in time; try again",
    BadAnswerError.code: "the model's engine sent no valid answer; try again",
    UpstreamError.code: "the model's engine failed; try again",
}


def not_found(path: str) -> ApiError:
    """Say 404 the way OpenAI does for an unknown route."""
    return ApiError(404, f"Unknown request URL: {path}. Check the path and the method.", "unknown_url")


_NAME_MOST = 200  # characters of a name that is said again


def no_model(model: str) -> ApiError:
    """Say 404 the way OpenAI does for an unknown model."""
    return ApiError(404, f"The model `{model[:_NAME_MOST]}` does not exist", "model_not_found", param="model")
