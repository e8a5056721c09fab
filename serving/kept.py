"""What is kept of an answer's words, for those who look at them when it is over (pure)."""

from __future__ import annotations

from typing import Any, Final


class Kept:
    """The first choice's text and the arguments of its tool calls: the first `room` characters of all together.

    `room` is what is left of it; at 0 the words may be cut. `refused` tells whether the engine itself called the answer
    a refusal, in the field that OpenAI has for it.
    """

    __slots__ = ("_calls", "_said", "refused", "room")

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.refused = False
        self._said: list[str] = []
        self._calls: dict[int, list[str]] = {}

    @property
    def text(self) -> str:
        """The text, as far as it was kept."""
        return "".join(self._said)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of each tool call, in the order of the calls, as far as they were kept."""
        return tuple(["".join(pieces) for pieces in self._calls.values()])

    def say(self, text: Any) -> None:
        """Keep a piece of text; anything else is none."""
        if self.room and text and isinstance(text, str):
            self._said.append(self._fitting(text))

    def call(self, number: int, arguments: Any) -> None:
        """Keep a piece of a tool call's arguments; what is no text is none, and the call is known nevertheless."""
        if not self.room:
            return
        if number not in self._calls:
            self._calls[number] = []
            self.room -= 1  # calls without arguments are bounded too
        if isinstance(arguments, str):
            self._calls[number].append(self._fitting(arguments))

    def _fitting(self, text: str) -> str:
        fitting = text[: self.room]
        self.room -= len(fitting)
        return fitting


NOTHING: Final = Kept()  # it has no room: nothing ever changes it
