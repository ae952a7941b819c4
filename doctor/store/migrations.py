"""The tables, as named steps that are applied once, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlite_utils import Database


def _m001_first(db: Database) -> None:
    def table(name: str, columns: dict[str, type], pk: str = "id") -> None:
        db.table(name).create(columns, pk=pk)

    table(
        "runs",
        {
            "id": str,
            "submit_dir": str,
            "wf_uuid": str,
            "label": str,
            "state": str,
            "session": int,
            "open": int,
            "began": float,
            "seen": float,
        },
    )
    table(
        "incidents",
        {"id": str, "run": str, "fingerprint": str, "cause": str, "stage": str, "summary": str, "body": str, "reason": str,
         "attempts": int, "session": int, "created": float, "updated": float},
    )  # fmt: skip
    table("evidence", {"id": int, "incident": str, "position": int, "file": str, "line": int, "text": str, "kind": str})
    table(
        "plans",
        {"id": int, "incident": str, "run": str, "attempt": int, "action": str, "job": str, "key": str, "state": str, "reason": str,
         "body": str, "baseline": str, "created": float, "applied": float},
    )  # fmt: skip
    table("verdicts", {"id": int, "plan": int, "guard": str, "decision": str, "reason": str, "time": float})
    table(
        "journal",
        {"id": int, "plan": int, "what": str, "original": bytes, "mode": int, "state": str, "intended": float, "ended": float},
    )
    table("outcomes", {"id": int, "run": str, "incident": str, "attempt": int, "result": str, "reason": str, "time": float})
    table("history", {"id": int, "run": str, "incident": str, "event": str, "text": str, "time": float})
    table(
        "rescues",
        {"id": int, "run": str, "starts": int, "state": str, "reason": str, "intended": float, "ended": float},
    )
    for name, columns in (
        ("incidents", ["run"]), ("evidence", ["incident"]), ("plans", ["incident"]), ("plans", ["run"]), ("verdicts", ["plan"]),
        ("journal", ["plan"]), ("outcomes", ["incident"]), ("history", ["run"]), ("rescues", ["run"]),
    ):  # fmt: skip
        db.table(name).create_index(columns)


def _watch_001_daemon(db: Database) -> None:
    """What the daemon needs to go on exactly: offsets, diagnosed attempts, and what ``status`` shows."""

    def table(name: str, columns: dict[str, type], pk: Any) -> None:
        db.table(name).create(columns, pk=pk)

    table("marks", {"run": str, "file": str, "body": str}, ("run", "file"))
    table("seen", {"run": str, "job": str, "seq": int, "incident": str}, ("run", "job"))
    table("watched", {"run": str, "submit_dir": str, "state": str, "body": str, "updated": float}, "run")
    table("sources", {"name": str, "ok": int, "text": str, "last_good": float, "updated": float}, "name")
    table("cursors", {"name": str, "value": int}, "name")


def _llm_001_answers(db: Database) -> None:
    """Answers of the model that were paid for, and what every call cost."""
    db.table("llm_answers").create(
        {"key": str, "model": str, "version": str, "run": str, "fingerprint": str, "body": str, "created": float}, pk="key"
    )
    db.table("llm_answers").create_index(["run", "fingerprint"])
    db.table("llm_usage").create(
        {"id": int, "run": str, "incident": str, "model": str, "calls": int, "sent": int, "received": int, "cache_written": int,
         "cache_read": int, "dollars": float, "seconds": float, "outcome": str, "time": float},
        pk="id",
    )  # fmt: skip
    db.table("llm_usage").create_index(["time"])


MIGRATIONS: tuple[Callable[[Database], None], ...] = (_m001_first, _watch_001_daemon, _llm_001_answers)
