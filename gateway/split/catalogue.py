"""The file of models: which public models there are, where each one's baseline is served, how its replicas are used.

    models:
      support:
        engine: base
        served_model: base
        replicas: [http://127.0.0.1:8101]
        pool: {balance: affinity, slots: 64}     # all of gateway/pool/options.py; may be left out

The file says which models exist; the store says how the traffic of each is divided. What is wrong in it is one line:
the file, the line in it, the place, the mend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from canary.card.source import Source
from canary.card.source import read as read_yaml
from canary.core.arms import Endpoint, Split
from gateway.errors import SettingsError
from gateway.pool.options import PoolOptions

_LONGEST = 8 * 1024 * 1024  # characters
_MOST = 500_000  # values: thousands of models
_MEND = "name the file of models in LINNET_MODELS"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a file of models says: splits of generation 0, and each model's rules for its replicas."""

    models: tuple[Split, ...]
    pools: Mapping[str, PoolOptions] = field(default_factory=dict)


def is_base_url(url: object) -> bool:
    """Tell whether a replica can be reached by `url`: plain http, a host, no query."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port  # a property that raises
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url and not parts.query and not parts.fragment
    return parts.scheme == "http" and bool(parts.hostname) and port != 0 and plain


def _base_url(url: str) -> str:
    if not is_base_url(url):
        raise ValueError(f"{url!r} is no base URL; write one such as http://127.0.0.1:8101")
    return url


_Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Url = Annotated[str, AfterValidator(_base_url)]


class _Entry(BaseModel):
    """One model of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    engine: _Name
    served_model: _Name
    replicas: list[_Url] = Field(min_length=1, max_length=1000)
    pool: PoolOptions = PoolOptions()

    def split(self, model: str) -> Split:
        """Return the model's static baseline."""
        return Split(model, 0, Endpoint(self.engine, self.served_model, tuple(dict.fromkeys(self.replicas))))


class _File(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    models: dict[_Name, _Entry] = Field(min_length=1)


def read(path: Path) -> Catalogue:
    """Read the file of models. Raises SettingsError with one line."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}; {_MEND}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8 text; {_MEND}") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Catalogue:
    """Read the text of the file of models; `path` is for what is told. Raises SettingsError with one line."""
    source = read_yaml(text, longest=_LONGEST, most=_MOST)
    if source.faults:
        line, what = source.faults[0]
        raise SettingsError(f"{path}:{line}: {what}")
    try:
        file = _File.model_validate(source.value)
    except ValidationError as error:
        worst = min(error.errors(), key=lambda fault: fault["type"] not in _UNKNOWN)  # a name misspelt is missing too
        raise SettingsError(f"{path}:{_told(source, worst)}") from None
    models = tuple(entry.split(name) for name, entry in file.models.items())
    return Catalogue(models, {name: entry.pool for name, entry in file.models.items()})


def _told(source: Source, error: ErrorDetails) -> str:
    """Say what is wrong: the line, the place, the mend."""
    place = tuple(part for part in error["loc"] if part != "[key]")
    where = ".".join(str(part) for part in place) or "the file"
    return f"{source.line(place)}: {where}: {_mend(error)}"


def _mend(error: ErrorDetails) -> str:
    kind, message = error["type"], str(error["msg"]).removeprefix("Value error, ")
    if kind in _MENDS:
        return _MENDS[kind]
    if kind == "value_error":
        return message
    return f"{message[:1].lower()}{message[1:]}, not {_short(error['input'])}; set it right or leave it out"


_EMPTY = "is empty or missing; write models: {NAME: {engine, served_model, replicas: [url]}}"
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MENDS = {
    **dict.fromkeys(_UNKNOWN, "is no name that is known here; take it out or spell it right"),
    "missing": "is missing; write it down (a model needs engine, served_model and replicas)",
    "too_short": "is empty; write down at least one",
    "model_type": _EMPTY,
    "model_attributes_type": _EMPTY,
    "dict_type": _EMPTY,
    "string_type": "must be text; put it in quotes",
}


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 60 else f"{shown[:57]}..."  # noqa: PLR2004
