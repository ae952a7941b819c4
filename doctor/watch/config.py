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
    gone_s: float = Field(gt=0)
    evictions: int = Field(ge=2)
    systemic_jobs: int = Field(ge=2)
    systemic_within_s: float = Field(gt=0)
    disk_horizon_s: float = Field(gt=0)
    disk_trend_s: float = Field(gt=0)


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
    level: Literal["debug", "info", "warning", "error"]
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
        except (KeyError, IndexError, AttributeError, ValueError, TypeError) as problem:
            rows.append(
                f"{file}:{line_of(text, ('notify', key))}: notify.{key}: not a template ({problem}); "
                f"its fields are {', '.join(f'{{{name}}}' for name in TEMPLATE_FIELDS)}"
            )
    if rows:
        raise SettingsError(rows)
    return config


TEMPLATE_FIELDS = ("event", "label", "run", "incident", "cause", "summary", "reason", "host")


def lacking(config: Config) -> list[str]:
    """What a well-formed configuration asks for and this host cannot give."""
    from importlib.util import find_spec

    from doctor.watch.message import known_url, targets

    problems = []
    if config.metrics.enabled and find_spec("prometheus_client") is None:
        problems.append("metrics.enabled needs the extra `metrics`: pip install 'pegasus-doctor[metrics]'")
    urls, unreadable = targets(config.notify)
    if unreadable:
        problems.append(unreadable)
    if urls and find_spec("apprise") is None:
        problems.append("notify needs the extra `notify`: pip install 'pegasus-doctor[notify]'")
    elif urls:
        problems += [f"notify: URL {number} is none that apprise knows" for number, url in enumerate(urls, 1) if not known_url(url)]
    return problems
