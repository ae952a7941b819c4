"""The store's rows as frozen records, and records as plain JSON data and back."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from doctor.loop.stages import Stage
from doctor.model import Candidate, Culprit, Diagnosis, Evidence, Incident, Kind, Remedy, Symptom
from doctor.repair import Edit, Plan, QueueEdit, Risk


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident as stored. ``attempts`` counts the repairs that were carried out for it."""

    id: str
    run: str
    submit_dir: str
    stage: Stage
    incident: Incident
    reason: str
    attempts: int
    session: int
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan as stored. ``state``: proposed, approved, denied, skipped, acting, applied, failed, interrupted or undone."""

    id: int
    incident: str
    attempt: int
    plan: Plan
    key: str
    state: str
    reason: str
    baseline: dict[str, Any]
    created: float
    applied: float | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: what was done to one file or job, with the original."""

    id: int
    plan: int
    what: str
    original: bytes | None
    mode: int | None
    state: str
    intended: float


def plain(value: Any) -> Any:
    """Any of the records as data for :func:`json.dumps`; bytes become ``{"base64": ...}``."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    return value


def incident_from(data: dict[str, Any]) -> Incident:
    """The incident that :func:`plain` made into data."""
    made = dict(data["diagnosis"])
    made["culprit"] = Culprit(**made["culprit"])
    made["evidence"] = tuple(_evidence(entry) for entry in made["evidence"])
    made["symptoms"] = tuple(Symptom(**entry) for entry in made["symptoms"])
    made["remedies"] = tuple(Remedy(**entry) for entry in made["remedies"])
    made["ruled_out"] = tuple(Candidate(**{**entry, "evidence": _evidence(entry["evidence"])}) for entry in made["ruled_out"])
    return Incident(data["id"], Diagnosis(**made), tuple(data["jobs"]))


def _evidence(entry: dict[str, Any]) -> Evidence:
    return Evidence(entry["file"], entry["line"], entry["text"], Kind(entry["kind"]))


def plan_from(data: dict[str, Any]) -> Plan:
    """The plan that :func:`plain` made into data."""
    made = dict(data)
    made["risk"] = Risk(made["risk"])
    made["edits"] = tuple(Edit(**{**entry, "before": _bytes(entry["before"]), "after": _bytes(entry["after"])}) for entry in made["edits"])
    made["queue"] = tuple(
        QueueEdit(entry["job_id"], _pairs(entry["attributes"]), entry["act"], _pairs(entry["before"])) for entry in made["queue"]
    )
    made["argv"] = tuple(tuple(words) for words in made["argv"])
    return Plan(**made)


def _bytes(value: Any) -> bytes | None:
    return None if value is None else base64.b64decode(value["base64"])


def _pairs(value: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((entry[0], entry[1]) for entry in value)
