"""HTCondor's queue, through ``htcondor2`` and, where its library and the schedd do not understand each other, the host's tools.

A new ``htcondor2`` insists on binding the FS authentication to the schedd's address
(``SEC_FS_ENFORCE_CHANNEL_BINDING``), which a schedd before 24 cannot do: it may then read the queue but
not change it. The host's own ``condor_qedit``, ``condor_release`` and ``condor_hold`` fit the schedd.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from doctor.errors import DoctorError
from doctor.repair import Processes

#: The attributes that :meth:`ScheddQueue.present` fetches; never whole ads.
PROJECTION = (
    "ClusterId", "ProcId", "JobStatus", "JobUniverse", "Owner", "DAGNodeName", "DAGManJobId", "HoldReason", "HoldReasonCode",
    "HoldReasonSubCode", "EnteredCurrentStatus", "QDate", "RequestMemory", "RequestDisk", "RequestCpus", "MemoryUsage", "ResidentSetSize",
    "DiskUsage", "pegasus_wf_uuid", "pegasus_root_wf_uuid", "pegasus_wf_dag_job_id", "pegasus_wf_xformation",
)  # fmt: skip
LIMIT = 50_000  # ads of one query
TOOL_SECONDS = 60.0

_HELD = "5"
_ID = re.compile(r"^\d{1,10}\.\d{1,7}$")
_NAME = re.compile(r"^[A-Za-z_]\w{0,99}$")
_NEVER = {"owner", "clusterid", "procid", "jobstatus", "mytype", "targettype", "jobuniverse", "user"}  # condor_qedit refuses them
_OUTCOMES = {
    "TotalPermissionDenied": "permission denied",
    "TotalNotFound": "it is not in the queue",
    "TotalBadStatus": "its state does not allow it",
    "TotalError": "the schedd reported an error",
}


class ScheddQueue:
    """The queue of this host's schedd. Every failure is a :class:`DoctorError` that says what was asked."""

    def __init__(self, processes: Processes | None = None) -> None:
        self._processes = processes
        self._schedd: Any = None

    def present(self, constraint: str) -> list[dict[str, Any]]:
        """The bounded ads of the jobs that match; undefined attributes are left out."""
        return [_plain(ad) for ad in self._query(constraint, list(PROJECTION), LIMIT)]

    def get(self, job_id: str, attribute: str) -> str | None:
        """One attribute as ClassAd text (strings with quotes); None when the job or the attribute is not there."""
        cluster, proc = _checked(job_id, attribute)
        ads = self._query(f"ClusterId == {cluster} && ProcId == {proc}", [attribute], 1)
        if not ads or attribute.lower() not in {str(name).lower() for name in ads[0]}:
            return None
        text = str(ads[0].lookup(attribute))
        return None if text.lower() == "undefined" else text

    def edit(self, job_id: str, attribute: str, value: str) -> None:
        """Set an attribute to a ClassAd expression."""
        _checked(job_id, attribute)
        if attribute.lower() in _NEVER:
            raise DoctorError(f"{attribute} of job {job_id} cannot be changed in the queue")
        what = f"{attribute} = {value} for job {job_id}"
        self._status(job_id, what)
        changed = self._write(
            lambda schedd: schedd.edit(job_id, attribute, value),
            ("condor_qedit", job_id, attribute, value),
            what,
        )
        if changed == 0:
            raise DoctorError(f"{what}: the job is not in the queue")

    def release(self, job_id: str, reason: str) -> None:
        """Release a held job. The reason appears in the job event log."""
        self._act("Release", "condor_release", job_id, reason)

    def hold(self, job_id: str, reason: str) -> None:
        """Put a job on hold."""
        self._act("Hold", "condor_hold", job_id, reason)

    def _act(self, action: str, tool: str, job_id: str, reason: str) -> None:
        _checked(job_id, "JobStatus")
        what = f"{action.lower()} of job {job_id}"
        if (self._status(job_id, what) == _HELD) == (action == "Hold"):
            return  # already so
        reason = " ".join(reason.split()) or "pegasus-doctor"

        def act(schedd: Any) -> Any:
            import htcondor2

            # a plain string is dropped by htcondor2's `act`; only a (text, code) tuple arrives
            return schedd.act(getattr(htcondor2.JobAction, action), job_id, (reason, 0))

        answer = self._write(act, (tool, "-reason", reason, job_id), what)
        if answer is None or isinstance(answer, int):
            return
        if not answer.get("TotalSuccess") and not answer.get("TotalAlreadyDone"):
            why = next((text for name, text in _OUTCOMES.items() if answer.get(name)), "no answer")
            raise DoctorError(f"{what}: {why}")

    def _status(self, job_id: str, what: str) -> str:
        status = self.get(job_id, "JobStatus")
        if status is None:
            raise DoctorError(f"{what}: the job is not in the queue")
        return status

    def _connect(self) -> Any:
        if self._schedd is None:
            try:
                import htcondor2

                self._schedd = htcondor2.Schedd()
            except ImportError as problem:
                raise DoctorError(f"the Python package htcondor is not usable here: {problem}") from problem
            except Exception as problem:
                raise DoctorError(f"HTCondor's schedd does not answer ({_said(problem)}); is HTCondor running on this host?") from problem
        return self._schedd

    def _query(self, constraint: str, projection: list[str], limit: int) -> list[Any]:
        schedd = self._connect()
        try:
            return list(schedd.query(constraint, projection, limit=limit))
        except Exception as problem:
            self._schedd = None  # it may come back at another address
            raise DoctorError(f"HTCondor's schedd does not answer the query {constraint!r}: {_said(problem)}") from problem

    def _write(self, call: Any, tool: tuple[str, ...], what: str) -> Any:
        """A change through the library; through the host's tool where the library is not let in."""
        schedd = self._connect()
        try:
            return call(schedd)
        except Exception as problem:
            self._schedd = None
            said = _said(problem)
            if not any(word in said.lower() for word in ("connect", "authenticat", "performing action")):
                raise DoctorError(f"{what}: {said}") from problem
        if self._processes is None:
            raise DoctorError(
                f"{what}: {said}. If this host's HTCondor is older than 24, set SEC_FS_ENFORCE_CHANNEL_BINDING = False in its configuration"
            )
        done = self._processes.run(tool, TOOL_SECONDS)
        if done.code != 0:
            raise DoctorError(f"{what}: {tool[0]} says {(done.stderr or done.stdout).strip()[-300:]}")
        return None


def largest_slot() -> dict[str, int]:
    """The most that any slot of the pool offers, as parameters of lower-request. Raises :class:`DoctorError`."""
    names = ["TotalSlotMemory", "TotalSlotDisk", "TotalSlotCpus", "TotalSlotGPUs", "Memory", "Disk", "Cpus", "GPUs"]
    try:
        import htcondor2

        ads = htcondor2.Collector().query(htcondor2.AdType.Startd, 'MyType == "Machine" || true', names)
    except Exception as problem:
        raise DoctorError(f"HTCondor's collector does not answer: {_said(problem)}") from problem
    best = {"memory_mb": 0, "disk_mb": 0, "cpus": 0, "gpus": 0}
    for ad in ads:
        plain = _plain(ad)
        for key, name, unit in (("memory_mb", "Memory", 1), ("disk_mb", "Disk", 1024), ("cpus", "Cpus", 1), ("gpus", "GPUs", 1)):
            value = plain.get(f"TotalSlot{name}", plain.get(name, 0))
            best[key] = max(best[key], int(value) // unit if isinstance(value, (int, float)) else 0)
    if ads and best["gpus"] == 0:
        best["gpus"] = -1
    return best


def _plain(ad: Any) -> dict[str, Any]:
    values = {}
    for name in ad:
        value = None
        with contextlib.suppress(Exception):  # an expression that does not evaluate is not known
            value = ad.eval(name)
        if isinstance(value, bool | int | float | str) and type(value).__module__ == "builtins":
            values[str(name)] = value
    return values


def _checked(job_id: str, attribute: str) -> tuple[str, str]:
    if not _ID.match(job_id):
        raise DoctorError(f"{job_id!r} is no job id such as 884.0")
    if not _NAME.match(attribute):
        raise DoctorError(f"{attribute!r} is no attribute name")
    cluster, _, proc = job_id.partition(".")
    return cluster, proc


def _said(problem: Exception) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__
