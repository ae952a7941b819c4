"""What one look at a run's logs found, to be stored as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from doctor.model import Incident
from doctor.watch.tail import Mark


@dataclass(frozen=True, slots=True)
class Seen:
    """One diagnosed attempt, as stored: never diagnosed again after a restart."""

    job: str  # with the sub-workflow's directory in front
    seq: int
    incident: str  # fingerprint


@dataclass(slots=True)
class Turn:
    """The result of one turn: after a crash either all of it is stored, or nothing, and the lines are read again."""

    marks: dict[str, Mark] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    urgent: bool = False  # a node was found that fails whatever lands on it
    resolved: list[str] = field(default_factory=list)  # fingerprints whose jobs have all succeeded since
    lines: int = 0
    diagnosed: int = 0
    more: bool = False
    started: bool = False
    ended: int | None = None  # DAGMan's exit code
    problems: list[str] = field(default_factory=list)
