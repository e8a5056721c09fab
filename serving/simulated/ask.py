"""A request as the simulated engine understands it, checked the way vLLM checks (pure)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from serving.errors import ServingError
from serving.simulated.language import decode, encode

_COMPLETION_DEFAULT = 16


class AskError(ServingError):
    """The request is at fault; `status` and `kind` are what vLLM answers with."""

    def __init__(
        self, message: str, status: int = 400, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for an answer.

    `form` is "chat", "completion", "responses", or the format of a transcript; `model` the name it answers by; `limit`
    the most tokens of the answer, None if the engine may decide.
    """

    form: str
    model: str
    prompt: str
    ids: tuple[int, ...]
    limit: int | None
    stream: bool
    usage: bool
    choices: int = 1
    teacher: bool = False
    token_ids: bool = False
    ignore_eos: bool = False


def parse_json(body: bytes) -> dict[str, Any]:
    """Return a body's JSON object; AskError otherwise."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise AskError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise AskError("the body is not a JSON object")
    return value


def known(model: Any, names: tuple[str, ...]) -> str:
    """Return the name an engine answers by: the first, if none is asked for. Raises AskError on one it has not."""
    if model is None or model in names:
        return model or names[0]
    raise AskError(f"The model `{model}` does not exist.", 404, "NotFoundError", "model")


def parse(path: str, value: dict[str, Any], names: tuple[str, ...], longest: int) -> Ask:
    """Read a request for an answer. Raises AskError; `longest` is the context length in tokens."""
    form = _FORMS[path]
    prompt, ids = _PROMPTS[form](value)
    limit = next((most for name in _LIMITS if (most := _whole(value, name)) is not None), None)
    if limit is None and form == "completion":
        limit = _COMPLETION_DEFAULT
    if len(ids) + (limit or 1) > longest:
        asked = f"{len(ids)} prompt tokens and {limit or 1} of the answer"
        raise AskError(f"This model's maximum context length is {longest} tokens; the request has {asked}.")
    stream, teacher = bool(value.get("stream")), value.get("prompt_logprobs") is not None
    if stream and teacher:
        raise AskError("`prompt_logprobs` are not available when `stream=True`.", param="prompt_logprobs")
    options = value.get("stream_options") or {}
    return Ask(
        form=form,
        model=known(value.get("model"), names),
        prompt=prompt,
        ids=tuple(ids),
        limit=limit,
        stream=stream,
        usage=bool(options.get("include_usage", True)) if options else False,
        choices=_whole(value, "n") or 1,
        teacher=teacher,
        token_ids=bool(value.get("return_token_ids")),
        ignore_eos=bool(value.get("ignore_eos")),
    )


def templated(messages: Any) -> str:
    """Put chat messages together as one prompt. Raises AskError on anything but a list of messages."""
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise AskError("messages must be a list of objects", param="messages")
    return "".join(f"<|{m.get('role', 'user')}|>{_content(m.get('content'))}\n" for m in messages) + "<|assistant|>"


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def _chat_prompt(value: dict[str, Any]) -> tuple[str, list[int]]:
    text = templated(value.get("messages"))
    return text, encode(text)


def _response_prompt(value: dict[str, Any]) -> tuple[str, list[int]]:
    said = value.get("input")
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    told = [{"role": "system", "content": value["instructions"]}] if value.get("instructions") else []
    text = templated([*told, *messages] if isinstance(messages, list) else messages)
    return text, encode(text)


def _text_prompt(value: dict[str, Any]) -> tuple[str, list[int]]:
    prompt = value.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return prompt, encode(prompt)
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return _decoded(prompt), prompt
    raise AskError("prompt must be one text or one list of token ids", param="prompt")


def _decoded(ids: list[int]) -> str:
    try:
        return decode(ids)
    except ValueError as error:
        raise AskError(str(error), param="prompt") from None


def _whole(value: dict[str, Any], name: str) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if type(number) is not int or number < 1:
        raise AskError(f"{name} must be at least 1, got {number!r}.", param=name)
    return number


_FORMS = {"/v1/chat/completions": "chat", "/v1/completions": "completion", "/v1/responses": "responses"}
_PROMPTS = {"chat": _chat_prompt, "completion": _text_prompt, "responses": _response_prompt}
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
