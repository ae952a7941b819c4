"""What ``status`` and ``top`` show, read from the store alone: it can be told whether or not the daemon lives."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from doctor.store import Store
from doctor.watch.system import daemon_alive, daemon_says

SCHEMA = 1
OVER = ("recovered", "escalated")


def facts(store: Store, folder: Path) -> dict[str, Any]:
    """The daemon, its sources of facts, the runs, and their incidents. Times are seconds since 1970, ages seconds."""
    sources = {row["name"]: row for row in store.sources()}
    heart = sources.pop("daemon", None)
    now = time.time()
    incidents: dict[str, list[dict[str, Any]]] = {}
    for row in store.overview():
        incidents.setdefault(row["run"], []).append({key: value for key, value in row.items() if key != "run"})
    alive = daemon_alive(folder)
    if alive is not None and (trouble := daemon_says(folder)):  # it cannot write that into the store
        sources["writer"] = {"last_good": None, **sources.get("writer", {}), "ok": 0, "text": trouble}
    return {
        "schema": SCHEMA,
        "running": alive is not None,
        "pid": alive or None,
        "state_dir": str(folder),
        "last_sign_s": round(max(0.0, now - heart["last_good"]), 1) if heart else None,
        "daemon": json.loads(heart["text"]) if heart else {},
        "sources": [
            {
                "name": name,
                "ok": bool(row["ok"]),
                "text": row["text"],
                "age_s": round(max(0.0, now - row["last_good"]), 1) if row["last_good"] else None,
            }
            for name, row in sorted(sources.items())
        ],
        "runs": [_run(entry, incidents.get(entry["run"], [])) for entry in store.watched()],
    }


def _run(entry: dict[str, Any], incidents: list[dict[str, Any]]) -> dict[str, Any]:
    body = json.loads(entry["body"])
    return {
        "run": entry["submit_dir"], "label": body["label"], "state": entry["state"], "jobs": body["jobs"], "source": body["source"],
        "how": body["how"], "problem": body["problem"], "moved": body["moved"], "incidents": incidents,
        "open": sum(one["state"] not in OVER for one in incidents),
    }  # fmt: skip
