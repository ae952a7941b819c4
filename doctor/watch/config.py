"""The daemon's configuration: ``config.toml``, validated, every mistake with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doctor.llm.config import LlmSettings
from doctor.settings import SettingsError, Strict, laid_over, line_of, read, shipped, validated


class Discovery(Strict):
    runs: list[str]
    folders: list[str]
    workflow_db: bool
    queue: bool
    every_s: float = Field(gt=0)
    forget_days: float = Field(gt=0)
    max_runs: int = Field(ge=1)


class Polling(Strict):
    queue_s: float = Field(ge=1)
    queue_back_off_s: float = Field(ge=1)
    pool_s: float = Field(ge=5)
    disk_s: float = Field(ge=1)
    sweep_s: float = Field(gt=0)
    settle_s: float = Field(ge=0)


class Detections(Strict):
    stalled_s: float = Field(gt=0)
    unmatchable_s: float = Field(ge=0)
    sub_workflow_s: float = Field(gt=0)
    evictions: int = Field(ge=2)
    systemic_jobs: int = Field(ge=2)
    systemic_within_s: float = Field(gt=0)
    disk_horizon_s: float = Field(gt=0)


class Limits(Strict):
    readers: int = Field(ge=1, le=32)
    healers: int = Field(ge=0, le=32)
    nice: int = Field(ge=0, le=19)
    idle_io: bool
    free_space_mb: int = Field(ge=0)


class Metrics(Strict):
    enabled: bool
    port: int = Field(ge=1, le=65535)


class Notify(Strict):
    urls: list[str]
    urls_file: str
    events: list[str]
    per_hour: int = Field(ge=1)
    title: str
    body: str


class Log(Strict):
    level: str = Field(pattern="^(debug|info|warning|error)$")
    file: str


class Config(Strict):
    """The whole configuration; the defaults stand in ``service/config.toml`` alone."""

    discovery: Discovery
    polling: Polling
    detections: Detections
    limits: Limits
    metrics: Metrics
    notify: Notify
    log: Log
    llm: LlmSettings | Literal["off"]  # see doctor/llm/config.py, which reads the table by itself


def load_config(file: Path | None = None) -> Config:
    """The default configuration with the given file's values over it. Raises :class:`SettingsError` with all mistakes."""
    default = shipped("config.toml")
    values = read(default)
    if file is None:
        return _checked(values, default)
    return _checked(laid_over(values, read(file)), file)


_EVENTS = ("new", "waiting", "recovered", "escalated")


def _checked(values: dict[str, Any], file: Path) -> Config:
    config = validated(Config, values, file)
    text = file.read_text("utf-8")
    rows = [
        f"{file}:{line_of(text, ('notify', 'events'))}: notify.events: {name!r} is none of {', '.join(_EVENTS)}"
        for name in config.notify.events
        if name not in _EVENTS
    ]
    for key in ("title", "body"):
        try:
            getattr(config.notify, key).format(**dict.fromkeys(TEMPLATE_FIELDS, ""))
        except (KeyError, IndexError, ValueError) as problem:
            rows.append(
                f"{file}:{line_of(text, ('notify', key))}: notify.{key}: {problem} is no field; there are {', '.join(TEMPLATE_FIELDS)}"
            )
    if rows:
        raise SettingsError(rows)
    return config


TEMPLATE_FIELDS = ("event", "label", "run", "incident", "cause", "summary", "reason", "host")
