"""The list of peers: who they are, how each is started, what is filled in (pure but for reading the list)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.errors import BenchError


@dataclass(frozen=True, slots=True)
class Peer:
    """One gateway, as the list describes it. Words between @ are filled in when it is started.

    No `command`: the generator goes straight to the engines. `files` are templates that lie beside the list.
    `port_file` is written by a peer that picks its own port; `beside` names the pid of a process that serves the peer
    without being part of it, so that its CPU is told apart. `version` is a command that prints one.
    """

    name: str
    about: str = ""
    split: str = ""
    command: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    cwd: str = "@dir@"
    ready: str = "/health"
    start_s: float = 40.0
    path: str = "/v1/chat/completions"
    model: str = "m"
    port_file: str = ""
    beside: str = ""
    version: tuple[str, ...] = ()
    scenarios: tuple[str, ...] | None = None
    warm_s: float = 1.0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Places:
    """Where the list lies, beside its templates, and where the peers are installed."""

    listed: Path
    installed: Path


_LIST = TypeAdapter(dict[str, tuple[Peer, ...]])


def read_peers(path: Path) -> tuple[Peer, ...]:
    """Read `{"peers": [...]}`. Raises BenchError with one line."""
    try:
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return _LIST.validate_python({"peers": value.get("peers")})["peers"]
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror or error}; name a list with --peer-list") from None
    except (ValueError, AttributeError) as error:
        raise BenchError(f"{path}: {_told(error)}; mend the list") from None


def chosen(peers: tuple[Peer, ...], names: str) -> tuple[Peer, ...]:
    """Return those of a comma-separated list, all for "". Raises BenchError for a name that is not there."""
    wanted = [name for name in names.split(",") if name]
    if missing := set(wanted) - {peer.name for peer in peers}:
        raise BenchError(f"no peer named {', '.join(sorted(missing))}; there are {', '.join(p.name for p in peers)}")
    return tuple(peer for peer in peers if not wanted or peer.name in wanted)


def filled(text: str, values: Mapping[str, object]) -> str:
    """Replace each @name@ by its value."""
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def _told(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
