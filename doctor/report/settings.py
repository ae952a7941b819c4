"""Settings for people: TOML that could be used again, without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from doctor.watch.config import Config
from doctor.watch.message import masked


def shown(config: Config) -> dict[str, Any]:
    """All values, secrets masked."""
    values = config.model_dump()
    values["notify"]["urls"] = [masked(url) for url in values["notify"]["urls"]]
    return values


def toml(values: dict[str, Any], default: dict[str, Any], table: str = "") -> Iterator[str]:
    """The values as lines of TOML; what differs from the default says so."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict) and value and not _inline(value)}
    for key, value in values.items():
        if key not in tables:
            yours = "" if value == default.get(key) else "  # not the default"
            yield f"{key} = {_value(value)}{yours}"
    for key, value in tables.items():
        name = f"{table}.{key}" if table else key
        yield ""
        yield f"[{name}]"
        known = default.get(key)
        yield from toml(value, known if isinstance(known, dict) else {}, name)


def _inline(value: dict[str, Any]) -> bool:
    """Whether it is data rather than a table of settings: its keys are free text."""
    return any(not key.replace("_", "").isalnum() for key in value)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
