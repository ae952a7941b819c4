"""The verdict on one attempt while it is being reached; frozen into a Diagnosis at the end."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from doctor.diagnose.evidence import Facts, describe
from doctor.diagnose.library import CompiledRule, Library
from doctor.model import Candidate, Culprit, Diagnosis, Evidence, Finding, Kind, Remedy, Symptom
from doctor.run.reader import Job

_HEX = re.compile(r"\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]{16,}\b")
_PATH = re.compile(r"(?:/[\w.+@%~-]+){2,}")
_NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class Verdict:
    """What is believed so far. ``culprit`` may be another job than the one that failed."""

    facts: Facts
    cause: str
    confidence: float
    decided_by: str
    evidence: list[Evidence] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    subject: str = ""
    captures: dict[str, str] = field(default_factory=dict)
    culprit: Job | None = None
    symptoms: list[Symptom] = field(default_factory=list)
    ruled_out: list[Candidate] = field(default_factory=list)
    remedies: list[tuple[str, dict[str, str]]] | None = None  # None: those of rule and cause
    finding: Finding | None = None

    def change(self, cause: str, by: str, confidence: float, reason: str) -> None:
        """Name another cause for what was found, and say why."""
        if cause != self.cause:
            evidence = self.evidence[0] if self.evidence else Evidence("", None, "", Kind.RUN)
            self.ruled_out.append(Candidate(self.cause, self.decided_by, evidence, reason))
        self.cause, self.decided_by, self.confidence = cause, by, confidence
        self.reasons.append(reason)


def normalise(text: str, names: tuple[str, ...] = ()) -> str:
    """A message without what differs between equal failures: paths, numbers, addresses, job names."""
    for name in names:
        if len(name) > 2:
            text = text.replace(name, "<job>")
    text = _PATH.sub(lambda found: "<dir>/" + found[0].rsplit("/", 1)[1], text)
    return _NUMBER.sub("#", _HEX.sub("<hex>", text)).strip()[:300]


def message_key(verdict: Verdict) -> str:
    """The text by which two failures of one cause are told apart, or not.

    A full disk is one problem whatever file it hit; an unwritable directory is one whatever file
    was to be written there; a missing module is one per module.
    """
    if verdict.cause.startswith("disk/"):
        return ""
    text = verdict.subject or (verdict.evidence[0].text if verdict.evidence else "")
    if verdict.cause == "permissions/output-dir-not-writable":
        found = _PATH.search(text)
        return os.path.dirname(os.path.normpath(found[0])) if found else text
    record = verdict.facts.record
    job = verdict.culprit or verdict.facts.job
    derivation = record.fields.get("derivation", "") if record else ""
    return normalise(text, (verdict.facts.job.name, job.name, derivation))


def culprit_of(job: Job, attempt: int, host: str) -> Culprit:
    """The record that names a job in reports."""
    return Culprit(
        job=job.name,
        transformation=job.submit.transformation,
        site=job.submit.site or (job.attempts[-1].site if job.attempts else ""),
        host=host,
        workflow=job.run.name or job.run.identity.dax_label,
        attempt=attempt,
    )


def freeze(verdict: Verdict, library: Library) -> Diagnosis:
    """The finished diagnosis, with advice, remedies and words for people."""
    facts, info = verdict.facts, library.causes[verdict.cause]
    job = verdict.culprit or facts.job
    same = job is facts.job
    attempt = facts.attempt.index if same else (job.attempts[-1].index if job.attempts else 0)
    rule = library.decider(verdict.decided_by)
    evidence = _unique(verdict.evidence)
    summary = info.definition.rstrip(".") + (f": {verdict.subject}" if verdict.subject else "")
    return Diagnosis(
        cause=verdict.cause,
        confidence=round(max(0.05, min(verdict.confidence, 0.99)), 2),
        decided_by=verdict.decided_by,
        culprit=culprit_of(job, attempt, facts.host if same else ""),
        summary=summary[:300],
        explanation=" ".join(verdict.reasons) or _default_reason(facts, rule),
        evidence=evidence,
        symptoms=tuple(verdict.symptoms),
        remedies=_remedies(verdict, library),
        ruled_out=tuple(verdict.ruled_out[:10]),
        advice=(rule.advice if rule and rule.advice else info.advice),
        message=message_key(verdict),
        subject=verdict.subject,
        when=facts.attempt.ended,
    )


def _default_reason(facts: Facts, rule: CompiledRule | None) -> str:
    if rule is not None:
        ended = f" The job ended with {describe(facts.step)}." if facts.step.failed else ""
        return f"The first line of evidence says so ({rule.title}).{ended}"
    return "The lines shown are the best evidence that the attempt left."


def _unique(evidence: list[Evidence]) -> tuple[Evidence, ...]:
    kept: list[Evidence] = []
    texts: set[str] = set()
    for one in evidence:
        if one.text.strip() and one.text.strip() not in texts:
            texts.add(one.text.strip())
            kept.append(Evidence(one.file, one.line, one.text.strip(), one.kind))
    return tuple(kept[:6])


def _remedies(verdict: Verdict, library: Library) -> tuple[Remedy, ...]:
    rule = library.decider(verdict.decided_by)
    wanted: list[tuple[str, dict[str, str]]]
    if verdict.remedies is not None:
        wanted = verdict.remedies
    else:
        wanted = [(action, {}) for action in library.causes[verdict.cause].remedies]
        if rule and rule.remedy:
            params = {name: verdict.captures[group] for name, group in rule.remedy_with if group in verdict.captures}
            wanted = [(rule.remedy, params), *(one for one in wanted if one[0] != rule.remedy)]
    job = verdict.culprit or verdict.facts.job
    return tuple(
        Remedy(action, {"job": job.name, **params}, library.actions[action].risk, library.actions[action].summary)
        for action, params in wanted
    )
