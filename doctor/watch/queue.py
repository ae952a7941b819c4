"""HTCondor's queue and pool, as pictures: one projected, constrained query for all runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from doctor.errors import DoctorError
from doctor.process import run
from doctor.watch.match import conjuncts
from doctor.watch.snapshots import QueueJob, Slot

PROJECTION = (
    "ClusterId", "ProcId", "JobStatus", "JobUniverse", "Owner", "Iwd", "DAGManJobId", "DAGNodeName", "EnteredCurrentStatus", "QDate",
    "JobCurrentStartDate", "NumJobStarts", "NumShadowStarts", "NumSystemHolds", "HoldReason", "HoldReasonCode", "HoldReasonSubCode",
    "RequestCpus", "RequestMemory", "RequestDisk", "RequestGPUs", "Requirements", "RemoteHost", "LastRemoteHost", "pegasus_wf_uuid",
    "pegasus_wf_dag_job_id", "pegasus_job_class", "pegasus_wf_xformation", "pegasus_root_wf_uuid", "Cmd",
)  # fmt: skip
_LOAD_S = 20.0
_LIMIT = 200_000  # jobs of one answer
_REQUESTS = (("cpus", "RequestCpus"), ("memory_mb", "RequestMemory"), ("disk_kb", "RequestDisk"), ("gpus", "RequestGPUs"))
_TOTALS = (
    ("cpus", "TotalSlotCpus", "Cpus"), ("memory_mb", "TotalSlotMemory", "Memory"), ("disk_kb", "TotalSlotDisk", "Disk"),
    ("gpus", "TotalSlotGPUs", "GPUs"),
)  # fmt: skip

Ads = Callable[[], list[Any]]


def constraint(owner: str) -> str:
    """DAGMan's jobs of one user: those with Pegasus' attributes, and everything that a DAGMan submitted."""
    quoted = owner.replace("\\", "").replace('"', "")
    return f'Owner == "{quoted}" && (DAGManJobId isnt undefined || pegasus_wf_uuid isnt undefined)'


def distrust_library() -> None:
    """Let nothing import htcondor2 until :func:`load_library` has proved that it loads.

    On a host whose names cannot be resolved its initialisation sleeps for a minute and longer without
    letting any other thread run.
    """
    sys.modules.setdefault("htcondor2", None)  # type: ignore[arg-type]  # an import then fails at once


def load_library() -> None:
    """Import htcondor2 once another process has shown that this takes no time. Raises :class:`DoctorError`."""
    if sys.modules.get("htcondor2") is not None:
        return
    done = run([sys.executable, "-c", "import htcondor2"], timeout=_LOAD_S)
    if done.code != 0:
        raise DoctorError(f"htcondor2 cannot be imported: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    sys.modules.pop("htcondor2", None)
    import htcondor2  # noqa: F401


class Condor:
    """The queue and the slots through htcondor2. Every call may raise; the callers back off."""

    def __init__(self, owner: str) -> None:
        self.owner = owner

    def jobs(self) -> list[QueueJob]:
        load_library()
        import htcondor2

        found = htcondor2.Schedd().query(constraint(self.owner), list(PROJECTION), limit=_LIMIT)
        return jobs_of(found)

    def slots(self) -> list[Slot]:
        """All slots that could run jobs; dynamic slots are parts of their partitionable one."""
        load_library()
        import htcondor2

        ads = htcondor2.Collector().query(htcondor2.AdType.Startd, 'SlotType =!= "Dynamic"')
        return [slot_of(ad) for ad in ads]

    @staticmethod
    def spool() -> str:
        try:
            import htcondor2

            return str(htcondor2.param.get("SPOOL") or "")
        except Exception:  # noqa: BLE001 - no HTCondor here: there is no spool either
            return ""


def jobs_of(ads: Iterable[Any]) -> list[QueueJob]:
    """Pictures of the jobs, each with the run it belongs to: the directory of the topmost DAGMan above it."""
    ads = list(ads)
    dagmans = {
        int(ad.get("ClusterId", 0)): ad
        for ad in ads
        if (int(ad.get("JobUniverse", 5)) == 7 and "pegasus_job_class" not in ad) or _is_dagman(ad)
    }

    def place(ad: Any) -> str:
        return os.path.realpath(str(ad.get("Iwd", ""))) if ad.get("Iwd") else ""

    def top(ad: Any) -> Any:
        for _ in range(32):
            above = dagmans.get(int(_number(ad.get("DAGManJobId")) or -1))
            if above is None:
                return ad
            ad = above
        return ad

    found = []
    for ad in ads:
        cluster = int(ad.get("ClusterId", 0))
        parent = dagmans.get(int(_number(ad.get("DAGManJobId")) or -1))
        mine = cluster in dagmans
        highest = top(ad)
        known = mine or parent is not None
        requests = {key: float(value) for key, name in _REQUESTS if (value := _number(ad, name)) is not None and value > 0}
        found.append(
            QueueJob(
                id=f"{cluster}.{int(ad.get('ProcId', 0))}",
                status=int(ad.get("JobStatus", 0)),
                node=str(ad.get("DAGNodeName") or ("" if mine else ad.get("pegasus_wf_dag_job_id") or "")),
                run=place(highest) if known else "",
                workflow=place(ad) if mine else place(parent) if parent is not None else "",
                dagman=str(_number(ad.get("DAGManJobId")) or ""),
                is_dagman=mine,
                owner=str(ad.get("Owner", "")),
                since=float(_number(ad, "EnteredCurrentStatus") or 0),
                queued=float(_number(ad, "QDate") or 0),
                started=float(_number(ad, "JobCurrentStartDate") or 0),
                starts=int(_number(ad, "NumJobStarts") or 0),
                holds=int(_number(ad, "NumSystemHolds") or 0),
                hold_reason=str(ad.get("HoldReason", ""))[:4096],
                hold_code=int(_number(ad, "HoldReasonCode") if _number(ad, "HoldReasonCode") is not None else -1),  # type: ignore[arg-type]
                hold_subcode=int(_number(ad, "HoldReasonSubCode") if _number(ad, "HoldReasonSubCode") is not None else -1),  # type: ignore[arg-type]
                requests=requests,
                requirements=_text(ad, "Requirements"),
                host=str(ad.get("RemoteHost") or ad.get("LastRemoteHost") or "").rpartition("@")[2],
                job_class=int(_number(ad, "pegasus_job_class") or 0),
                transformation=str(ad.get("pegasus_wf_xformation", "")),
                universe=int(ad.get("JobUniverse", 5)),
                ad=ad,
            )
        )
    return found


def _is_dagman(ad: Any) -> bool:
    return int(ad.get("JobUniverse", 5)) == 7 and str(ad.get("Cmd", "")).rpartition("/")[2] in ("pegasus-dagman", "condor_dagman")


def _number(ad: Any, name: str | None = None) -> float | None:
    try:
        value = ad if name is None else ad.get(name)
        if name is not None and value is not None and not isinstance(value, (int, float, str)):
            value = ad.eval(name)
        return None if value is None else float(value)
    except Exception:  # noqa: BLE001 - an expression that has no number here
        return None


def _text(ad: Any, name: str) -> str:
    try:
        return str(ad.lookup(name))
    except Exception:  # noqa: BLE001 - absent, or a plain mapping in a test
        return str(ad.get(name, "") or "")


def slot_of(ad: Any) -> Slot:
    offers = {}
    for key, total, plain in _TOTALS:
        value = _number(ad, total)
        value = _number(ad, plain) if value is None else value
        if value is not None:
            offers[key] = value
    free = {key: _number(ad, plain) or 0.0 for key, _, plain in _TOTALS}
    if not ad.get("PartitionableSlot") and str(ad.get("State", "Unclaimed")) != "Unclaimed":
        free = dict.fromkeys(free, 0.0)
    for key, _, plain in _TOTALS:
        if key in offers and plain != "GPUs":
            ad[plain] = offers[key]
    return Slot(str(ad.get("Name", "")), str(ad.get("Machine", "")), offers, ad, free, _text(ad, "Start")[:300])


_prepared: dict[tuple[str, int], Any] = {}  # (requirement, job's ad) -> the ad with that requirement alone, and the ad


def _with_requirement(requirement: str, job: Any) -> Any:
    """One job is compared with thousands of slots: its ad is made ready once."""
    import classad2

    known = _prepared.get((requirement, id(job)))
    if known is not None and known[1] is job:
        return known[0]
    if len(_prepared) > 200:
        _prepared.clear()
    mine = classad2.ClassAd(str(job))
    mine["Requirements"] = classad2.ExprTree(requirement)
    _prepared[requirement, id(job)] = (mine, job)
    return mine


def evaluate(requirement: str, job: Any, slot: Any) -> bool | None:
    """Whether a part of a job's requirements holds on a slot; None when that cannot be told."""
    try:
        return bool(slot.matches(_with_requirement(requirement, job)))
    except Exception:  # noqa: BLE001 - no bindings here, or an expression they do not know
        return None


def accepts(job: Any, slot: Any) -> bool | None:
    """Whether a slot's START takes a job; None when that cannot be told: START may ask for what is not in the query."""
    try:
        import classad2

        start = slot.lookup("Start")
        wanted = {str(name).rpartition(".")[2].lower() for name in slot.externalRefs(start)}
        if not wanted <= {name.lower() for name in PROJECTION}:
            return None
        policy = classad2.ClassAd(str(slot))
        policy["Requirements"] = start
        return bool(job.matches(policy))
    except Exception:  # noqa: BLE001 - no bindings here, or a slot that does not tell its policy
        return None


__all__ = ["PROJECTION", "Condor", "accepts", "conjuncts", "constraint", "evaluate", "jobs_of", "slot_of"]
