"""Remove the lock of a monitord or DAGMan that is proven dead.

Proof: the recorded process ran on this very host, its id is not alive (or belongs to another program),
no DAGMan works in the directory, and DAGMan's job is not in the queue. Anything less: no.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from actions._action import JobParams, make
from actions._paths import Refused, mode_of, read_file
from doctor.model import Incident
from doctor.repair import Caps, Check, Edit, Evidence, Plan, Risk, RunView, Skipped, Verification

NAME = "clear-stale-lock"
SUMMARY = "Remove the lock that a dead monitord or DAGMan left behind."
RISK = Risk.REVERSIBLE

_PROC = Path("/proc")
_NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "fuse", "ceph", "beegfs", "gluster", "afs", "9p", "virtiofs", "orangefs", "pvfs")


class Params(JobParams):
    """Only the job."""


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Remove ``monitord.pid``, and DAGMan's lock where DAGMan refused to start because of it."""
    if view.active is not False:
        why = "is in the queue" if view.active else "may be in the queue; the queue could not be asked"
        return Skipped(NAME, f"DAGMan {why}")
    texts = [incident.diagnosis.summary, *(one.text for one in incident.diagnosis.evidence)]
    refused = any("another instance of DAGMan" in text for text in texts)
    edits: list[Edit] = []
    dead: list[str] = []
    try:
        _same_host(view.submit_dir)
        for path, program in _locks(view, refused):
            data = read_file(path, 1 << 16)
            if data is None:
                raise Refused(f"{path} cannot be read")
            pid = recorded_pid(data)
            _dead(pid, program, path)
            edits.append(Edit(path, data, None, mode=None, mode_before=mode_of(path)))
            dead.append(f"{program} {pid}")
        _nobody_works_in(view.submit_dir)
    except Refused as problem:
        return Skipped(NAME, f"not proven dead: {problem}")
    if not edits:
        return Skipped(NAME, "there is no lock")
    return make(
        NAME, RISK, incident, params,
        f"Remove the lock of {' and '.join(dead)}, which is dead",
        "pegasus-run starts the workflow again.",
        "The lock file is put back.",
        tuple(edits),
    )  # fmt: skip


def _locks(view: RunView, refused: bool) -> list[tuple[str, str]]:
    found = [(os.path.join(view.submit_dir, "monitord.pid"), "monitord")]
    if refused:  # otherwise DAGMan itself finds its old lock stale, and recovers its state from the log
        found.append((f"{view.dag_file}.lock", "dagman"))
    return [(path, program) for path, program in found if os.path.lexists(path)]


def recorded_pid(data: bytes) -> int:
    """The process id in monitord.pid (``pid N``) or DAGMan's lock (``PID = N``)."""
    found = re.search(rb"^\s*(?:pid|PID)\s*=?\s*(\d{1,10})\s*$", data, re.MULTILINE)
    if not found or int(found[1]) < 2:
        raise Refused("the lock names no process")
    return int(found[1])


def _same_host(directory: str) -> None:
    """The workflow was started on this host: braindump.yml says so, or the directory is only reachable from here."""
    data = read_file(os.path.join(directory, "braindump.yml"), 1 << 20) or b""
    found = re.search(rb"^submit_hostname:\s*[\"']?([^\"'\s]+)", data, re.MULTILINE)
    recorded = found[1].decode("utf-8", "replace").lower() if found else ""
    mine = {socket.gethostname().lower(), socket.getfqdn().lower()} - {"localhost"}
    if recorded and recorded in mine:
        return
    if recorded in ("", "localhost") or recorded.split(".", 1)[0] in {name.split(".", 1)[0] for name in mine}:
        kind = filesystem(directory)
        if kind and not kind.startswith(_NETWORK):
            return
        raise Refused(f"braindump.yml names the host {recorded or 'not at all'}, and {directory} is on a file system that others may share")
    raise Refused(f"the workflow was started on {recorded}, this is {socket.gethostname()}")


def filesystem(directory: str) -> str:
    """Type of the file system that holds a directory, as ``/proc/self/mountinfo`` has it; '' unknown."""
    try:
        rows = (_PROC / "self" / "mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    real, best, kind = os.path.realpath(directory) + "/", "", ""
    for row in rows:
        words = row.split()
        if "-" not in words:
            continue
        place = words[4].rstrip("/") + "/"
        if real.startswith(place) and len(place) >= len(best):
            best, kind = place, words[words.index("-") + 1]
    return kind


def _dead(pid: int, program: str, path: str) -> None:
    """Raises unless no process of that id runs, or it is provably another program."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return
    except PermissionError:
        pass
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes()
    except FileNotFoundError:
        return
    except OSError as problem:
        raise Refused(f"process {pid} of {os.path.basename(path)} is alive") from problem
    if not words or program.encode() in words or b"pegasus" in words:
        raise Refused(f"{program} (process {pid}) is alive")


def _nobody_works_in(directory: str) -> None:
    """Raises when a DAGMan or monitord has this directory as its working directory."""
    here = os.path.realpath(directory)
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes()
            if (b"condor_dagman" in words or b"monitord" in words) and os.path.realpath(entry / "cwd") == here:
                raise Refused(f"process {entry.name} still works in {directory}")
        except OSError:
            continue


def verify(plan: Plan, evidence: Evidence) -> Check:
    """The workflow has to be going again, or to have ended well."""
    if evidence.run_state in ("running", "succeeded"):
        return Check(Verification.RECOVERED, f"the workflow is {evidence.run_state}")
    return Check(Verification.NOT_YET, f"the workflow is {evidence.run_state}")
