"""One run as an object: a submit directory, its DAG, its history and its sub-workflows, all lazy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from doctor.errors import NotARunError
from doctor.model import JobCounts, JobState
from doctor.run import catalogs, stampede
from doctor.run.braindump import Identity, read_identity
from doctor.run.dag import Dag, Node
from doctor.run.dagmanlog import DagmanLog, read_dagman_log
from doctor.run.events import JobEvent, read_events
from doctor.run.exitcode import PostVerdict, read_verdicts
from doctor.run.files import Files, Ledger
from doctor.run.jobstate import Attempt, History
from doctor.run.monitord import monitord_runs
from doctor.run.paths import PathMap
from doctor.run.recover import history_from_dagman
from doctor.run.rescue import RescueDag, read_rescue, rescue_files
from doctor.run.submitfile import SubmitFile, read_submit_file

_MAX_DEPTH = 32
_SILENT_S = 60.0  # by which DAGMan is ahead of jobstate.log when nobody writes that any more
_MAX_NUMBER = 1000  # of .out.NNN (pegasus-exitcode: 0 to 999)
_DAG_ARGUMENT = re.compile(r"(?:^|\s)-Dag\s+(\S+)")
_NUMBERED = re.compile(r"\.(\d{3})$")


@dataclass(frozen=True, slots=True)
class JobFiles:
    """Output files of one attempt. ``number`` is NNN of ``.out.NNN``, None for a not yet renamed file."""

    number: int | None
    out: Path | None
    err: Path | None


@dataclass(slots=True)
class Job:
    """One DAG node with what is known of it without opening its records."""

    run: Run
    name: str
    node: Node
    state: JobState
    attempts: list[Attempt] = field(default_factory=list)
    _submit: SubmitFile | None = None
    _path: Path | None = None

    @property
    def submit_path(self) -> Path | None:
        if self._path is None and self.node.submit_file:
            self._path = self.run.directory / self.node.directory / self.node.submit_file
        return self._path

    @property
    def submit(self) -> SubmitFile:
        """The submit file, read on first use."""
        if self._submit is None:
            path = self.submit_path
            self._submit = read_submit_file(path, self.run.files) if path else SubmitFile()
        return self._submit

    def beside(self, suffix: str) -> Path | None:
        """A file of this job such as ``.in`` or ``.out.lof`` (it need not exist)."""
        path = self.submit_path
        return path.parent / f"{path.name.removesuffix('.sub')}{suffix}" if path else None

    def outputs(self) -> list[JobFiles]:
        """Output files that exist, oldest attempt first; a file not yet renamed comes last."""
        path = self.submit_path
        return _outputs(str(path).removesuffix(".sub"), len(self.attempts)) if path else []


class Run:
    """A submit directory. Open one with :func:`open_run`; sub-workflows hang below it."""

    def __init__(self, directory: Path, files: Files, paths: PathMap, *, parent: Run | None = None, node: str = "") -> None:
        self.directory = directory
        self.files = files
        self.parent = parent
        self.node = node  # the parent's DAG node that this run is
        self.depth: int = parent.depth + 1 if parent else 0
        self.identity: Identity = read_identity(directory, files)
        self.paths = paths.under(self.identity.submit_dir, directory)

    @property
    def name(self) -> str:
        """Workflow label with run-relative directory, as shown in reports; '' for the root."""
        return "" if self.parent is None else self.files.name(self.directory)

    @cached_property
    def dag(self) -> Dag:
        return Dag(self.directory / (self.identity.dag or "missing.dag"), self.files)

    @cached_property
    def recorded(self) -> History:
        """jobstate.log as monitord wrote it; it may be absent, or end too early where monitord died."""
        return History(self.directory / self.identity.jsd, self.files, quiet=not os.path.exists(self.dagman_path))

    @cached_property
    def history(self) -> History:
        """The job states: jobstate.log, or what dagman.out tells where that is absent or ends too early."""
        log = self.recorded
        ended = any(entry.what == "DAGMAN_FINISHED" for entry in log.internal)
        if not os.path.exists(self.dagman_path):
            return log
        if log.latest and (ended or (self.dagman.exit_status is None and not self._monitord_is_silent())):
            return log
        rebuilt = history_from_dagman(self.dagman_path, self.files)
        return rebuilt if len(rebuilt.latest) > len(log.latest) or rebuilt.moved_beyond(log) else log

    def _monitord_is_silent(self) -> bool:
        """DAGMan goes on writing, jobstate.log has not grown with it, and no monitord of this host is at work."""
        try:
            behind = os.stat(self.dagman_path).st_mtime - os.stat(self.directory / self.identity.jsd).st_mtime
        except OSError:
            return False
        return behind > _SILENT_S and not monitord_runs(self)

    @property
    def dagman_path(self) -> Path:
        return self.directory / f"{self.identity.dag}.dagman.out"

    @cached_property
    def dagman(self) -> DagmanLog:
        return read_dagman_log(self.dagman_path, self.files)

    @cached_property
    def events(self) -> list[JobEvent]:
        return read_events(self.directory / self.identity.condor_log, self.files)

    @cached_property
    def own_events(self) -> list[JobEvent]:
        """Holds, evictions and removals of the DAGMan job itself (``<dag>.dagman.log``), oldest first."""
        return read_events(self.directory / f"{self.identity.dag}.dagman.log", self.files)

    @cached_property
    def _events_by_id(self) -> dict[str, list[JobEvent]]:
        found: dict[str, list[JobEvent]] = {}
        for event in self.events:
            found.setdefault(event.condor_id, []).append(event)
        return found

    def events_of(self, condor_id: str) -> list[JobEvent]:
        """Holds, evictions and the like of one HTCondor job."""
        return self._events_by_id.get(condor_id, [])

    @cached_property
    def database_reasons(self) -> dict[str, str]:
        """Hold reasons from the Stampede database, for when the event log lacks them."""
        stem = self.identity.dag.removesuffix(".dag")
        return stampede.hold_reasons(self.directory / f"{stem}.stampede.db", self.files)

    @cached_property
    def rescues(self) -> list[Path]:
        """Rescue DAGs of this run, oldest first."""
        return rescue_files(self.directory, self.identity.dag, self.files)

    @cached_property
    def last_rescue(self) -> RescueDag | None:
        """The newest rescue DAG, which is the one that DAGMan would go on from."""
        return read_rescue(self.rescues[-1], self.files) if self.rescues else None

    def post_verdict(self, name: str) -> PostVerdict | None:
        """What pegasus-exitcode made of a job's latest attempt; None when it was never asked or its log is gone."""
        stem = self.identity.dag.removesuffix(".dag")
        return read_verdicts(self.directory / f"{stem}.exitcode.log", self.files, {name}).get(name)

    @cached_property
    def abstract(self) -> Any:
        """The abstract workflow as planned, or None where it is not (readably) there."""
        candidates = [self.directory / os.path.basename(self.identity.dax or "workflow.yml"), self.directory / "workflow.yml"]
        candidates += [self.paths.local(self.identity.dax)] if self.identity.dax.startswith("/") else []
        documents = (catalogs.load_yaml(path, self.files, outside=True) for path in candidates)
        return next((document for document in documents if isinstance(document, dict)), None)

    def _catalog(self, name: str) -> Any:
        return catalogs.load_yaml(self.directory / "catalogs" / name, self.files)

    @cached_property
    def executables(self) -> list[catalogs.Executable]:
        return catalogs.executables(self._catalog("transformations.yml")) + catalogs.executables(self.abstract)

    @cached_property
    def containers(self) -> list[tuple[str, str]]:
        return catalogs.containers(self._catalog("transformations.yml")) + catalogs.containers(self.abstract)

    @cached_property
    def replicas(self) -> dict[str, list[str]]:
        return {**catalogs.replicas(self.abstract), **catalogs.replicas(self._catalog("replicas.yml"))}

    @cached_property
    def storage(self) -> list[tuple[str, str, str]]:
        return catalogs.storage_directories(self._catalog("sites.yml")) + catalogs.storage_directories(self.abstract)

    def job(self, name: str) -> Job:
        """One DAG node with its attempts."""
        return self.jobs([name])[0]

    def jobs(self, names: list[str]) -> list[Job]:
        """Several nodes at once (one pass over DAG and log each where they are large)."""
        nodes = self.dag.nodes(names)
        attempts = self.history.attempts(names)
        latest = self.history.latest
        return [
            Job(self, name, nodes.get(name) or Node(name), latest.get(name.encode(), JobState.UNSUBMITTED), attempts[name])
            for name in names
        ]

    @cached_property
    def children(self) -> dict[str, Run | None]:
        """Sub-workflows by DAG node; None where planning left no DAG (see the planner's log)."""
        return {name: self._child(node) for name, node in self.dag.sub_workflows.items()} if self.depth < _MAX_DEPTH else {}

    def _child(self, node: Node) -> Run | None:
        if node.sub_dag:
            recorded, dag = os.path.join(node.directory, node.sub_dag), os.path.basename(node.sub_dag)
            directory = (self.paths.local(recorded) if recorded.startswith("/") else self.directory / recorded).parent
        else:
            submit = self.job(node.name).submit
            found = _DAG_ARGUMENT.search(submit.get("arguments").strip('" '))
            dag = os.path.basename(found[1]) if found else ""
            start = submit.get("initialdir")
            if not start:
                return None
            directory = self.paths.local(start)
        real = _latest_plan(directory)
        if real is None or (dag and not os.path.isfile(real / dag)):
            return None
        seen = {os.path.realpath(run.directory) for run in self.lineage()}
        if os.path.realpath(real) in seen:
            self.files.ledger.note(self.files.name(real), "sub-workflow directory that leads back to its parent; not followed")
            return None
        if os.path.isfile(real / "braindump.yml"):
            self.files.admit(real)
        if not self.files.may_read(real):
            return None
        return Run(real, self.files, self.paths, parent=self, node=node.name)

    def lineage(self) -> Iterator[Run]:
        """This run, its parent, and so on up to the root."""
        run: Run | None = self
        while run is not None:
            yield run
            run = run.parent

    def tree(self) -> Iterator[Run]:
        """This run and all sub-workflows below it, parents first."""
        stack = [self]
        while stack:
            run = stack.pop()
            yield run
            stack.extend(child for child in reversed(list(run.children.values())) if child is not None)

    @cached_property
    def counts(self) -> JobCounts:
        """Jobs of this DAG alone, by latest state; from the rescue DAG when both logs are gone."""
        if not self.history.latest and self.last_rescue is not None:
            done, failed = self.last_rescue.done, len(self.last_rescue.failed)
            total = max(self.dag.count, done + failed)
            return JobCounts(total=total, succeeded=done, failed=failed, unsubmitted=total - done - failed)
        tally = dict.fromkeys(JobState, 0)
        for state in self.history.latest.values():
            tally[state] += 1
        seen = len(self.history.latest)
        total = max(self.dag.count, seen)
        return JobCounts(
            total=total,
            succeeded=tally[JobState.SUCCEEDED],
            failed=tally[JobState.FAILED],
            held=tally[JobState.HELD],
            running=tally[JobState.RUNNING],
            queued=tally[JobState.QUEUED],
            unsubmitted=total - seen + tally[JobState.UNSUBMITTED],
        )


def _outputs(stem: str, attempts: int) -> list[JobFiles]:
    """``stem.out.NNN`` and ``.err.NNN``, for which pegasus-exitcode takes the next free number.

    The names are tried one by one: a listing of a large submit directory takes longer than all else
    that is read of a job. A gap ends the search only past the number of attempts.
    """
    found: list[JobFiles] = []
    if "\0" in stem:
        return found
    there = os.path.lexists
    for number in range(_MAX_NUMBER):
        out, err = f"{stem}.out.{number:03d}", f"{stem}.err.{number:03d}"
        if (out_there := there(out)) | (err_there := there(err)):
            found.append(JobFiles(number, Path(out) if out_there else None, Path(err) if err_there else None))
        elif number > attempts:
            break
    out, err = f"{stem}.out", f"{stem}.err"
    if _size(out) or _size(err):
        found.append(JobFiles(None, Path(out) if there(out) else None, Path(err) if there(err) else None))
    return found


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _latest_plan(directory: Path) -> Path | None:
    """The directory of a sub-workflow: the link's target, else the highest ``<dir>.NNN`` of a copy."""
    if os.path.isdir(directory):
        return Path(os.path.realpath(directory)) if os.path.islink(directory) else directory
    parent, base = directory.parent, directory.name
    try:
        plans = sorted(name for name in os.listdir(parent) if name.startswith(f"{base}.") and _NUMBERED.search(name))
    except (OSError, ValueError):
        return None
    return parent / plans[-1] if plans else None


def open_run(directory: Path, ledger: Ledger, maps: PathMap | None = None) -> Run:
    """Open a submit directory.

    Raises :class:`NotARunError` when it is none; names runs that lie below it where there are some.
    """
    maps = maps or PathMap()
    if not os.path.exists(directory):
        raise NotARunError(f"{directory}: no such directory")
    if not directory.is_dir():
        raise NotARunError(f"{directory}: not a directory; give the submit directory of a run (the one with braindump.yml)")
    root = directory.resolve()
    try:
        names = os.listdir(root)
    except OSError as problem:
        raise NotARunError(f"{directory}: {os.strerror(problem.errno or 0)}") from problem
    if not any(name == "braindump.yml" or name.endswith(".dag") for name in names):
        below = (
            sorted(path.parent for path in root.glob("*/*/*/*/braindump.yml"))[:3]
            or sorted(path.parent for depth in range(1, 8) for path in root.glob("/".join(["*"] * depth) + "/braindump.yml"))[:3]
        )
        hint = f"; runs below it: {', '.join(str(path) for path in below)}" if below else ""
        raise NotARunError(f"{directory}: not a Pegasus submit directory (no braindump.yml, no .dag){hint}")
    return Run(root, Files(root, ledger, maps.roots), maps)
