"""YAML as plain values that remember their lines, so that an error can point at one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

Path: TypeAlias = tuple[str | int, ...]
_LONGEST = 256 * 1024  # characters
_MOST = 10_000  # values; aliases count each time they are used


@dataclass(slots=True)
class Source:
    """A YAML text read into `value`; `lines` maps a value's path to its line; `faults` are (line, what)."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """Return the line of a path, or of what holds it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(text: str, *, longest: int = _LONGEST, most: int = _MOST) -> Source:
    """Read one YAML document; what is wrong with it stands in `faults`, never in an exception.

    `longest` is in characters, `most` in values.
    """
    source = Source()
    if len(text) > longest:
        source.faults.append((1, f"longer than {longest} characters; such a file holds paths, not data"))
        return source
    try:
        loader = yaml.SafeLoader(text)  # refuses control characters
    except yaml.YAMLError as error:
        source.faults.append(_fault(error))
        return source
    try:
        node = loader.get_single_node()
        source.value = None if node is None else _Reader(loader, source, most).plain(node, ())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        source.faults.append(_fault(error))
    finally:
        loader.dispose()
    return source


class _Reader:
    """Turns nodes into values, noting lines and doubled keys."""

    def __init__(self, loader: yaml.SafeLoader, source: Source, most: int) -> None:
        self.loader = loader
        self.source = source
        self.most = most
        self.seen = 0

    def plain(self, node: yaml.Node, path: Path) -> Any:
        self.seen += 1
        if self.seen > self.most:
            raise ValueError(f"more than {self.most} values; take the aliases out")
        self.source.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, path))
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, (*path, index)) for index, item in enumerate(node.value)]
        return self.loader.construct_object(node)

    def _pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[Any, Any]]:
        self.loader.flatten_mapping(node)
        known = set()
        for key_node, value_node in node.value:
            key = str(self.loader.construct_object(key_node))
            line = key_node.start_mark.line + 1
            if key in known:
                self.source.faults.append((line, f"{key} is given twice; keep one"))
            known.add(key)
            self.source.lines[(*path, key)] = line
            yield key, self.plain(value_node, (*path, key))


def _fault(error: Exception) -> tuple[int, str]:
    mark = getattr(error, "problem_mark", None)
    line = 1 if mark is None else mark.line + 1
    if isinstance(error, RecursionError):
        return line, "nested too deeply; flatten it"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return line, f"not YAML: {problem}; mend the indentation or the quotes here"
