"""What the local stack reads from the environment, once."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.environment import cache_dir


class LocalSettings(BaseSettings):
    """Folders and ports of the local stack; every name takes the prefix LINNET_."""

    model_config = SettingsConfigDict(env_prefix="LINNET_", frozen=True, extra="ignore")

    state: Path = Path(".linnet")
    model: str = "mathdocs"
    redis_url: str = ""
    store_port: int = 6380
    control_port: int = 8081
    gateway_port: int = 8080
    ops_port: int = 8082
    engine_port: int = 8101
    workers: int = 2

    @property
    def cache(self) -> Path:
        """Where engines' environment and models are kept."""
        return cache_dir()

    @property
    def store_url(self) -> str:
        """The store the stack speaks to: the user's own, else the embedded one."""
        return self.redis_url or f"redis://127.0.0.1:{self.store_port}/0"

    @property
    def control_url(self) -> str:
        """Where the control plane listens."""
        return f"http://127.0.0.1:{self.control_port}"

    @property
    def gateway_url(self) -> str:
        """Where apps connect, without /v1."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def logs(self) -> Path:
        """One log file a child."""
        return self.state / "logs"

    def environment(self) -> dict[str, str]:
        """The variables every child of the stack is given."""
        return {
            "LINNET_STATE": str(self.state.resolve()),
            "LINNET_CACHE": str(self.cache),
            "LINNET_REDIS_URL": self.store_url,
            "LINNET_CONTROL_PORT": str(self.control_port),
            "LINNET_GATEWAY_PORT": str(self.gateway_port),
            "LINNET_OPS_PORT": str(self.ops_port),
            "LINNET_WORKERS": str(self.workers),
            "LINNET_MODELS": str((self.state / "models.yaml").resolve()),
        }
