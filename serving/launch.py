"""From settings to the command that starts real vLLM on CPU, and to a digest that names what is served (pure).

The flags and variables are those measured on two cores: one thread an engine, pinned, eager, a KV cache in bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from serving.errors import ModelError

MIB = 1 << 20

IDENTITY_SUFFIXES = frozenset({".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".py"})
"""Of a checkpoint's files, those that change what it answers."""

NOT_IDENTITY = frozenset({"training.json"})

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_COLOR": "0",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One engine: what it serves and how.

    `core` pins it; `served_model` is the name that requests and answers carry.
    """

    name: str
    model_dir: Path
    served_model: str
    port: int
    core: int | None = None
    host: str = "127.0.0.1"
    max_model_len: int = 1024
    max_num_seqs: int = 16
    kv_cache_bytes: int = 64 * MIB
    dtype: str = "bfloat16"
    extra_args: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The engine's root, without /v1."""
        return f"http://{self.host}:{self.port}"


def argv(settings: EngineSettings, python: Path) -> tuple[str, ...]:
    """Return the command that serves these settings with the engines' python."""
    options = {
        "--host": settings.host,
        "--port": settings.port,
        "--served-model-name": settings.served_model,
        "--shutdown-timeout": 20,
        **_behaviour(settings),
    }
    flags = ("--enforce-eager", "--enable-prompt-tokens-details", "--enable-request-id-headers")
    pairs = tuple(str(word) for pair in options.items() for word in pair)
    serve = (str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(settings.model_dir))
    return (*serve, *pairs, *flags, *settings.extra_args)


def variables(python: Path) -> dict[str, str]:
    """Return the variables that an engine needs beside the inherited ones; vLLM's own cache stays beside its python."""
    return {**ENVIRONMENT, "VLLM_CACHE_ROOT": str(python.parent.parent / "vllm-cache")}


def digest(settings: EngineSettings) -> str:
    """Name what is served: `sha256:` over weights, configuration, tokenizer, template and the engine's behaviour.

    Where it runs (port, core, names) is left out: the same candidate elsewhere is the same candidate.
    """
    behaviour = json.dumps([_behaviour(settings), settings.extra_args], sort_keys=True)
    total = hashlib.sha256(behaviour.encode())
    for path in identity_files(settings.model_dir):
        stat = path.stat()
        total.update(f"{path.name}:{_hash_file(path, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def identity_files(model_dir: Path) -> list[Path]:
    """Return a checkpoint's files that change what it answers, sorted by name; an error if it is no checkpoint."""
    if not (model_dir / "config.json").is_file():
        raise ModelError(f"no model in {model_dir}: config.json is missing; make the models with `linnet adapt --demo`")
    chosen = (p for p in model_dir.iterdir() if p.suffix in IDENTITY_SUFFIXES and p.name not in NOT_IDENTITY)
    return sorted(chosen, key=lambda path: path.name)


def _behaviour(settings: EngineSettings) -> dict[str, str]:
    return {
        "--dtype": settings.dtype,
        "--max-model-len": str(settings.max_model_len),
        "--max-num-seqs": str(settings.max_num_seqs),
        "--kv-cache-memory-bytes": str(settings.kv_cache_bytes),
    }


@lru_cache(maxsize=256)
def _hash_file(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001
    """Hash a file; size and time of change are in the key, so an unchanged file is read once a process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
