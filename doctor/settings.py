"""Files of settings: TOML, laid over the values as shipped, and validated with file and line of every mistake."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from doctor.errors import DoctorError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class SettingsError(DoctorError):
    """A file of settings is wrong; ``problems`` has every mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Strict(BaseModel):
    """A table of settings: no unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Model = TypeVar("Model", bound=Strict)


def shipped(name: str) -> Path:
    """A file of ``service/`` as shipped: in the wheel inside the package, in a checkout beside it."""
    here = Path(__file__).resolve().parent
    packed = here / "_service" / name
    return packed if packed.is_file() else here.parent / "service" / name


def user_config(environ: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_CONFIG_HOME/pegasus-doctor/config.toml``; a relative ``XDG_CONFIG_HOME`` counts as unset (its specification)."""
    base = environ.get("XDG_CONFIG_HOME", "")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return (Path(base) if base.startswith("/") else home / ".config") / "pegasus-doctor" / "config.toml"


def in_force(file: Path | None, name: str) -> Path | None:
    """The file that was named, else the user's own file of that name beside ``config.toml``; None when there is neither."""
    if file is not None:
        return file
    own = user_config().with_name(name)
    return own if own.is_file() else None


def read(file: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises :class:`DoctorError` where it cannot be read, :class:`SettingsError` where it is no TOML."""
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
        return values
    except OSError as problem:
        raise DoctorError(problem.strerror or "cannot be read", file=str(file)) from problem
    except UnicodeDecodeError as problem:
        raise DoctorError("not UTF-8 text", file=str(file)) from problem
    except tomllib.TOMLDecodeError as problem:
        found = re.search(r"\(at line (\d+)", str(problem))
        raise SettingsError([f"{file}:{found[1] if found else 1}: not valid TOML: {problem}"]) from problem


def laid_over(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The values of ``base`` with those of ``over`` in their place, table by table."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = laid_over(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def validated(model: type[Model], values: dict[str, Any], file: Path, table: tuple[str, ...] = ()) -> Model:
    """The values as a model; ``table`` is where in the file they stand. Raises :class:`SettingsError` with all mistakes."""
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        text = file.read_text("utf-8")
        rows = []
        for error in problem.errors():
            path = (*table, *(str(part) for part in error["loc"]))
            rows.append(f"{file}:{line_of(text, path)}: {'.'.join(path)}: {_WORDS.get(error['type']) or _said(error['msg'])}")
        raise SettingsError(rows) from problem


_WORDS = {"extra_forbidden": "unknown key", "model_type": "must be a table", "dict_type": "must be a table", "list_type": "must be a list"}


def _said(text: str) -> str:
    for before, after in (("Input should be a valid ", "must be a "), ("Input should be ", "must be ")):
        text = text.replace(before, after)
    return text.replace("must be a integer", "must be an integer")


def line_of(text: str, path: tuple[str, ...]) -> int:
    """The line of a key (or of the nearest table around it) in a TOML text."""
    table: tuple[str, ...] = ()
    best, depth = 1, 0
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        pair = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        if head and not pair:
            table = _parts(head[1])
            here = table
        elif pair:
            here = (*table, *_parts(pair[1]))
        else:
            continue
        if here == path[: len(here)] and len(here) > depth:
            best, depth = number, len(here)
    return best


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
