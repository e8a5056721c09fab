"""The verb `audit`: who changed what and why; the whole of it as a file, and whether its chain is whole."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from canary.console import history, options, render
from canary.console.client import Client, connect
from canary.console.options import DEFAULT_URL
from canary.errors import Refused, Usage
from canary.storage import chain
from canary.storage.chain import Checked, Link

Count = Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How many of the latest entries.")]
Export = Annotated[
    str | None, typer.Option("--export", metavar="FILE", help="Write every entry as JSON lines (-: here).")
]
Verify = Annotated[bool, typer.Option("--verify", help="Check that no entry is altered, missing, inserted or moved.")]
Offline = Annotated[bool, typer.Option("--offline", help="With --verify FILE: check the file by itself.")]
Kept = Annotated[
    str | None, typer.Argument(metavar="[FILE]", help="With --verify: an export to hold the audit against.")
]
TRIMMED = "if they were trimmed on purpose, give the export that has them: linnet audit --verify FILE"


def audit(
    file: Kept = None,
    *,
    export: Export = None,
    verify: Verify = False,
    offline: Offline = False,
    count: Count = 50,
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """List who changed what, and why; --export writes all of it, --verify checks its chain."""
    if export is not None and verify:
        raise Usage("audit: --export and --verify are two things; do one after the other")
    if (file is not None or offline) and not verify:
        raise Usage("audit: a file is for checking; add --verify")
    if offline:
        return _told(_offline(file), f"{file}: ", as_json=as_json)
    client = connect(url, store)
    if verify:
        kept = _read(file) if file is not None else []
        return _told(_verified(client, kept), "", as_json=as_json)
    if export is not None:
        return _export(client, export)
    rows = client.audit(model, count)
    if as_json:
        options.print_json(rows)
    else:
        render.console().print(history.entries(rows) if rows else "The audit is empty.")
    return None


def _offline(file: str | None) -> Checked:
    if file is None:
        raise Usage("audit: --offline checks a file; name it: linnet audit --verify --offline FILE")
    return chain.check_export(_read(file))


def _verified(client: Client, kept: list[dict[str, str]]) -> Checked:
    entries, head = everything(client)
    found = chain.verify(entries, head, kept)
    if found.fault.startswith("seq 1 ") and not found.last:
        found = replace(found, fault=f"{found.fault}; {TRIMMED}")
    return found


def everything(client: Client) -> tuple[list[dict[str, str]], Link | None]:
    """Return every entry, oldest first, and the head as it was before the last page was read."""
    entries: list[dict[str, str]] = []
    while True:
        page = client.audit_chain(entries[-1]["id"] if entries else "")
        head = None if page["head"] is None else Link(int(page["head"]["seq"]), str(page["head"]["chain"]))
        if not page["entries"]:
            return entries, head
        entries += page["entries"]


def _told(found: Checked, where: str, *, as_json: bool) -> None:
    """Say in one line what the chain is worth. Raises Refused if it is not whole."""
    if as_json:
        options.print_json(found.to_dict())
    if found.fault:
        raise Refused(f"audit: {where}not whole: {found.fault}")
    if not as_json:
        typer.echo(where + _whole(found))


def _whole(found: Checked) -> str:
    older = f"; {found.unchained} older entries have no chain" if found.unchained else ""
    if found.last is None:
        return f"no entry is chained yet{older}"
    return f"whole: seq {found.first} to {found.last.seq}, head {found.last.chain}{older}"


def _export(client: Client, name: str) -> None:
    entries, _ = everything(client)
    lines = "".join(f"{options.json_line(entry)}\n" for entry in entries)
    if name == "-":
        typer.echo(lines, nl=False)
        return
    _write(Path(name).expanduser(), lines)
    typer.echo(f"{name}: {len(entries)} entries; {_whole(chain.check_export(entries))}")


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises Usage."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Usage(f"--export {path}: cannot be written ({error.strerror}); give another place") from None


def _read(name: str) -> list[dict[str, str]]:
    """Read an export. Raises Usage."""
    try:
        entries = chain.parse(Path(name).expanduser().read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise Usage(f"{name}: cannot be read ({error.strerror}); give what `linnet audit --export` wrote") from None
    except UnicodeDecodeError:
        raise Usage(f"{name}: not UTF-8 text; give what `linnet audit --export` wrote") from None
    except ValueError as error:
        raise Usage(f"{name}: {error}; give what `linnet audit --export` wrote") from None
    if not entries:
        raise Usage(f"{name}: no entry in it, so it proves nothing; give what `linnet audit --export` wrote")
    return entries
