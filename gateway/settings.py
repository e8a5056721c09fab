"""The environment, parsed once into small frozen values; nothing else in the gateway reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from canary.core.arms import Endpoint, Split
from canary.link import StoreError, open_redis
from gateway.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how large, at most: seconds and bytes."""

    connect_s: float = 2.0
    first_byte_s: float = 60.0  # streams only: a whole answer's first byte is its last
    between_s: float = 60.0
    total_s: float = 600.0
    body_bytes: int = 12 * 1024 * 1024
    answer_bytes: int = 64 * 1024 * 1024
    idle_s: float = 4.0  # below the 5 s after which vLLM's server closes an idle connection
    drain_s: float = 30.0
    stale_s: float = 60.0


_USUAL = Limits()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a worker is told. `models` are the static splits that hold until the store says otherwise."""

    host: str
    port: int
    ops_port: int
    workers: int
    redis_url: str
    state: Path
    models: tuple[Split, ...]
    limits: Limits = _USUAL


class _Environment(BaseSettings):
    """The variables `LINNET_...`; an unknown value is an error, an unknown name belongs to another process."""

    model_config = SettingsConfigDict(env_prefix="LINNET_", extra="ignore")

    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(8080, ge=0, le=65535)
    ops_port: int = Field(8082, ge=0, le=65535)
    workers: int = Field(2, ge=1, le=64)
    redis_url: str = "redis://127.0.0.1:6380/0"
    state: Path = Path(".linnet")
    models: Path = Path("models.yaml")
    connect_timeout: float = Field(_USUAL.connect_s, gt=0)
    first_byte_timeout: float = Field(_USUAL.first_byte_s, gt=0)
    between_timeout: float = Field(_USUAL.between_s, gt=0)
    total_timeout: float = Field(_USUAL.total_s, gt=0)
    body_limit: int = Field(_USUAL.body_bytes, gt=0)
    drain_seconds: float = Field(_USUAL.drain_s, gt=0)
    stale_seconds: float = Field(_USUAL.stale_s, gt=0)


def load() -> Settings:
    """Read the environment and the file of models. Raises SettingsError with one line."""
    try:
        env = _Environment()  # type: ignore[call-arg,unused-ignore]
    except ValidationError as error:
        first = error.errors()[0]
        name = "LINNET_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{name}: {first['msg']}; set it right or unset it") from None
    try:
        open_redis(env.redis_url)
    except StoreError as error:
        raise SettingsError(f"LINNET_REDIS_URL: {error}") from None
    limits = Limits(
        connect_s=env.connect_timeout,
        first_byte_s=env.first_byte_timeout,
        between_s=env.between_timeout,
        total_s=env.total_timeout,
        body_bytes=env.body_limit,
        drain_s=env.drain_seconds,
        stale_s=env.stale_seconds,
    )
    return Settings(
        host=env.gateway_host,
        port=env.gateway_port,
        ops_port=env.ops_port,
        workers=env.workers,
        redis_url=env.redis_url,
        state=env.state,
        models=read_models(env.models),
        limits=limits,
    )


def read_models(path: Path) -> tuple[Split, ...]:
    """Read `models: {NAME: {engine, served_model, replicas: [url]}}` into static splits of generation 0."""
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}; name the file of models in LINNET_MODELS") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML ({str(error).splitlines()[0]}); mend the file") from None
    models = value.get("models") if isinstance(value, dict) else None
    if not isinstance(models, dict) or not models:
        raise SettingsError(f"{path}: no models; write models: {{NAME: {{engine, served_model, replicas: [url]}}}}")
    return tuple(_static(path, str(name), entry) for name, entry in models.items())


def _static(path: Path, name: str, entry: Any) -> Split:
    """One entry of the file."""
    where = f"{path}: models.{name}"
    if not isinstance(entry, dict) or set(entry) != {"engine", "served_model", "replicas"}:
        raise SettingsError(f"{where}: needs engine, served_model and replicas, and nothing else")
    replicas = entry["replicas"]
    if not isinstance(replicas, list) or not replicas:
        raise SettingsError(f"{where}.replicas: needs at least one base URL, such as http://127.0.0.1:8101")
    for url in replicas:
        check_replica(where, url)
    endpoint = Endpoint(str(entry["engine"]), str(entry["served_model"]), tuple(replicas))
    return Split(model=name, generation=0, baseline=endpoint)


def check_replica(where: str, url: Any) -> None:
    """Raise SettingsError unless `url` is a plain http base URL."""
    if not isinstance(url, str) or not _is_base_url(url):
        raise SettingsError(f"{where}.replicas: {url!r} is no base URL; write one such as http://127.0.0.1:8101")


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port  # a property that raises
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url and not parts.query and not parts.fragment
    return parts.scheme == "http" and bool(parts.hostname) and port != 0 and plain
