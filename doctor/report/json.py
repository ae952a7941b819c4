"""The JSON report, version 1. Field names are stable: others score against them."""

from __future__ import annotations

from typing import Any

from doctor.model import Evidence, Incident, Report, RunWarning, Symptom
from doctor.report.llm import llm_json

SCHEMA = 1
_FIRST_JOBS = 20


def report_json(report: Report) -> dict[str, Any]:
    """The whole report as plain data, ready for :func:`json.dumps`."""
    run = report.run
    jobs = run.jobs
    extra = {"llm": llm_json(report)} if report.opinions else {}
    return {
        "schema": SCHEMA,
        "run": {
            "submit_dir": run.submit_dir,
            "label": run.label,
            "wf_uuid": run.wf_uuid,
            "root_wf_uuid": run.root_wf_uuid,
            "state": run.state.value,
            "state_reason": run.state_reason,
            "jobs": {
                "total": jobs.total,
                "succeeded": jobs.succeeded,
                "failed": jobs.failed,
                "held": jobs.held,
                "running": jobs.running,
                "queued": jobs.queued,
                "unsubmitted": jobs.unsubmitted,
            },
        },
        "incidents": [incident_json(incident) for incident in report.incidents],
        "warnings": [_warning(warning) for warning in report.warnings],
        "unreadable": [{"file": entry.file, "reason": entry.reason} for entry in report.unreadable],
        "history": [_symptom(entry) for entry in report.history],
        **extra,
    }


def incident_json(incident: Incident) -> dict[str, Any]:
    """One incident as plain data."""
    diagnosis = incident.diagnosis
    culprit = diagnosis.culprit
    return {
        "id": incident.id,
        "category": incident.category,
        "cause": incident.cause,
        "confidence": diagnosis.confidence,
        "decided_by": diagnosis.decided_by,
        "summary": diagnosis.summary,
        "explanation": diagnosis.explanation,
        "advice": diagnosis.advice,
        "culprit": {
            "job": culprit.job,
            "transformation": culprit.transformation,
            "site": culprit.site,
            "host": culprit.host,
            "workflow": culprit.workflow,
            "attempt": culprit.attempt,
        },
        "jobs": list(incident.jobs[:_FIRST_JOBS]),
        "job_count": len(incident.jobs),
        "evidence": [_evidence(entry) for entry in diagnosis.evidence],
        "symptoms": [_symptom(entry) for entry in diagnosis.symptoms],
        "remedies": [
            {"action": remedy.action, "params": remedy.params, "risk": remedy.risk, "summary": remedy.summary}
            for remedy in diagnosis.remedies
        ],
        "ruled_out": [
            {"cause": entry.cause, "decided_by": entry.decided_by, "evidence": _evidence(entry.evidence), "why_not": entry.why_not}
            for entry in diagnosis.ruled_out
        ],
    }


def _evidence(entry: Evidence) -> dict[str, Any]:
    return {"file": entry.file, "line": entry.line, "text": entry.text, "kind": entry.kind.value}


def _symptom(entry: Symptom) -> dict[str, Any]:
    return {"job": entry.job, "text": entry.text, "file": entry.file, "line": entry.line}


def _warning(warning: RunWarning) -> dict[str, Any]:
    category, cause = warning.cause.split("/", 1)
    return {
        "category": category,
        "cause": cause,
        "summary": warning.summary,
        "advice": warning.advice,
        "jobs": list(warning.jobs[:_FIRST_JOBS]),
        "job_count": len(warning.jobs),
        "evidence": [_evidence(entry) for entry in warning.evidence],
    }
