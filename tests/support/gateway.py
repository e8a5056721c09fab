"""A gateway as an operator runs it: `python -m gateway` as a process, in front of the engines a test has.

`with GatewayProcess(folder, {"support": entry(url)}) as gateway:` then `gateway.url`, `gateway.ops`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.support.stack import until


def entry(*urls: str, served_model: str, **pool: Any) -> dict[str, Any]:
    """One model of the file of models."""
    return {"engine": "engine", "served_model": served_model, "replicas": list(urls), "pool": pool}


class GatewayProcess:
    """One gateway with one worker, on free ports."""

    def __init__(self, folder: Path, models: Mapping[str, Any], **settings: str) -> None:
        models_file = folder / "models.yaml"
        models_file.write_text(yaml.safe_dump({"models": dict(models)}))
        self._folder = folder
        self._env = {
            **os.environ,
            "LINNET_GATEWAY_PORT": "0",
            "LINNET_OPS_PORT": "0",
            "LINNET_WORKERS": "1",
            "LINNET_DRAIN_SECONDS": "1",
            "LINNET_MODELS": str(models_file),
            "LINNET_STATE": str(folder / "state"),
            "LINNET_REDIS_URL": "redis://127.0.0.1:1/0",
            **settings,
        }
        self.url = self.ops = ""

    def __enter__(self) -> Self:
        with (self._folder / "gateway.err").open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway"], env=self._env, stdout=subprocess.PIPE, stderr=err, text=True
            )
        assert self._process.stdout is not None
        self.url, self.ops = re.findall(r"(http://[^/\s]+)", self._process.stdout.readline())
        until(self._ready, "a ready gateway", 20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=20)
        finally:
            self._process.kill()

    @property
    def pid(self) -> int:
        """The pid of the process that keeps the worker."""
        return self._process.pid

    @property
    def err(self) -> str:
        """What it said on standard error."""
        return (self._folder / "gateway.err").read_text()

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
