"""Jobs that no slot of the pool can ever match: which requirement fails, and what the nearest slot offers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from doctor.watch.snapshots import IDLE, Accepts, Detection, Evaluate, QueueJob, Slot
from doctor.watch.words import duration

_UNITS = {"cpus": ("CPUs", 1.0), "memory_mb": ("MB of memory", 1.0), "disk_kb": ("GB of disk", 1 / (1 << 20)), "gpus": ("GPUs", 1.0)}
_ATTRIBUTES = {"cpus": "request_cpus", "memory_mb": "request_memory", "disk_kb": "request_disk", "gpus": "request_gpus"}
#: What condor_submit adds on its own and what the numbers above already say.
_OWN = re.compile(r"TARGET\.(?:Cpus|Memory|Disk|GPUs)\s*>=|CountMatches\(")


def unmatchable(
    run: str, jobs: Sequence[QueueJob], slots: Sequence[Slot], evaluate: Evaluate, now: float, patience: float = 60.0
) -> list[Detection]:
    """One detection for all idle jobs of a run that fail for the same reason.

    Compared is with what a slot has in total, so that a pool that is merely busy is no reason; and
    without any slot at all nothing is said: the pool may be starting, or grow on demand.
    """
    idle = [job for job in jobs if job.status == IDLE and job.run == run and not job.is_dagman and job.universe == 5]
    groups: dict[tuple[str, str], list[QueueJob]] = {}
    if not slots:
        return []
    answers: dict[tuple[object, ...], tuple[str, str, str] | None] = {}
    for job in idle:
        if now - job.since < patience or job.starts:
            continue
        key = (tuple(sorted(job.requests.items())), job.requirements)
        if key not in answers:
            answers[key] = why(job, slots, evaluate)
        if answer := answers[key]:
            groups.setdefault((answer[0], answer[1]), []).append(job)
    found = []
    for (what, nearest), members in groups.items():
        first = members[0]
        names = tuple(job.node or job.id for job in members)
        reason = answers[tuple(sorted(first.requests.items())), first.requirements]
        subject = reason[2] if reason else ""
        found.append(
            Detection(
                "unmatchable", "resources/unmatchable-request", run, names,
                f"No slot of the pool can run {names[0]}: {what}",
                f"{what}; {nearest}. {len(members)} job{'s wait' if len(members) > 1 else ' waits'} for it, the first since "
                f"{duration(now - min(job.since for job in members))}, and none of the {len(slots)} slots can ever match.",
                (("queue", None, f"job {first.id} ({first.node}) idle, never started: {what}"), ("pool", None, nearest)),
                subject or re.sub(r"\d+", "#", what), 0.9, subject=subject,
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the pool holds for jobs that wait.

    ``what``: ``busy`` (slots that fit are taken), ``refused`` (the policy of every slot that fits keeps them out),
    ``room`` (one that fits and takes them has room) or '' (not known, or no slot fits). ``text`` names it.
    """

    what: str
    text: str = ""


def outlook(jobs: Sequence[QueueJob], slots: Sequence[Slot], evaluate: Evaluate, accepts: Accepts) -> Outlook:
    """The best that any of the waiting jobs of a run can hope for."""
    kinds = {(tuple(sorted(job.requests.items())), job.requirements): job for job in jobs if job.status == IDLE and job.universe == 5}
    answers = [_outlook(job, slots, evaluate, accepts) for job in list(kinds.values())[:20]]
    order = ("room", "busy", "refused", "")
    return min(answers, key=lambda one: order.index(one.what), default=Outlook(""))


def _outlook(job: QueueJob, slots: Sequence[Slot], evaluate: Evaluate, accepts: Accepts) -> Outlook:
    clauses = [clause for clause in conjuncts(job.requirements) if not _OWN.search(clause)]
    refused: Slot | None = None
    busy = False
    for slot in slots:
        if any(need > slot.offers.get(key, 0.0) for key, need in job.requests.items()):
            continue
        if any(evaluate(clause, job.ad, slot.ad) is False for clause in clauses):
            continue
        if accepts(job.ad, slot.ad) is False:
            refused = refused or slot
        elif slot.free is None or any(need > slot.free.get(key, 0.0) for key, need in job.requests.items()):
            busy = True
        else:
            plain = slot.start.lower() in ("", "true")
            return Outlook("room", f"{slot.name} fits and has room" + ("" if plain else f"; it takes jobs by START = {slot.start}"))
    if busy:
        return Outlook("busy")
    return Outlook("refused", f"START of {refused.name} is {refused.start}") if refused else Outlook("")


def why(job: QueueJob, slots: Sequence[Slot], evaluate: Evaluate) -> tuple[str, str, str] | None:
    """(what fails, what the nearest slot offers, the submit command concerned) or None when some slot could match."""
    clauses = [clause for clause in conjuncts(job.requirements) if not _OWN.search(clause)]
    failing: list[tuple[list[str], list[str], Slot]] = []
    for slot in slots:
        short = [key for key, need in job.requests.items() if need > slot.offers.get(key, 0.0)]
        unmet = [clause for clause in clauses if evaluate(clause, job.ad, slot.ad) is False]
        if not short and not unmet:
            return None
        failing.append((short, unmet, slot))
    always = [key for key in job.requests if all(key in short for short, _, _ in failing)]
    if always:
        key = always[0]
        unit, scale = _UNITS[key]
        best = max((slot for slot in slots), key=lambda slot: slot.offers.get(key, 0.0))
        offer = best.offers.get(key, 0.0)
        return (
            f"it asks for {job.requests[key] * scale:g} {unit} ({_ATTRIBUTES[key]})",
            f"the largest slot, {best.name}, has {offer * scale:g}",
            _ATTRIBUTES[key],
        )
    short, unmet, slot = min(failing, key=lambda one: (len(one[0]) + len(one[1]), one[2].name))
    common = Counter(clause for _, clauses_, _ in failing for clause in clauses_)
    if common and common.most_common(1)[0][1] == len(failing):
        clause = common.most_common(1)[0][0]
        return (
            f"its requirement {_brief(clause)} is false on every slot",
            f"the nearest slot is {slot.name}: {_offer(slot)}",
            "requirements",
        )
    wants = [f"{job.requests[key] * _UNITS[key][1]:g} {_UNITS[key][0]}" for key in short] + [_brief(clause) for clause in unmet]
    return (
        "no slot has everything it asks for together",
        f"the nearest slot, {slot.name}, lacks {', '.join(wants)}; it has {_offer(slot)}",
        _ATTRIBUTES[short[0]] if short else "requirements",
    )


def _brief(clause: str) -> str:
    return clause if len(clause) <= 160 else f"{clause[:157]}..."


def _offer(slot: Slot) -> str:
    return ", ".join(f"{slot.offers[key] * scale:g} {unit}" for key, (unit, scale) in _UNITS.items() if key in slot.offers)


def conjuncts(expression: str) -> list[str]:
    """The parts of ``a && (b || c) && d`` at the top level."""
    text = expression.strip()
    while text.startswith("(") and _closes(text) == len(text) - 1:
        text = text[1:-1].strip()
    parts, depth, start, at, quoted = [], 0, 0, 0, False
    while at < len(text):
        sign = text[at]
        if quoted:
            quoted = sign != '"'
            at += 2 if sign == "\\" else 1
            continue
        if sign == '"':
            quoted = True
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif depth == 0 and text.startswith("&&", at):
            parts.append(text[start:at])
            start = at + 2
            at += 1
        at += 1
    parts.append(text[start:])
    whole = [part.strip() for part in parts if part.strip()]
    return whole if len(whole) < 2 else [inner for part in whole for inner in conjuncts(part)]


def _closes(text: str) -> int:
    depth = 0
    quoted = False
    for at, sign in enumerate(text):
        if sign == '"':
            quoted = not quoted
        elif not quoted and sign in "([{":
            depth += 1
        elif not quoted and sign in ")]}":
            depth -= 1
            if depth == 0:
                return at
    return -1
