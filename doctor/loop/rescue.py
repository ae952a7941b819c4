"""The rescue: submit the root workflow again, once, and see in DAGMan's own log that it started.

A run that was planned again is submitted in the same way; only its first start counts, whoever made it.

Facts: ``pegasus-run`` refuses while ``monitord.pid`` exists, alive or not; its exit code says only
that ``condor_submit`` took the job; DAGMan itself chooses the highest rescue file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from doctor.errors import DoctorError
from doctor.loop.seams import Event, Host, Seams
from doctor.repair import Queue
from doctor.run.reader import Run

_START = re.compile(rb"(?:CONDOR|condor)_DAGMAN\) STARTING UP")
_PID = re.compile(r"^pid\s+(\d{1,10})", re.MULTILINE)
_RESCUE = re.compile(r"\.rescue(\d{3})$")
_RUN_LIMIT = 120.0  # seconds for pegasus-run itself
_MONITORD_LIMIT = 300.0  # seconds that a living monitord gets to finish after DAGMan's end
_INTERRUPTED_GRACE = 20.0  # seconds after which a rescue that was cut off, and left no trace, may be made again
_MAX_RESCUE = 64 << 20


class Monitord(Enum):
    """Whether pegasus-monitord still follows the run."""

    NONE = "no pid file"
    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Watch:
    """Monitord's state with the fact that proves it."""

    state: Monitord
    reason: str
    pid: int = 0


def root_of(run: Run) -> Run:
    """The root workflow of an opened run."""
    return list(run.lineage())[-1]


def dagman_active(run: Run, queue: Queue | None) -> bool | None:
    """Whether a DAGMan of this (root) run is in the queue: True, proven gone (False), or unknown (None)."""
    if queue is None:
        return None
    submit = run.identity.submit_dir or str(run.directory)
    parts = [f"Iwd == {_quoted(place)}" for place in dict.fromkeys((submit, str(run.directory)))]
    if run.identity.wf_uuid:
        parts.append(f"pegasus_wf_uuid =?= {_quoted(run.identity.wf_uuid)}")
    constraint = f"JobUniverse == 7 && JobStatus =!= 4 && ({' || '.join(parts)})"
    try:
        rows = queue.present(constraint)
    except Exception:  # noqa: BLE001 - whatever the bindings raise, the answer is unknown
        return None
    own = [row for row in rows if _is_dagman(row)]
    return bool(own)


def _is_dagman(row: dict[str, object]) -> bool:
    """A scheduler-universe job of the run that is its DAGMan: no node of the DAG, which has a node name."""
    return "DAGNodeName" not in row and str(row.get("pegasus_wf_xformation", "")) in ("", "pegasus::dagman")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def monitord(run: Run, host: Host) -> Watch:
    """What the pid file and the process table prove about pegasus-monitord."""
    path = run.directory / "monitord.pid"
    if not path.exists():
        return Watch(Monitord.NONE, "no monitord.pid")
    text = "\n".join(line.text for line in run.files.text(path, head=4096, tail=0).lines)
    found = _PID.search(text)
    if not found:
        return Watch(Monitord.UNKNOWN, "monitord.pid names no process")
    pid = int(found[1])
    recorded = run.identity.submit_hostname
    if recorded and recorded not in ("localhost", host.name) and recorded.split(".")[0] != host.name.split(".")[0]:
        return Watch(Monitord.UNKNOWN, f"monitord.pid names process {pid} of {recorded}, which is another host", pid)
    command = host.process(pid)
    if command is None:
        return Watch(Monitord.DEAD, f"process {pid} of monitord.pid is gone", pid)
    if "monitord" not in command:
        return Watch(Monitord.DEAD, f"process {pid} of monitord.pid is now another program", pid)
    return Watch(Monitord.ALIVE, f"monitord runs as process {pid}", pid)


def rescue_file(run: Run) -> tuple[Path | None, str]:
    """The rescue file that DAGMan will take, and what is wrong with it ('' when it is sane)."""
    dag = run.identity.dag
    numbers = [
        (int(found[1]), name) for name in run.files.listing(run.directory) if name.startswith(f"{dag}.") and (found := _RESCUE.search(name))
    ]
    if not numbers:
        if (run.directory / f"{dag}.lock").exists():
            return None, ""  # DAGMan recovers from its own log
        if run.counts.succeeded and run.dagman.exit_status is not None:
            return None, "DAGMan ended without a rescue file although jobs had succeeded: a new start would run everything again"
        return None, ""
    path = run.directory / max(numbers)[1]
    return path, _insane(run, path)


def _insane(run: Run, path: Path) -> str:
    data = run.files.bytes(path, _MAX_RESCUE)
    if not data:
        return f"{path.name} is empty or cannot be read"
    if not data.startswith(b"# Rescue DAG file"):
        return f"{path.name} does not begin like a rescue DAG"
    if not data.endswith(b"\n"):
        return f"{path.name} ends in the middle of a line"
    done = [line.split()[1].decode("utf-8", "replace") for line in data.splitlines() if line.startswith(b"DONE ") and len(line.split()) > 1]
    if len(set(done)) > run.dag.count:
        return f"{path.name} marks {len(done)} nodes as done, the DAG has {run.dag.count}"
    unknown = sorted(set(done) - set(run.dag.nodes(done))) if done else []
    if unknown:
        return f"{path.name} marks {unknown[0]} as done, which the DAG does not have"
    for line in data.splitlines():
        if line.startswith(b"RETRY ") and not re.match(rb"RETRY \S+ \d+", line):
            return f"{path.name} has a damaged RETRY line"
    return ""


def command(run: Run, host: Host) -> tuple[str, ...] | str:
    """The pegasus-run to use: PATH, then the planner's bin directory, then the installed wheel; or why there is none."""
    if not host.which("condor_submit"):
        return "condor_submit is not on PATH, so no rescue DAG can be submitted from here"
    if found := host.which("pegasus-run"):
        return (found, str(run.directory))
    beside = os.path.join(run.identity.bindir, "pegasus-run")
    if run.identity.bindir.startswith("/") and not Path(beside).is_relative_to(run.directory) and os.access(beside, os.X_OK):
        return (beside, str(run.directory))
    try:
        import Pegasus

        for folder in Pegasus.__path__:
            script = os.path.join(folder, "cli", "pegasus-run.py")
            if os.path.isfile(script):
                return (sys.executable, script, str(run.directory))
    except ImportError:
        pass
    return "there is no pegasus-run: not on PATH, not beside the planner, not in this Python"


def preflight(run: Run, active: bool | None, host: Host) -> str:
    """Why no rescue of this root run could be made once DAGMan is gone; '' when it could."""
    if active is None:
        return "HTCondor's queue cannot be asked, so it is not proven that DAGMan is gone; no rescue is possible"
    if not (run.directory / run.identity.dag).is_file():
        return f"{run.identity.dag or 'the DAG'} is missing"
    if not (run.directory / f"{run.identity.dag}.condor.sub").is_file():
        return f"{run.identity.dag}.condor.sub is missing"
    watch = monitord(run, host)
    if watch.state is Monitord.UNKNOWN:
        return f"{watch.reason}: neither proven dead nor alive"
    found = command(run, host)
    if isinstance(found, str):
        return found
    return "" if active else rescue_file(run)[1]


class Progress(Enum):
    STARTED = "started"
    PENDING = "pending"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """How a rescue stands. ``again_at`` is the time at which a pending one should be looked at at the latest.

    ``rescue`` is the number of the one that has started or failed. The caller writes that down together with
    what follows from it: were the one written without the other, a crash between would lead to a second rescue.
    """

    progress: Progress
    reason: str
    again_at: float = 0.0
    rescue: int = 0


def log_size(run: Run) -> int:
    """Bytes of dagman.out; a start beyond them is a new one."""
    try:
        return run.dagman_path.stat().st_size
    except OSError:
        return 0


def started_beyond(run: Run, size: int) -> bool:
    """Whether DAGMan logged a start beyond the given size of dagman.out."""
    path = run.dagman_path
    handle = run.files.open(path, quiet=True)
    if handle is None:
        return False
    with os.fdopen(handle, "rb") as stream:
        if os.fstat(stream.fileno()).st_size < size:
            size = 0
        stream.seek(size)
        return any(_START.search(line) for line in _lines(stream))


def _lines(stream: object) -> Iterator[bytes]:
    assert hasattr(stream, "readline")
    while line := stream.readline(1 << 16):
        yield line


def planned(directory: str) -> bool:
    """Whether the planner has finished this submit directory: it writes what submits the DAG last."""
    found = sorted(Path(directory).glob("*.dag.condor.sub"))
    return bool(found) and (Path(directory) / "braindump.yml").is_file()


def step(run: Run, seams: Seams, key: str, not_before: float, *, first: bool = False) -> Answer:
    """Begin the rescue, or see how the one begun fares. Call again until it is started or failed.

    The intent is written before pegasus-run is called; what was cut off is looked for in DAGMan's
    log before anything is submitted again. ``first``: the run is new, any start of it will do.
    """
    store, now = seams.store, seams.clock()
    open_ones = [row for row in store.rescues(key) if row["state"] in ("intended", "submitted")]
    active = dagman_active(run, seams.queue)
    if open_ones:
        return _look(run, seams, key, open_ones[-1], active)
    if active:
        return Answer(Progress.STARTED, "DAGMan is in the queue already; no rescue of the doctor's own was needed")
    if first and started_beyond(run, 0):
        return Answer(Progress.STARTED, "DAGMan has been started already")
    if active is None and seams.patient():
        return Answer(Progress.PENDING, "HTCondor's queue does not answer; it is waited for", now + 5)
    problem = preflight(run, active, seams.host)
    if problem:
        return Answer(Progress.FAILED, problem)
    if now < not_before:
        return Answer(Progress.PENDING, f"pause of {not_before - now:.0f} s before the rescue", not_before)
    watch = monitord(run, seams.host)
    if watch.state is Monitord.ALIVE:
        ended = run.history.last_time
        if ended and now - ended > _MONITORD_LIMIT:
            return Answer(Progress.FAILED, f"{watch.reason} although DAGMan is gone; end it, then heal again")
        return Answer(Progress.PENDING, f"{watch.reason}; it is given time to finish", now + 5)
    argv = command(run, seams.host)
    assert not isinstance(argv, str), "preflight has found the command"
    if watch.state is Monitord.DEAD:
        _remove_pid_file(run, seams, key, watch)
    return _submit(run, seams, key, argv)


def _remove_pid_file(run: Run, seams: Seams, key: str, watch: Watch) -> None:
    path = run.directory / "monitord.pid"
    seams.store.note(key, "", "rescue", f"monitord.pid removed: {watch.reason}")
    try:
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError as problem:
        raise DoctorError(problem.strerror or "cannot be removed", file=str(path)) from problem


def _submit(run: Run, seams: Seams, key: str, argv: tuple[str, ...]) -> Answer:
    store = seams.store
    rescue = store.begin_rescue(key, log_size(run))
    seams.tell(Event("rescue", "", f"running {' '.join(argv)}"))
    try:
        done = seams.processes.run(argv, _RUN_LIMIT, str(run.directory))
        said = (done.stderr.strip() or done.stdout.strip())[-800:]
        code = done.code
    except DoctorError as problem:
        said, code = str(problem), -1
    seams.tell(Event("rescue-submitted", "", f"pegasus-run ended with {code}"))
    with store.batch():
        store.rescue_submitted(rescue, f"pegasus-run ended with {code}" + (f": {said}" if code else ""))
    row = next(one for one in store.rescues(key) if one["id"] == rescue)
    return _look(seams.open(run.directory), seams, key, row, None)


def _look(run: Run, seams: Seams, key: str, row: dict[str, object], active: bool | None) -> Answer:
    store, now = seams.store, seams.clock()
    identity, size, intended = int(str(row["id"])), int(str(row["starts"])), float(str(row["intended"]))
    if started_beyond(run, size):
        return Answer(Progress.STARTED, "DAGMan logged its start", rescue=identity)
    limit = intended + seams.policy.rescue.start_within_s
    said = str(row["reason"])
    if row["state"] == "intended":
        if now < min(intended + _INTERRUPTED_GRACE, limit) or (active is not False and now < limit):
            return Answer(Progress.PENDING, "the rescue was interrupted; looking whether DAGMan starts", min(now + 2, limit))
        store.end_rescue(identity, key, "abandoned", "interrupted before it was submitted")
        return Answer(Progress.PENDING, "the rescue was interrupted before it was submitted; making it now", now)
    if "ended with 0" not in said and active is False:
        return Answer(Progress.FAILED, f"the rescue was not submitted: {said}", rescue=identity)
    if now < limit:
        return Answer(Progress.PENDING, "waiting for DAGMan to log its start", min(now + 2, limit))
    return Answer(Progress.FAILED, _explain(run, seams, said), rescue=identity)


def _explain(run: Run, seams: Seams, said: str) -> str:
    """Why DAGMan logged no start in time, from what is there."""
    parts = [f"DAGMan logged no start within {seams.policy.rescue.start_within_s:.0f} s of the rescue", said]
    own = run.own_events[-1] if run.own_events else None
    if own is not None and own.kind in ("held", "aborted", "executable-error"):
        parts.append(f"the DAGMan job was {own.kind}: {own.text}")
    active = dagman_active(run, seams.queue)
    parts.append({True: "it waits in the queue", False: "it is not in the queue", None: "the queue cannot be asked"}[active])
    for name in (f"{run.identity.dag}.lib.err", f"{run.identity.dag}.lib.out"):
        rows = [line.text for line in run.files.text(run.directory / name, head=0, tail=4096, quiet=True).lines if line.text.strip()]
        if rows:
            parts.append(f"{name}: {rows[-1][:300]}")
            break
    return "; ".join(part for part in parts if part)


def back_off(seams: Seams, key: str, since: float) -> float:
    """Seconds to wait before the next rescue of a session: none at first, then doubling."""
    made = len([row for row in seams.store.rescues(key, since=since) if row["state"] in ("started", "failed")])
    limits = seams.policy.rescue
    return min(limits.back_off_s * 2 ** (made - 1), limits.back_off_max_s) if made else 0.0
