"""What the doctor may do: ``policy.toml``, validated, every mistake with file and line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doctor.repair import Caps, Risk
from doctor.run.reader import Run
from doctor.settings import SettingsError, Strict, laid_over, line_of, read, shipped, validated

Mode = Literal["observe", "ask", "act"]
_PLACES = ("{submit_dir}", "{workflow_dir}")


class Limits(Strict):
    confidence: float = Field(ge=0, le=1)
    risk: Literal["observe", "reversible", "costly", "destructive"]
    attempts_per_incident: int = Field(ge=0, le=1000)
    attempts_per_run: int = Field(ge=0, le=100_000)
    cool_down_s: float = Field(ge=0)


class PolicyCaps(Strict):
    memory_mb: int = Field(ge=1)
    disk_mb: int = Field(ge=1)
    walltime_s: int = Field(ge=1)
    growth: float = Field(gt=1, le=100)


class Paths(Strict):
    roots: list[str]


class Systemic(Strict):
    jobs: int = Field(ge=2)
    within_s: float = Field(gt=0)


class RescueLimits(Strict):
    start_within_s: float = Field(gt=0)
    back_off_s: float = Field(ge=0)
    back_off_max_s: float = Field(ge=0)


class Verify(Strict):
    poll_s: float = Field(gt=0)
    timeout_s: float = Field(gt=0)


class ActionPolicy(Strict):
    mode: Mode | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    attempts: int | None = Field(default=None, ge=0)


class Policy(Strict):
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
    """``policy.toml`` as shipped."""
    return shipped("policy.toml")


def load_policy(file: Path | None = None) -> Policy:
    """The default policy with the given file's values over it. Raises :class:`SettingsError` with all mistakes."""
    values = read(default_policy_file())
    if file is None:
        return _checked(values, default_policy_file())
    return _checked(laid_over(values, read(file)), file)


def _checked(values: dict[str, Any], file: Path) -> Policy:
    policy = validated(Policy, values, file)
    rows = []
    text = file.read_text("utf-8")
    known = _known_actions()
    rows += [
        f"{file}:{line_of(text, ('actions', name))}: actions.{name}: no such action; known: {', '.join(sorted(known))}"
        for name in policy.actions
        if name not in known
    ]
    for entry in policy.paths.roots:
        if entry not in _PLACES and not entry.startswith(("/", "~/")):
            rows.append(
                f"{file}:{line_of(text, ('paths', 'roots'))}: paths.roots: {entry!r} is neither absolute nor one of {', '.join(_PLACES)}"
            )
    if rows:
        raise SettingsError(rows)
    return policy


def _known_actions() -> set[str]:
    from doctor.diagnose.library import load

    return set(load().actions)
