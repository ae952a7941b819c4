"""The guards: small functions that each say allow, ask or deny. The strictest answer wins.

An approval (or ``--yes``) answers ``ask`` and nothing else; no guard is ever skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from doctor.loop.policy import Policy
from doctor.loop.records import plain
from doctor.model import Incident
from doctor.repair import Decision, GuardAnswer, Plan, Risk

_STRICTNESS = {Decision.ALLOW: 0, Decision.ASK: 1, Decision.DENY: 2}
_RISKS = [Risk.OBSERVE, Risk.REVERSIBLE, Risk.COSTLY, Risk.DESTRUCTIVE]
_COMMANDS = frozenset({"pegasus-plan", "pegasus-run", "pegasus-remove", "condor_submit", "condor_qedit", "condor_release"})

#: Causes whose limit HTCondor itself measured: a larger request is another repair. For all others the
#: same action again, with whatever number, is the same repair again.
MEASURED = frozenset({"resources/memory-exceeded-hold", "resources/disk-exceeded-hold", "resources/walltime-exceeded-hold"})


@dataclass(frozen=True, slots=True)
class History:
    """What happened before, and what surrounds the plan: everything that a guard may look at besides plan and policy."""

    now: float
    attempts: int  # repairs carried out for this incident
    run_attempts: int  # repairs carried out for this run
    last_attempt: float  # when this incident was last acted on, 0 for never
    tried: frozenset[str]  # keys of repairs that were carried out for this fingerprint
    tried_actions: tuple[str, ...]
    maturity: str  # of the rule that decided: draft, test, stable
    roots: tuple[Path, ...]
    queue_ids: frozenset[str]  # jobs of this run in the queue
    active: bool | None  # DAGMan is in the queue, proven gone, or unknown
    rescue_blocked: str = ""  # why no rescue could follow, '' when it could
    burst: int | None = None  # the most jobs of the incident that failed in the time that counts as one; None: all of them
    always_ask: bool = False  # the action is never carried out without a person's yes


Guard = Callable[[Plan, Incident, History, Policy], GuardAnswer]


def repair_key(plan: Plan, cause: str) -> str:
    """Identifies "the same repair": the action and the job, for measured limits also what is asked for."""
    what: list[object] = [plan.action, plan.job]
    if cause in MEASURED:
        what += [plain(plan.edits), plain([edit.attributes for edit in plan.queue])]
    elif plan.action == "retry":  # after a longer pause it is another repair; the attempts bound it
        what.append(plan.params.get("attempt", 0))
    elif plan.action in ("update-replica", "add-input-file"):
        what.append(plain(plan.params))
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def mode(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """Observe denies, ask asks, act allows; an action may have a mode of its own."""
    chosen = policy.mode_of(plan.action)
    if chosen == "observe":
        return GuardAnswer("mode", Decision.DENY, "the policy's mode is observe: diagnose, change nothing")
    if chosen == "ask":
        return GuardAnswer("mode", Decision.ASK, f"the policy asks before {plan.action}")
    return GuardAnswer("mode", Decision.ALLOW)


def maturity(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """A draft rule never acts, one in test asks, a stable one may act."""
    by = incident.diagnosis.decided_by
    if incident.diagnosis.by_model:
        return GuardAnswer("maturity", Decision.ASK, f"{by} is a model's opinion; a person decides")
    if history.maturity == "draft":
        return GuardAnswer("maturity", Decision.DENY, f"{by} is a draft rule: it only reports")
    if history.maturity != "stable":
        return GuardAnswer("maturity", Decision.ASK, f"{by} is still being tested")
    return GuardAnswer("maturity", Decision.ALLOW)


def risk(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """Nothing above the policy's ceiling; what may lose data is always asked."""
    if _RISKS.index(plan.risk) > _RISKS.index(policy.risk):
        return GuardAnswer("risk", Decision.DENY, f"{plan.action} is {plan.risk.value}; the policy's ceiling is {policy.limits.risk}")
    if plan.risk is Risk.DESTRUCTIVE or history.always_ask:
        return GuardAnswer("risk", Decision.ASK, f"{plan.action} is always asked")
    return GuardAnswer("risk", Decision.ALLOW)


def confidence(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """Below the floor a diagnosis only advises."""
    floor, have = policy.confidence_of(plan.action), incident.diagnosis.confidence
    if have < floor:
        return GuardAnswer("confidence", Decision.DENY, f"confidence {have:.2f} is below the floor of {floor:.2f}")
    return GuardAnswer("confidence", Decision.ALLOW)


def attempts(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """Bounded attempts for one problem, one action and one run."""
    limits = policy.limits
    if history.attempts >= limits.attempts_per_incident:
        return GuardAnswer("attempts", Decision.DENY, f"{history.attempts} repairs were tried for this problem, the policy's limit")
    if history.run_attempts >= limits.attempts_per_run:
        return GuardAnswer("attempts", Decision.DENY, f"{history.run_attempts} repairs were tried for this run, the policy's limit")
    own = policy.attempts_of(plan.action)
    if own is not None and history.tried_actions.count(plan.action) >= own:
        return GuardAnswer("attempts", Decision.DENY, f"the policy allows {plan.action} {own} times for one problem")
    return GuardAnswer("attempts", Decision.ALLOW)


def cool_down(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """A pause between two repairs of one problem."""
    wait = history.last_attempt + policy.limits.cool_down_s - history.now
    if history.last_attempt and wait > 0:
        return GuardAnswer("cool-down", Decision.DENY, f"the last repair of this problem is too recent; {wait:.0f} s to go")
    return GuardAnswer("cool-down", Decision.ALLOW)


def same_again(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """A repair after which the same failure came back is never tried twice."""
    if repair_key(plan, incident.diagnosis.cause) in history.tried:
        return GuardAnswer(
            "same-again", Decision.DENY, f"{plan.action} was tried for {plan.job or 'this run'} and the same failure came back"
        )
    return GuardAnswer("same-again", Decision.ALLOW)


def caps(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """No request above the caps, whatever the action made of them."""
    limits = {
        "memory_mb": policy.caps.memory_mb, "request_memory": policy.caps.memory_mb, "requestmemory": policy.caps.memory_mb,
        "disk_mb": policy.caps.disk_mb, "walltime_s": policy.caps.walltime_s, "allowedjobduration": policy.caps.walltime_s,
        "requestdisk": policy.caps.disk_mb * 1024,
    }  # fmt: skip
    asked = {str(key).lower(): value for key, value in plan.params.items()}
    asked.update({key.lower(): value for edit in plan.queue for key, value in edit.attributes})
    for name, value in asked.items():
        if name in limits and _number(value) > limits[name]:
            return GuardAnswer("caps", Decision.DENY, f"{name} {value} is above the policy's cap of {limits[name]}")
    return GuardAnswer("caps", Decision.ALLOW)


def paths(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """Every edit, with all links resolved, lies inside the allowed roots."""
    for edit in plan.edits:
        problem = outside(edit.path, history.roots)
        if problem:
            return GuardAnswer("paths", Decision.DENY, problem)
    return GuardAnswer("paths", Decision.ALLOW)


def outside(path: str, roots: tuple[Path, ...]) -> str:
    """Why a path must not be changed; empty when it may."""
    if not path.startswith("/") or "\x00" in path or ".." in Path(path).parts:
        return f"{path!r} is not a plain absolute path"
    real = Path(os.path.realpath(path))
    if not any(root == real or root in real.parents for root in roots):
        return f"{path} leads outside the allowed folders ({', '.join(str(root) for root in roots) or 'none'})"
    if os.path.islink(path) and not any(root in Path(os.path.abspath(path)).parents for root in roots):
        return f"{path} is a link outside the allowed folders"
    return ""


def commands(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """Only Pegasus' and HTCondor's own tools are run, and only this run's jobs are touched in the queue."""
    for words in plan.argv:
        tool = words[3:4] if words[:2] == ("env", "-C") else words[:1]  # `env -C FOLDER TOOL`: the tool in a folder
        if not tool or os.path.basename(tool[0]) not in _COMMANDS:
            return GuardAnswer(
                "commands", Decision.DENY, f"{(tool or words or ('an empty command',))[0]} is not a tool that the doctor runs"
            )
    for edit in plan.queue:
        if edit.job_id not in history.queue_ids:
            return GuardAnswer("commands", Decision.DENY, f"job {edit.job_id} is not in the queue for this run")
    return GuardAnswer("commands", Decision.ALLOW)


def by_hand(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """A plan that consists of a command for a person cannot be carried out here."""
    if plan.manual and not (plan.edits or plan.queue or plan.argv):
        return GuardAnswer("by-hand", Decision.DENY, f"this host lacks the tool; a person runs: {plan.manual}")
    return GuardAnswer("by-hand", Decision.ALLOW)


def rescue(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """A repair that needs a rescue is not begun where no rescue could follow."""
    if plan.rescue and history.rescue_blocked:
        return GuardAnswer("rescue", Decision.DENY, history.rescue_blocked)
    return GuardAnswer("rescue", Decision.ALLOW)


def quorum(plan: Plan, incident: Incident, history: History, policy: Policy) -> GuardAnswer:
    """Many jobs of a workflow that still runs fail for one cause: halt first; and never halt for a few."""
    many, limit = len(incident.jobs) if history.burst is None else history.burst, policy.systemic.jobs
    if plan.action == "halt-workflow" and many < limit:
        return GuardAnswer("quorum", Decision.DENY, f"{many} jobs failed; the workflow is halted from {limit} on")
    if plan.action != "halt-workflow" and history.active and many >= limit and "halt-workflow" not in history.tried_actions:
        return GuardAnswer("quorum", Decision.DENY, f"{many} jobs fail for one cause while the workflow goes on: it is halted first")
    return GuardAnswer("quorum", Decision.ALLOW)


GUARDS: tuple[Guard, ...] = (
    mode, maturity, risk, confidence, attempts, cool_down, same_again, caps, paths, commands, by_hand, rescue, quorum,
)  # fmt: skip


def ask_all(
    plan: Plan, incident: Incident, history: History, policy: Policy, guards: tuple[Guard, ...] = GUARDS
) -> tuple[GuardAnswer, ...]:
    """Every guard's answer, in order."""
    return tuple(guard(plan, incident, history, policy) for guard in guards)


def strictest(answers: Iterable[GuardAnswer]) -> Decision:
    """The decision: deny over ask over allow."""
    return max((one.decision for one in answers), key=_STRICTNESS.__getitem__, default=Decision.ALLOW)


def reasons(answers: Iterable[GuardAnswer], decision: Decision) -> str:
    """The reasons of all guards that gave this answer, as one line."""
    return "; ".join(one.reason for one in answers if one.decision is decision and one.reason)


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0.0
