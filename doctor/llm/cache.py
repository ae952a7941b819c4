"""Answers that were paid for, kept in the store: by model, prompt version and pack, and by failure within a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from doctor.llm.prompt import VERSION
from doctor.loop.records import incident_from, plain
from doctor.model import Diagnosis, Incident
from doctor.store import Store


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as kept: the diagnosis, or None with the reason for the abstention."""

    diagnosis: Diagnosis | None
    reason: str


def pack_key(model: str, digest: str) -> str:
    """Names the answer to one pack."""
    return hashlib.sha256(f"{model}\x1f{VERSION}\x1f{digest}".encode()).hexdigest()[:32]


def find(store: Store, model: str, digest: str, run: str, fingerprint: str) -> Kept | None:
    """The answer to this very pack, else to the same failure of the same run."""
    body = store.llm_answer(pack_key(model, digest), model, VERSION, run, fingerprint)
    if body is None:
        return None
    try:
        data: dict[str, Any] = json.loads(body)
        made = incident_from(data["incident"]).diagnosis if data["incident"] else None
        return Kept(made, str(data["reason"]))
    except (ValueError, KeyError, TypeError):
        return None  # written by another version: ask anew


def keep(store: Store, model: str, digest: str, run: str, incident: Incident, kept: Kept) -> None:
    """Keep an answer, or that there is none to be had."""
    made = plain(Incident(incident.id, kept.diagnosis, incident.jobs[:20])) if kept.diagnosis else None
    body = json.dumps({"incident": made, "reason": kept.reason})
    store.save_llm_answer(pack_key(model, digest), model, VERSION, run, incident.id, body)
