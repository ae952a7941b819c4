"""What the doctor may do: ``policy.toml``, validated, every mistake with file and line."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from doctor.errors import DoctorError
from doctor.repair import Caps, Risk
from doctor.run.reader import Run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Mode = Literal["observe", "ask", "act"]
_PLACES = ("{submit_dir}", "{workflow_dir}")


class PolicyError(DoctorError):
    """The policy file is wrong; ``problems`` has every mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(_Strict):
    confidence: float = Field(ge=0, le=1)
    risk: Literal["observe", "reversible", "costly", "destructive"]
    attempts_per_incident: int = Field(ge=0, le=1000)
    attempts_per_run: int = Field(ge=0, le=100_000)
    cool_down_s: float = Field(ge=0)


class PolicyCaps(_Strict):
    memory_mb: int = Field(ge=1)
    disk_mb: int = Field(ge=1)
    walltime_s: int = Field(ge=1)
    growth: float = Field(gt=1, le=100)


class Paths(_Strict):
    roots: list[str]


class Systemic(_Strict):
    jobs: int = Field(ge=2)


class RescueLimits(_Strict):
    start_within_s: float = Field(gt=0)
    back_off_s: float = Field(ge=0)
    back_off_max_s: float = Field(ge=0)


class Verify(_Strict):
    poll_s: float = Field(gt=0)
    timeout_s: float = Field(gt=0)


class ActionPolicy(_Strict):
    mode: Mode | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    attempts: int | None = Field(default=None, ge=0)


class Policy(_Strict):
    """The whole policy. Made by :func:`load_policy`; the defaults stand in ``service/policy.toml`` alone."""

    mode: Mode
    limits: Limits
    caps: PolicyCaps
    paths: Paths
    systemic: Systemic
    rescue: RescueLimits
    verify: Verify
    actions: dict[str, ActionPolicy]

    def mode_of(self, action: str) -> Mode:
        """The stricter of the general mode and the action's own, where observe is strictest.

        An override may loosen ``ask`` to ``act`` for one action, never ``observe``.
        """
        own = self.actions.get(action)
        if own is None or own.mode is None or self.mode == "observe":
            return self.mode
        return own.mode

    def confidence_of(self, action: str) -> float:
        own = self.actions.get(action)
        return own.confidence if own and own.confidence is not None else self.limits.confidence

    def attempts_of(self, action: str) -> int | None:
        own = self.actions.get(action)
        return own.attempts if own else None

    @property
    def risk(self) -> Risk:
        return Risk(self.limits.risk)

    def action_caps(self) -> Caps:
        return Caps(self.caps.memory_mb, self.caps.disk_mb, self.caps.walltime_s, self.caps.growth)

    def roots(self, run: Run) -> tuple[Path, ...]:
        """The folders in which files may be changed for this run, resolved."""
        top = list(run.lineage())[-1]
        places: list[Path] = []
        for entry in self.paths.roots:
            if entry == "{submit_dir}":
                places.append(top.directory.resolve())
            elif entry == "{workflow_dir}":
                folder = workflow_dir(top)
                places += [folder] if folder else []
            else:
                places.append(Path(os.path.realpath(os.path.expanduser(entry))))
        return tuple(dict.fromkeys(places))


def workflow_dir(run: Run) -> Path | None:
    """The folder of the abstract workflow, when it is plain that it belongs to this run.

    The name comes from the run directory, which is not to be trusted: the submit directory must lie
    below it, it must be owned by the same user, and it is never ``/`` or somebody's home.
    """
    recorded = run.identity.dax
    if not recorded.startswith("/"):
        return None
    folder = Path(os.path.realpath(run.paths.local(recorded).parent))
    submit = run.directory.resolve()
    homes = {Path.home().resolve(), Path(os.path.realpath("/home")), Path(os.path.realpath("/root")), Path("/"), Path("/tmp")}  # noqa: S108
    if folder not in submit.parents or folder in homes or folder.parent == Path("/home"):
        return None
    try:
        return folder if folder.stat().st_uid == submit.stat().st_uid else None
    except OSError:
        return None


def default_policy_file() -> Path:
    """``policy.toml`` as shipped: in the wheel beside the package, in a checkout below ``service``."""
    here = Path(__file__).resolve().parents[1]
    packed = here / "_service" / "policy.toml"
    return packed if packed.is_file() else here.parent / "service" / "policy.toml"


def load_policy(file: Path | None = None) -> Policy:
    """The default policy with the given file's values over it. Raises :class:`PolicyError` with all mistakes."""
    values = _read(default_policy_file())
    if file is None:
        return _checked(values, default_policy_file())
    return _checked(_merge(values, _read(file)), file)


def _read(file: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
        return values
    except OSError as problem:
        raise DoctorError(problem.strerror or "cannot be read", file=str(file)) from problem
    except UnicodeDecodeError as problem:
        raise DoctorError("not UTF-8 text", file=str(file)) from problem
    except tomllib.TOMLDecodeError as problem:
        found = re.search(r"\(at line (\d+)", str(problem))
        raise PolicyError([f"{file}:{found[1] if found else 1}: not valid TOML: {problem}"]) from problem


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _checked(values: dict[str, Any], file: Path) -> Policy:
    try:
        policy = Policy.model_validate(values)
    except ValidationError as problem:
        text = file.read_text("utf-8")
        rows = []
        for error in problem.errors():
            path = tuple(str(part) for part in error["loc"])
            word = "unknown key" if error["type"] == "extra_forbidden" else error["msg"]
            rows.append(f"{file}:{_line_of(text, path)}: {'.'.join(path)}: {word}")
        raise PolicyError(rows) from problem
    rows = []
    text = file.read_text("utf-8")
    known = _known_actions()
    rows += [
        f"{file}:{_line_of(text, ('actions', name))}: actions.{name}: no such action; known: {', '.join(sorted(known))}"
        for name in policy.actions
        if name not in known
    ]
    for entry in policy.paths.roots:
        if entry not in _PLACES and not entry.startswith(("/", "~/")):
            rows.append(
                f"{file}:{_line_of(text, ('paths', 'roots'))}: paths.roots: {entry!r} is neither absolute nor one of {', '.join(_PLACES)}"
            )
    if rows:
        raise PolicyError(rows)
    return policy


def _known_actions() -> set[str]:
    from doctor.diagnose.library import load

    return set(load().actions)


def _line_of(text: str, path: tuple[str, ...]) -> int:
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
