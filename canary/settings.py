"""The control plane's environment, read once."""

from __future__ import annotations

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from canary.errors import Usage


class Settings(BaseSettings):
    """Each field is an environment variable with the prefix LINNET_."""

    model_config = SettingsConfigDict(env_prefix="LINNET_", frozen=True)

    redis_url: str = "redis://127.0.0.1:6380/0"
    control_host: str = "127.0.0.1"
    control_port: int = Field(default=8081, ge=0, le=65535)
    look_seconds: float = Field(default=1.0, gt=0, le=60)
    lease_ms: int = Field(default=3000, ge=200, le=60_000)


def settings() -> Settings:
    """Read the environment. Raises Usage with one line."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "LINNET_" + "_".join(str(part) for part in first["loc"]).upper()
        raise Usage(f"{name}={first.get('input')}: {first['msg']}; mend the environment") from None
