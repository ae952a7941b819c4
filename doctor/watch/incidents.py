"""Detections as incidents, with the advice and remedies of the closed list of causes."""

from __future__ import annotations

from doctor.diagnose import causality
from doctor.diagnose.library import Library
from doctor.model import Culprit, Diagnosis, Evidence, Incident, Kind, Remedy
from doctor.watch.snapshots import Detection

_KINDS = {"queue": Kind.EVENT, "pool": Kind.DAEMON, "disk": Kind.RUN}


def incident_of(detection: Detection, library: Library, workflow: str, when: float) -> Incident:
    """The incident that a person is told of, and that the loop may repair."""
    info = library.causes[detection.cause]
    culprit = Culprit(detection.jobs[0] if detection.jobs else "", workflow=workflow, host=detection.host)
    names = tuple(info.remedies) if detection.repairable else ()
    if detection.halt and "halt-workflow" in library.actions and "halt-workflow" not in names:
        names = ("halt-workflow", *names)
    params = {"job": culprit.job, **detection.params}
    diagnosis = Diagnosis(
        cause=detection.cause,
        confidence=detection.confidence,
        decided_by=f"live:{detection.detector}",
        culprit=culprit,
        summary=detection.summary,
        explanation=detection.explanation,
        evidence=tuple(Evidence(file, line, text, _KINDS.get(file, Kind.RUN)) for file, line, text in detection.evidence),
        remedies=tuple(Remedy(name, dict(params), library.actions[name].risk, library.actions[name].summary) for name in names),
        advice=info.advice,
        message=detection.message,
        subject=detection.subject,
        when=when,
    )
    return Incident(causality.fingerprint(diagnosis), diagnosis, detection.jobs)
