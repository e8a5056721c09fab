"""The routes that answer once and say little about themselves: embeddings, rerank, score, the tokenizer, audio (pure).

Their answers have no finish_reason, and some no usage: one is good when it is there, readable, and no error object.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.wire import AnswerReader, WholeAnswer, error_message, parsed, usage_of


@dataclass(slots=True)
class PlainAnswer(WholeAnswer):
    """An answer that is complete by being there without an error."""

    @property
    def complete(self) -> bool:
        """Whether this was a good answer."""
        return self.error is None


class TranscriptReader(AnswerReader):
    """A transcript that streams: chat's chunks, but usage comes only to those who asked, by a form field of its own."""

    __slots__ = ()

    @property
    def complete(self) -> bool:
        """Whether this was a good transcript: finish_reason and `[DONE]`, and no error."""
        return self.ended and self.error is None


def read_plain(body: bytes, _keep_text: int = 0) -> PlainAnswer:
    """Read an answer that has to be a JSON object. Never raises: what cannot be read is an error."""
    answer = parsed(body)
    if answer is None:
        return PlainAnswer(error="the engine's answer is not a JSON object")
    return PlainAnswer(usage=usage_of(answer.get("usage")), error=error_message(answer))


def read_bytes(_body: bytes, _keep_text: int = 0) -> PlainAnswer:
    """Read an answer that is no text at all: vLLM sends embeddings as raw numbers to those who ask for bytes."""
    return PlainAnswer()


def read_transcript(body: bytes, _keep_text: int = 0) -> PlainAnswer:
    """Read a transcript: JSON, or text, SRT or VTT as it was asked for, which may be of no words at all."""
    return read_plain(body) if body.lstrip().startswith(b"{") else PlainAnswer()
