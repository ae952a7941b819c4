"""The Stampede database as an extra source, strictly read-only and never needed.

Opened with ``mode=ro&immutable=1``, which creates no journal or shared-memory file beside it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from doctor.run.files import Files


def hold_reasons(path: Path, files: Files) -> dict[str, str]:
    """Latest hold reason by job name; empty without a readable database."""
    handle = files.open(path, quiet=True)
    if handle is None:
        return {}
    import os

    os.close(handle)
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True, timeout=1)) as db:
            rows = db.execute(
                "SELECT j.exec_job_id, s.reason FROM jobstate s"
                " JOIN job_instance i ON i.job_instance_id = s.job_instance_id"
                " JOIN job j ON j.job_id = i.job_id"
                " WHERE s.state LIKE 'JOB_HELD%' AND s.reason IS NOT NULL"
                " ORDER BY s.timestamp, s.jobstate_submit_seq LIMIT 100000"
            ).fetchall()
    except sqlite3.Error as problem:
        files.ledger.note(files.name(path), f"not a readable database ({problem})")
        return {}
    return {str(job): str(reason).strip() for job, reason in rows if str(reason).strip()}


def known_workflows(path: Path, limit: int = 5_000) -> list[tuple[str, str]]:
    """(submit directory, workflow's uuid) of Pegasus' own list of root workflows, newest first; empty without one."""
    if not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1)) as db:
            rows = db.execute(
                "SELECT submit_dir, wf_uuid FROM master_workflow ORDER BY timestamp DESC, wf_id DESC LIMIT ?", (limit,)
            ).fetchall()
    except sqlite3.Error:
        return []
    return [(str(place), str(uuid)) for place, uuid in rows if place]
