"""What a try leaves behind: how the answer came, what it said of itself, and what was found in its words (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from canary.core.outcome import Outcome, Result
from gateway.door.ask import Ask
from gateway.door.guest import Asked
from gateway.errors import ApiError
from gateway.split.choice import Choice
from serving.cost import cost_of
from serving.flaws import flaws
from serving.kept import Kept
from serving.wire import Usage

_JSON_FORMATS: Final = frozenset({"json_object", "json_schema"})


class Said(Protocol):
    """What an answer said, whichever way it came: a stream's reader, or a whole answer."""

    @property
    def finish_reason(self) -> str:
        """Why it ended, "" if it does not say."""

    @property
    def usage(self) -> Usage | None:
        """Its tokens, None if it does not say."""

    @property
    def content_chunks(self) -> int:
        """How many pieces brought content."""

    @property
    def kept(self) -> Kept:
        """Its words, as far as they were kept."""


@dataclass(slots=True)  # one is made for every request: frozen ones cost three times as much
class Clock:
    """When things happened, in monotonic seconds: `began` is the last byte of the request, `stall` lasted seconds."""

    began: float
    ended: float
    first_content: float | None = None
    stall: float | None = None


def outcome_of(
    choice: Choice,
    result: Result,
    said: Said,
    clock: Clock,
    *,
    status: int = 0,
    replica: int = -1,
    found: tuple[str, ...] = (),
) -> Outcome:
    """Make the outcome. Without usage the chunks stand for tokens, and there is no price."""
    usage, price = said.usage, choice.endpoint.price
    prompt, completion, cached, cost = 0, said.content_chunks, 0, None
    if usage is not None:
        prompt, completion, cached = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
        cost = None if price is None else cost_of(price, usage)
    e2e, ttft, tpot = clock.ended - clock.began, None, None
    if clock.first_content is not None:
        ttft = clock.first_content - clock.began
        tpot = None if completion < 2 else (e2e - ttft) / (completion - 1)  # noqa: PLR2004
    return Outcome(
        choice.arm,
        result,
        choice.slice,
        choice.split.stage,
        status,
        e2e,
        ttft,
        tpot,
        prompt,
        completion,
        said.finish_reason,
        cost,
        choice.evidence,
        choice.at,
        choice.unit,
        choice.cold,
        choice.control,
        replica,
        clock.stall,
        found,
        cached,
    )


def examined(choice: Choice) -> tuple[str, ...]:
    """Return what an answer is searched for: nothing if it will be no evidence."""
    return choice.split.examined if choice.evidence else ()


def found_in(said: Said, choice: Choice, ask: Asked) -> tuple[str, ...]:
    """Return which of the flaws that it is searched for a good answer has."""
    names = examined(choice)
    if not names:
        return ()
    return flaws(said.kept, names, finish_reason=said.finish_reason, json_asked=asks_json(ask))


def asks_json(ask: Asked) -> bool:
    """Tell whether a request demands JSON: in OpenAI's words, or in vLLM's of before and after 0.12."""
    if not isinstance(ask, Ask):
        return False
    try:
        text, constraints = ask.get("text"), ask.get("structured_outputs")
        formats = [ask.get("response_format"), text.get("format") if isinstance(text, dict) else None]
        if any(_is_json(format_) for format_ in formats) or ask.get("guided_json") is not None:
            return True
    except ApiError:  # that is no JSON itself, and an engine took it nevertheless
        return False
    return isinstance(constraints, dict) and bool(constraints.get("json") is not None or constraints.get("json_object"))


def _is_json(format_: Any) -> bool:
    kind = format_.get("type") if isinstance(format_, dict) else None
    return isinstance(kind, str) and kind in _JSON_FORMATS
