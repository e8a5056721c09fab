"""Real text that a machine has anyway: the documentation inside the packages of the engines' environment.

*General* is library and machine-learning documentation, *domain* is mathematics. A document is one module's longer
docstrings. Near-duplicates are dropped by eight-word shingles; held-out documents are read first, so that no training
text repeats them. The split is by a hash of the module's path, so with locked wheels everything here is deterministic.

Runs under the engines' python, and needs nothing but the standard library.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import warnings
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from email.parser import HeaderParser
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from email.message import Message

SLICES = {
    "domain": ("sympy", "networkx", "mpmath"),
    "general": (
        *("torch", "transformers", "vllm", "numpy", "numba", "huggingface_hub", "tokenizers", "safetensors"),
        *("pydantic", "pydantic_core", "fastapi", "starlette", "uvicorn", "aiohttp", "anyio", "httpx", "urllib3"),
        *("requests", "websockets", "fsspec", "filelock", "packaging", "click", "rich", "jinja2", "attr", "pygments"),
        *("mcp", "opentelemetry", "prometheus_client", "compressed_tensors", "mistral_common", "xgrammar", "zmq"),
    ),
}
"""Import names by slice. Generated client libraries are left out: they say the same few sentences a thousand times."""

SHORTEST = 160
"""Characters; a shorter docstring is mostly a label."""

SHINGLE_WORDS = 8
REPEATED = 0.3
"""A docstring with a greater share of its shingles seen before counts as a near-duplicate."""


@dataclass(frozen=True, slots=True)
class Document:
    """One module's docstrings."""

    slice: str
    package: str
    path: str
    text: str

    @property
    def split(self) -> str:
        """Two modules in twenty are held out for tests, one for watching the training."""
        return split_of(self.path)


def split_of(path: str) -> str:
    """Return test, validation or train, by a hash of the path."""
    bucket = zlib.crc32(path.encode()) % 20
    return "test" if bucket < 2 else "validation" if bucket == 2 else "train"  # noqa: PLR2004


def docstrings(source: bytes) -> Iterator[str]:
    """Yield the longer, mostly ASCII docstrings of a module's source; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented):
            text = (ast.get_docstring(node) or "").strip()
            if len(text) >= SHORTEST and _mostly_ascii(text):
                yield text


def shingles(text: str) -> set[int]:
    """Return one in four of the text's eight-word windows, each as a checksum: enough to recognise a repetition."""
    words = re.findall(r"\w+", text.lower())
    windows = (" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1)))
    return {mark for mark in (zlib.crc32(window.encode()) for window in windows) if mark % 4 == 0}


def without_repeats(modules: Iterable[tuple[Document, list[str]]]) -> Iterator[Document]:
    """Drop docstrings that repeat what came before; whoever comes first keeps the text, so held-out comes first."""
    seen: set[int] = set()
    for document, texts in modules:
        kept = []
        for text in texts:
            marks = shingles(text)
            if len(marks & seen) <= REPEATED * len(marks):
                kept.append(text)
            seen |= marks
        if kept:
            yield Document(document.slice, document.package, document.path, "\n\n".join(kept))


def read(packages: Path) -> list[Document]:
    """Read every slice's documents out of a site-packages folder, held-out ones first."""
    paths = [(name, path) for names in SLICES.values() for name in names for path in _sources(packages / name)]
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        texts = pool.map(_docstrings_of, (path for _, path in paths), chunksize=64)
        slice_of = {name: slice_ for slice_, names in SLICES.items() for name in names}
        modules = [
            (Document(slice_of[name], name, path.relative_to(packages).as_posix(), ""), found)
            for (name, path), found in zip(paths, texts, strict=True)
            if found
        ]
    order = ("test", "validation", "train")
    return list(without_repeats(sorted(modules, key=lambda module: (order.index(module[0].split), module[0].path))))


def licences(packages: Path) -> dict[str, str]:
    """Return each source package's licence, as its own metadata states it."""
    wanted = {name for names in SLICES.values() for name in names}
    found: dict[str, str] = {}
    for metadata in sorted(packages.glob("*.dist-info/METADATA")):
        top_level = _top_level(metadata.parent) & wanted
        headers = HeaderParser().parsestr(metadata.read_text(errors="replace"))
        found |= dict.fromkeys(top_level, f"{headers['Name']} {headers['Version']}: {_licence(headers)}")
    return dict(sorted(found.items()))


def write(packages: Path, folder: Path) -> None:
    """Write `{slice}-{split}.jsonl` and `licences.json` into a folder, and say how much there is."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = read(packages)
    for slice_ in SLICES:
        for split in ("train", "validation", "test"):
            chosen = [d for d in documents if d.slice == slice_ and d.split == split]
            lines = [json.dumps(asdict(d)) for d in chosen]
            (folder / f"{slice_}-{split}.jsonl").write_text("\n".join(lines) + "\n")
            characters = sum(len(d.text) for d in chosen)
            sys.stdout.write(
                f"text: {slice_:8} {split:10} {len(chosen):5} documents {characters / 1e6:6.2f} M characters\n"
            )
    (folder / "licences.json").write_text(json.dumps(licences(packages), indent=1))


def _mostly_ascii(text: str) -> bool:
    return sum(character < "\x80" for character in text) >= 0.95 * len(text)


def _sources(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if not {"tests", "test", "_vendor"} & set(path.parts))


def _docstrings_of(path: Path) -> list[str]:
    return list(docstrings(path.read_bytes()))


def _top_level(dist_info: Path) -> set[str]:
    record = dist_info / "RECORD"
    lines = record.read_text().splitlines() if record.exists() else []
    return {line.split(",")[0].split("/")[0] for line in lines}


def _licence(headers: Message) -> str:
    """Prefer the licence expression, then a one-line licence field, then the classifiers."""
    classified = [value.split(" :: ")[-1] for value in headers.get_all("Classifier", []) if "License ::" in value]
    free_text = str(headers.get("License") or "").strip()
    named = free_text if "\n" not in free_text else ""
    return str(headers.get("License-Expression") or "; ".join(classified) or named or "not stated")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
