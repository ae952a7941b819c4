"""What every action is: a name, a risk, validated parameters and a plan. Applying, undoing and verifying are shared."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from actions import _apply, _verify
from doctor.model import Incident
from doctor.repair import Applied, Caps, Check, Edit, Evidence, Failed, JobView, Plan, Risk, Runner, RunView, Skipped


class JobParams(BaseModel):
    """Parameters that every action takes: the job to start from ('' for the incident's own jobs)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str = Field(default="", max_length=512)


@dataclass(frozen=True, slots=True)
class Action:
    """One action as the loop sees it. ``always_ask`` actions are never carried out without a person's yes."""

    name: str
    summary: str
    risk: Risk
    params: type[JobParams]
    planner: Callable[[Incident, Any, RunView, Caps], Plan | Skipped]
    verifier: Callable[[Plan, Evidence], Check]
    always_ask: bool = False

    @classmethod
    def of(cls, module: ModuleType) -> Action:
        """The action that a module of this package declares."""
        return cls(
            module.NAME,
            module.SUMMARY,
            module.RISK,
            module.Params,
            module.plan,
            getattr(module, "verify", _verify.verify),
            getattr(module, "ALWAYS_ASK", False),
        )

    def plan(self, incident: Incident, params: dict[str, Any], view: RunView, caps: Caps) -> Plan | Skipped:
        """What the action would do; reads only."""
        try:
            checked = self.params(**params)
        except (ValidationError, TypeError) as problem:
            return Skipped(self.name, f"its parameters are not valid: {_first(problem)}")
        return self.planner(incident, checked, view, caps)

    def apply(self, plan: Plan, runner: Runner) -> Applied | Failed:
        """Does exactly what the plan lists, journaled; a second time changes nothing more."""
        return _apply.apply(plan, runner)

    def undo(self, applied: Applied, runner: Runner) -> Applied | Failed:
        """Puts everything back as it was before :meth:`apply`."""
        return _apply.undo(applied, runner)

    def verify(self, plan: Plan, evidence: Evidence) -> Check:
        """What later log evidence says of the repair."""
        return self.verifier(plan, evidence)


def _first(problem: Exception) -> str:
    if isinstance(problem, ValidationError):
        first = problem.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(problem)


def jobs_of(incident: Incident, params: JobParams, view: RunView) -> list[JobView]:
    """The jobs that a repair concerns: the named one and all others of the incident that the view knows."""
    names = {params.job, *incident.jobs} - {""}
    found = [job for job in view.jobs.values() if job.name in names]
    return sorted(found, key=lambda job: (job.name != params.job, job.workflow_dir, job.name))


def held_by_person(job: JobView, incident: Incident) -> bool:
    """Whether a person put the job on hold: such a hold is never released by a program."""
    if job.hold_code in (1, 15) or incident.diagnosis.cause == "policy/held-by-user":
        return True
    texts = [one.text for one in incident.diagnosis.evidence] + [one.text for one in incident.diagnosis.symptoms]
    return any("via condor_hold (by user" in text for text in texts)


def make(
    name: str,
    risk: Risk,
    incident: Incident,
    params: JobParams,
    summary: str,
    effect: str,
    undo: str,
    edits: tuple[Edit, ...] = (),
    **more: Any,
) -> Plan:
    """A plan with the fields that every action fills in the same way."""
    return Plan(
        name,
        incident.id,
        params.job or incident.diagnosis.culprit.job,
        params.model_dump(mode="json"),
        summary,
        effect,
        undo,
        risk,
        edits,
        **more,
    )


def command(*words: str) -> str:
    """A command line for a person to paste."""
    return shlex.join(words)


def count(number: int, noun: str) -> str:
    """``1 job``, ``3 jobs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
