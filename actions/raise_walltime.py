"""Allow the job to run longer. Plain HTCondor knows several limits; every one that the job has is raised."""

from __future__ import annotations

import math
import re

from pydantic import Field

from actions._action import JobParams, count, held_by_person, jobs_of, make
from actions._paths import Refused
from actions._resource import queue_edits
from actions._submit import Lines, Submit
from doctor.model import Incident
from doctor.repair import Caps, Edit, JobView, Plan, QueueEdit, Risk, RunView, Skipped

NAME = "raise-walltime"
SUMMARY = "Allow the job to run longer, in the submit file and in the queue."
RISK = Risk.COSTLY

_DURATIONS = {"allowed_job_duration": "AllowedJobDuration", "allowed_execute_duration": "AllowedExecuteDuration"}
_KICKSTART = re.compile(r"(pegasus-kickstart(?:(?!\s-T\s)[^\n])*?\s-k\s+)(\d+)(?=\s)")
_ARGUMENTS = re.compile(r"((?:^|\s)-k\s+)(\d+)(?=\s)")
_WALLTIME = re.compile(r'(WALLTIME\s*==\s*\\?"?)(\d+:\d\d:\d\d)')
_RUNNING_FOR = re.compile(r"((?:JobCurrentStartDate|JobCurrentStartExecutingDate|JobStartDate|EnteredCurrentStatus)\s*\)*\s*>=?\s*)(\d+)")


class Params(JobParams):
    """``at_least_s``: how long the job has to be allowed at least, where that is known."""

    at_least_s: int = Field(default=0, ge=0, le=10_000_000)


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Raise each limit of each of the incident's jobs by the policy's factor, up to its cap."""
    edits: list[Edit] = []
    queue: list[QueueEdit] = []
    changes: list[str] = []
    reasons: list[str] = []
    rescue = False
    for job in jobs_of(incident, params, view):
        limits = _Limits(params.at_least_s, caps)
        try:
            if held_by_person(job, incident):
                raise Refused(f"{job.name} was put on hold by a person")
            made, attributes, in_place = limits.of(job)
        except Refused as problem:
            reasons.append(str(problem))
            continue
        if not made:
            reasons.append(f"{job.name}: {limits.why}")
            continue
        edits += made
        changes += [f"{job.name}: {text}" for text in limits.changes]
        if in_place:
            queue += queue_edits(job, tuple(attributes))
        rescue = rescue or not (job.queue_ids and in_place)
    if not edits:
        return Skipped(NAME, "; ".join(reasons) or "the job is not known in this run")
    return make(
        NAME, RISK, incident, params,
        f"Allow more time: {'; '.join(changes[:5])}",
        f"{count(len(edits), 'file')} changed; the jobs may run longer, now and in later retries.",
        "The files get their old bytes back, a job in the queue its old limits.",
        tuple(edits), queue=tuple(queue), rescue=rescue,
    )  # fmt: skip


class _Limits:
    """The time limits of one job, as they are raised."""

    def __init__(self, at_least: int, caps: Caps) -> None:
        self.at_least = at_least
        self.caps = caps
        self.changes: list[str] = []
        self.why = "it has no time limit that could be raised"

    def of(self, job: JobView) -> tuple[list[Edit], list[tuple[str, str]], bool]:
        """(edits, queue attributes, whether a job in the queue gets along without a new submission)."""
        submit = Submit(job.submit_file)
        attributes: list[tuple[str, str]] = []
        for key, attribute in _DURATIONS.items():
            value = submit.get(key)
            if value is None:
                continue
            if not value.isdigit():
                raise Refused(f"{submit.path}: {key} = {value} is an expression; it is left to a person")
            if new := self._raised(int(value), key):
                submit.set(key, str(new))
                attributes.append((attribute, str(new)))
        attributes += self._periodic(submit)
        resubmit = self._batch(submit) or self._in(submit, "arguments", _ARGUMENTS)
        edits = [edit] if (edit := submit.edit()) else []
        if job.script:
            script = Lines(job.script)
            text = _KICKSTART.sub(self._replace, script.text)
            script.lines = [text]
            edits += [made] if (made := script.edit()) else []
        return edits, attributes, not resubmit

    def _raised(self, current: int, what: str) -> int:
        """The new limit in seconds, 0 when the policy allows no more."""
        if current >= self.caps.walltime_s:
            self.why = f"{what} is {current} s already; the policy allows at most {self.caps.walltime_s}"
            return 0
        new = min(max(math.ceil(current * self.caps.growth), math.ceil(self.at_least * 1.25), current + 1), self.caps.walltime_s)
        self.changes.append(f"{what} {current} -> {new} s")
        return new

    def _replace(self, found: re.Match[str]) -> str:
        new = self._raised(int(found[2]), "kickstart's limit")
        return f"{found[1]}{new or found[2]}"

    def _in(self, submit: Submit, key: str, pattern: re.Pattern[str]) -> bool:
        """Kickstart's ``-k`` in the arguments, before the program's own; True when changed."""
        value = submit.get(key)
        if value is None or "kickstart" not in f"{submit.get('executable') or ''} {value}":
            return False
        own, stamp, rest = value.partition(" -T ")  # Pegasus ends kickstart's own options with -L and -T
        head = pattern.sub(self._replace, own, count=1)
        if head == own:
            return False
        submit.set(key, head + stamp + rest)
        return True

    def _batch(self, submit: Submit) -> bool:
        """Limits handed to a batch system; True when changed."""
        changed = False
        runtime = submit.get("pegasus_job_runtime") or ""
        used = "$(pegasus_job_runtime)" in (submit.get("batch_runtime") or "") and runtime.isdigit() and int(runtime) > 0
        if used and (new := self._raised(int(runtime), "pegasus_job_runtime")):
            submit.set("pegasus_job_runtime", str(new))
            changed = True
        key = "+remote_cerequirements"
        if requirements := submit.get(key):
            text = _WALLTIME.sub(self._clock, requirements)
            if text != requirements:
                submit.set(key, text)
                changed = True
        return changed

    def _clock(self, found: re.Match[str]) -> str:
        hours, minutes, seconds = (int(part) for part in found[2].split(":"))
        new = self._raised(hours * 3600 + minutes * 60 + seconds, "WALLTIME")
        return found[0] if not new else f"{found[1]}{new // 3600:02d}:{new // 60 % 60:02d}:{new % 60:02d}"

    def _periodic(self, submit: Submit) -> list[tuple[str, str]]:
        """A ``periodic_hold`` that looks at how long the job has run."""
        value = submit.get("periodic_hold")
        if not value or "JobStatus == 2" not in value:
            return []
        text = _RUNNING_FOR.sub(lambda found: f"{found[1]}{self._raised(int(found[2]), 'periodic_hold') or found[2]}", value)
        if text == value:
            return []
        submit.set("periodic_hold", text)
        return [("PeriodicHold", text)]
