"""The environment, parsed once into small frozen values; nothing else in the gateway reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from canary.core.arms import Split
from canary.storage.link import StoreError, open_redis
from gateway.errors import SettingsError
from gateway.pool.options import PoolOptions
from gateway.split import catalogue


@dataclass(frozen=True, slots=True)
class Limits:
    """How long, how large and how many, at most: `_s` is in seconds, `_bytes` in bytes."""

    head_s: float = 30.0  # for a request to arrive whole
    stall_s: float = 60.0  # for a client to take what was sent
    connect_s: float = 2.0
    first_byte_s: float = 60.0  # streams only: a whole answer's first byte is its last
    between_s: float = 60.0
    total_s: float = 600.0
    head_bytes: int = 32 * 1024
    headers: int = 100
    body_bytes: int = 12 * 1024 * 1024
    nesting: int = 64  # levels of a JSON body
    n_most: int = 128  # answers to one request: n, best_of
    list_most: int = 2048  # items of a prompt, an input, documents: OpenAI's own limit for embeddings
    answer_bytes: int = 64 * 1024 * 1024
    idle_s: float = 4.0  # below the 5 s after which vLLM's server closes an idle connection
    drain_s: float = 30.0
    stale_s: float = 60.0


_USUAL = Limits()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a worker is told. `models` are the static splits that hold until the store says otherwise.

    `access_log` is a file, "-" for standard error, "" for none; `otel_endpoint` is where traces go, "" for nowhere.
    """

    host: str
    port: int
    ops_port: int
    workers: int
    redis_url: str
    state: Path
    models: tuple[Split, ...]
    limits: Limits = _USUAL
    pools: Mapping[str, PoolOptions] = field(default_factory=dict)
    models_file: Path | None = None  # read again when it changes
    access_log: str = ""
    otel_endpoint: str = ""
    compiled: bool = True  # workers run the compiled copy, where there is one


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
    request_timeout: float = Field(_USUAL.head_s, gt=0)
    stall_timeout: float = Field(_USUAL.stall_s, gt=0)
    connect_timeout: float = Field(_USUAL.connect_s, gt=0)
    first_byte_timeout: float = Field(_USUAL.first_byte_s, gt=0)
    between_timeout: float = Field(_USUAL.between_s, gt=0)
    total_timeout: float = Field(_USUAL.total_s, gt=0)
    head_limit: int = Field(_USUAL.head_bytes, ge=1024)
    headers_limit: int = Field(_USUAL.headers, gt=0)
    body_limit: int = Field(_USUAL.body_bytes, gt=0)
    nesting_limit: int = Field(_USUAL.nesting, ge=8, le=512)
    n_limit: int = Field(_USUAL.n_most, gt=0)
    list_limit: int = Field(_USUAL.list_most, gt=0)
    drain_seconds: float = Field(_USUAL.drain_s, gt=0)
    stale_seconds: float = Field(_USUAL.stale_s, gt=0)
    access_log: str = ""
    otel_endpoint: str = ""
    compiled: bool = True

    def limits(self) -> Limits:
        """Return the limits as one value."""
        return Limits(
            head_s=self.request_timeout,
            stall_s=self.stall_timeout,
            connect_s=self.connect_timeout,
            first_byte_s=self.first_byte_timeout,
            between_s=self.between_timeout,
            total_s=self.total_timeout,
            head_bytes=self.head_limit,
            headers=self.headers_limit,
            body_bytes=self.body_limit,
            nesting=self.nesting_limit,
            n_most=self.n_limit,
            list_most=self.list_limit,
            drain_s=self.drain_seconds,
            stale_s=self.stale_seconds,
        )


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
    listed = catalogue.read(env.models)
    return Settings(
        host=env.gateway_host,
        port=env.gateway_port,
        ops_port=env.ops_port,
        workers=env.workers,
        redis_url=env.redis_url,
        state=env.state,
        models=listed.models,
        limits=env.limits(),
        pools=listed.pools,
        models_file=env.models,
        access_log=env.access_log,
        otel_endpoint=env.otel_endpoint,
        compiled=env.compiled,
    )
