"""Where notifications go, as the spec says it: never with a secret in it, only with the name of what holds one."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from canary.card.parts import Part

PREFIX = "LINNET_NOTIFY_"  # a spec names no other variables of the control plane


class Kind(StrEnum):
    """What somebody wants to hear of."""

    PHASE = "phase"  # the release stands in another phase
    HOLD = "hold"  # the evidence holds it, or does no longer
    BREACH = "breach"  # a guardrail, a tripwire or the stop loss stopped it
    ROLLBACK = "rollback"  # everybody is sent to the baseline; then, every worker has acknowledged it


class Misconfigured(Exception):  # noqa: N818 - what it is, not that it is an error
    """The control plane's environment lacks what the spec names: one line with the mend."""


def web_address(text: str) -> str:
    """Return a URL that may be sent to. Raises ValueError, which never repeats the URL."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - a property that raises
    except ValueError:
        raise ValueError("no URL; write https://HOST/PATH") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not text.isascii() or not text.isprintable():
        raise ValueError("no web address; write https://HOST/PATH")
    if " " in text or parts.fragment:
        raise ValueError("a space or a fragment in the address; take it out")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a user or password in the address; sign by secret_env, or keep the address in url_env")
    return text


Variable = Annotated[str, Field(pattern=rf"^{PREFIX}[A-Z0-9_]{{1,64}}$")]


class NotifySpec(Part):
    """One receiver. An address that is a secret itself (Slack's are) stays in the variable that `url_env` names."""

    url: Annotated[str, AfterValidator(web_address)] | None = None
    url_env: Variable | None = None
    events: Annotated[tuple[Annotated[Kind, Field(strict=False)], ...], Field(strict=False, min_length=1)] = tuple(Kind)
    secret_env: Variable | None = None
    form: Literal["json", "slack"] = "json"

    @model_validator(mode="after")
    def _complete(self) -> NotifySpec:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("one address is needed; give either url or url_env")
        if self.form == "json" and self.secret_env is None:
            raise ValueError(f"nothing signs it; add secret_env: {PREFIX}SECRET, a variable of the control plane")
        return self

    def address(self, environment: Mapping[str, str]) -> str:
        """Return where to send. Raises Misconfigured."""
        if self.url is not None:
            return self.url
        try:
            return web_address(_variable(environment, self.url_env))
        except ValueError as error:
            raise Misconfigured(f"{self.url_env}: {error}") from None

    def secret(self, environment: Mapping[str, str]) -> bytes | None:
        """Return what signs, None if nothing does. Raises Misconfigured."""
        return None if self.secret_env is None else _variable(environment, self.secret_env).encode()


def host(address: str) -> str:
    """Return what of an address may be shown."""
    return urlsplit(address).hostname or "?"


def _variable(environment: Mapping[str, str], name: str | None) -> str:
    text = environment.get(name or "", "").strip()
    if not text:
        raise Misconfigured(f"{name} is not set; set it in the control plane's environment")
    return text
