"""The daemon's configuration: ``config.toml``, validated, every mistake with file and line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from doctor.errors import DoctorError
from doctor.llm.config import LlmSettings
from doctor.loop.policy import _line_of, _merge

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class ConfigError(DoctorError):
    """The configuration is wrong; the message has every mistake on a line of its own."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Discovery(_Strict):
    runs: list[str]
    folders: list[str]
    workflow_db: bool
    queue: bool
    every_s: float = Field(gt=0)
    forget_days: float = Field(gt=0)
    max_runs: int = Field(ge=1)


class Polling(_Strict):
    queue_s: float = Field(ge=1)
    queue_back_off_s: float = Field(ge=1)
    pool_s: float = Field(ge=5)
    disk_s: float = Field(ge=1)
    sweep_s: float = Field(gt=0)
    settle_s: float = Field(ge=0)


class Detections(_Strict):
    stalled_s: float = Field(gt=0)
    unmatchable_s: float = Field(ge=0)
    sub_workflow_s: float = Field(gt=0)
    evictions: int = Field(ge=2)
    systemic_jobs: int = Field(ge=2)
    systemic_within_s: float = Field(gt=0)
    disk_horizon_s: float = Field(gt=0)


class Limits(_Strict):
    readers: int = Field(ge=1, le=32)
    healers: int = Field(ge=0, le=32)
    nice: int = Field(ge=0, le=19)
    idle_io: bool
    free_space_mb: int = Field(ge=0)


class Metrics(_Strict):
    enabled: bool
    port: int = Field(ge=1, le=65535)


class Notify(_Strict):
    urls: list[str]
    urls_file: str
    events: list[str]
    per_hour: int = Field(ge=1)
    title: str
    body: str


class Log(_Strict):
    level: str = Field(pattern="^(debug|info|warning|error)$")
    file: str


class Config(_Strict):
    """The whole configuration; the defaults stand in ``service/config.toml`` alone."""

    discovery: Discovery
    polling: Polling
    detections: Detections
    limits: Limits
    metrics: Metrics
    notify: Notify
    log: Log
    llm: LlmSettings | Literal["off"]  # see doctor/llm/config.py, which reads the table by itself


def default_config_file() -> Path:
    """``config.toml`` as shipped: in the wheel beside the package, in a checkout below ``service``."""
    here = Path(__file__).resolve().parents[2]
    packed = here / "doctor" / "_service" / "config.toml"
    return packed if packed.is_file() else here / "service" / "config.toml"


def user_config_file() -> Path:
    """``$XDG_CONFIG_HOME/pegasus-doctor/config.toml``."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "pegasus-doctor" / "config.toml"


def load_config(file: Path | None = None) -> Config:
    """The default configuration with the given file's values over it. Raises :class:`ConfigError` with all mistakes."""
    default = default_config_file()
    values = _read(default)
    if file is None:
        return _checked(values, default)
    return _checked(_merge(values, _read(file)), file)


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
        return found
    except OSError as problem:
        raise DoctorError(problem.strerror or "cannot be read", file=str(file)) from problem
    except UnicodeDecodeError as problem:
        raise DoctorError("not UTF-8 text", file=str(file)) from problem
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(f"{file}: not valid TOML: {problem}") from problem


_EVENTS = ("new", "waiting", "recovered", "escalated")


def _checked(values: dict[str, Any], file: Path) -> Config:
    text = file.read_text("utf-8")
    try:
        config = Config.model_validate(values)
    except ValidationError as problem:
        rows = []
        for error in problem.errors():
            path = tuple(str(part) for part in error["loc"])
            word = "unknown key" if error["type"] == "extra_forbidden" else error["msg"]
            rows.append(f"{file}:{_line_of(text, path)}: {'.'.join(path)}: {word}")
        raise ConfigError("\n".join(rows)) from problem
    rows = [
        f"{file}:{_line_of(text, ('notify', 'events'))}: notify.events: {name!r} is none of {', '.join(_EVENTS)}"
        for name in config.notify.events
        if name not in _EVENTS
    ]
    for key in ("title", "body"):
        try:
            getattr(config.notify, key).format(**dict.fromkeys(TEMPLATE_FIELDS, ""))
        except (KeyError, IndexError, ValueError) as problem:
            rows.append(
                f"{file}:{_line_of(text, ('notify', key))}: notify.{key}: {problem} is no field; there are {', '.join(TEMPLATE_FIELDS)}"
            )
    if rows:
        raise ConfigError("\n".join(rows))
    return config


TEMPLATE_FIELDS = ("event", "label", "run", "incident", "cause", "summary", "reason", "host")
