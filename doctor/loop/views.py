"""What the actions may know of a run: plain views, built from the run reader and, where given, the queue."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from doctor.model import JobState
from doctor.repair import JobView, Queue, RunView
from doctor.run.nearby import Nearby
from doctor.run.paths import local_path
from doctor.run.reader import Job, Run
from doctor.run.state import run_state, total_counts

_SIBLINGS = 500  # other jobs of the same program that are looked at
_MOST = 5_000  # jobs of one state
_OPEN = (JobState.FAILED, JobState.HELD, JobState.QUEUED, JobState.RUNNING)
_UUID = re.compile(r"^[0-9A-Za-z-]{1,64}$")
_IN_QUEUE = (1, 2, 5, 6, 7)  # idle, running, held, transferring output, suspended
_HELD = 5
_SCHEDULER_UNIVERSE = 7

Ads = dict[tuple[str, str], list[dict[str, Any]]]


def build(run: Run, queue: Queue | None = None, names: Iterable[str] | None = None) -> RunView:
    """The view of a run (the root) with the named jobs, wherever in the tree they are.

    Without names: all jobs that failed, are held, wait or run. Jobs that run the same program as one of
    these, and have not succeeded, are included too. Raises :class:`doctor.errors.DoctorError` when a
    queue is given and does not answer.
    """
    wanted = None if names is None else set(names)
    ads, dagman = _in_queue(run, queue) if queue is not None else ({}, None)
    jobs: dict[str, JobView] = {}
    for part in run.tree():
        around = [Nearby(one) for one in part.lineage()]
        for job in _jobs(part, wanted):
            view = _job(job, around, ads.get((part.identity.wf_uuid, job.name), []), queue is not None)
            key = job.name if job.name not in jobs else f"{part.name}/{job.name}"
            jobs[key] = view
    state, _ = run_state(run, total_counts(run))
    identity = run.identity
    properties = _properties(run)
    return RunView(
        submit_dir=str(run.directory),
        root_dir=str(run.directory),
        dag_file=str(run.directory / identity.dag) if identity.dag else "",
        planner_arguments=identity.planner_arguments,
        properties_file=str(run.directory / identity.properties) if identity.properties else "",
        replica_catalog=_replica_catalog(run, properties),
        active=_active(run, dagman),
        state=state.value,
        jobs=jobs,
        bindir=identity.bindir,
        scratch_dirs=_places(run, "scratch"),
        output_dirs=_places(run, "storage"),
        workflow_file=_local(run, identity.dax),
        base_dir=_local(run, identity.basedir),
    )


def _jobs(part: Run, wanted: set[str] | None) -> Iterator[Job]:
    """The wanted jobs of one DAG that have not succeeded, and those that run the same programs."""
    latest = part.history.latest
    if wanted is None:
        wanted = {name for state in _OPEN for name in part.history.names(state)[:_MOST]}
    known = part.dag.nodes(wanted)
    named = [job for job in part.jobs(sorted(known)) if job.state is not JobState.SUCCEEDED]
    yield from named
    stems = {stem: job.submit.transformation for job in named if (stem := _stem(job))}
    if not stems:
        return
    starts = tuple(f"{stem}_" for stem in stems)
    others = [
        name
        for name in part.dag.all_names()
        if name.startswith(starts) and name not in known and latest.get(name.encode()) is not JobState.SUCCEEDED
    ]
    for job in part.jobs(others[:_SIBLINGS]):
        if job.submit.transformation in stems.values():
            yield job


def _stem(job: Job) -> str:
    """``assay`` of a compute job ``assay_merge`` (transformation and id in the abstract workflow)."""
    identity = job.submit.attribute("pegasus_wf_dax_job_id")
    if job.submit.job_class != 1 or not identity or not job.name.endswith(f"_{identity}"):
        return ""
    return job.name[: -len(identity) - 1]


def _job(job: Job, around: list[Nearby], ads: list[dict[str, Any]], asked: bool) -> JobView:
    part, submit = job.run, job.submit
    script = job.beside(".sh")
    transfers = job.beside(".in")
    condor_id = job.attempts[-1].condor_id if job.attempts else ""
    events = part.events_of(condor_id) if condor_id else []
    hold = next((event for event in reversed(events) if event.kind in ("held", "remote-error") and event.code >= 0), None)
    held = any(ad.get("JobStatus") == _HELD for ad in ads) if asked else job.state is JobState.HELD
    codes = next(((ad.get("HoldReasonCode"), ad.get("HoldReasonSubCode")) for ad in ads if ad.get("JobStatus") == _HELD), None)
    if codes is None:
        codes = (hold.code, hold.subcode) if hold is not None else (-1, -1)
    has_script = script is not None and script.is_file()
    configuration = _configuration(job, has_script)
    place = submit.get("initialdir") if configuration == "condorio" else submit.get("remote_initialdir")
    if configuration == "sharedfs" and not place:
        place = submit.environment().get("PEGASUS_SCRATCH_DIR", "")
    return JobView(
        name=job.name,
        workflow_dir=str(part.directory),
        dag_file=str(part.dag.path),
        submit_file=str(job.submit_path or ""),
        script=str(script) if has_script else "",
        transfer_file=str(transfers) if transfers is not None and transfers.is_file() else "",
        executable=_executable(job, around),
        transformation=submit.transformation,
        site=submit.site,
        data_configuration=configuration,
        initialdir=_local(part, place),
        queue_ids=tuple(f"{ad['ClusterId']}.{ad['ProcId']}" for ad in ads),
        held=held,
        hold_code=codes[0] if isinstance(codes[0], int) else -1,
        hold_subcode=codes[1] if isinstance(codes[1], int) else -1,
        memory_used_mb=max([event.memory_mb for event in events] + [_number(ad.get("MemoryUsage")) for ad in ads], default=0),
        disk_used_kb=max([event.disk_kb for event in events] + [_number(ad.get("DiskUsage")) for ad in ads], default=0),
        requests={key: submit.get(key) for key in submit.values if key.startswith(("request_", "pegasus_"))},
    )


def _configuration(job: Job, has_script: bool) -> str:
    """The data configuration as the job's own files show it (it may differ between jobs)."""
    if has_script:
        return "condorio" if job.submit.get("initialdir") else "nonsharedfs"
    if job.submit.get("remote_initialdir") or "PEGASUS_SCRATCH_DIR" in job.submit.environment():
        return "sharedfs"
    return _properties(job.run).get("pegasus.data.configuration", "condorio")


def _executable(job: Job, around: list[Nearby]) -> str:
    """The program in its registered place on this host; '' when it is a URL or not in the catalogs."""
    for nearby in around:
        entry = nearby.executable(job)
        if entry is not None:
            recorded = local_path(entry.pfn)
            return str(job.run.paths.local(recorded)) if recorded else ""
    return ""


def _properties(run: Run) -> dict[str, str]:
    values: dict[str, str] = {}
    text = run.files.text(run.directory / run.identity.properties, quiet=True) if run.identity.properties else None
    for line in text.lines if text else ():
        key, sign, value = line.text.partition("=")
        if sign and not key.lstrip().startswith("#"):
            values[key.strip()] = re.sub(r"\\([:=# !])", r"\1", value.strip())
    return values


def _replica_catalog(run: Run, properties: dict[str, str]) -> str:
    """The catalog file that planning read: as the properties say, else beside the workflow."""
    named = properties.get("pegasus.catalog.replica.file", "")
    if named.startswith("/"):
        return _local(run, named)
    folder = os.path.dirname(_local(run, run.identity.dax))
    candidates = [os.path.join(folder, named)] if named else [os.path.join(folder, name) for name in ("replicas.yml", "rc.txt")]
    return next((path for path in candidates if folder and os.path.isfile(path)), "")


def _places(run: Run, kind: str) -> tuple[str, ...]:
    found = [_local(run, place) for _, what, place in run.storage if kind in what.lower() and place.startswith("/")]
    return tuple(dict.fromkeys(found))


def _local(run: Run, recorded: str) -> str:
    return str(run.paths.local(recorded)) if recorded.startswith(("/", "file://")) else ""


def _number(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def _in_queue(run: Run, queue: Queue) -> tuple[Ads, bool]:
    """Ads of the tree's jobs by (workflow, DAG node), and whether the root's DAGMan is in the queue."""
    uuid = run.identity.root_wf_uuid or run.identity.wf_uuid
    if not _UUID.match(uuid):
        return {}, False
    ads: Ads = {}
    dagman = False
    for ad in queue.present(f'pegasus_root_wf_uuid == "{uuid}"'):
        if ad.get("JobStatus") not in _IN_QUEUE:
            continue
        own = str(ad.get("pegasus_wf_uuid", ""))
        if ad.get("JobUniverse") == _SCHEDULER_UNIVERSE and own == run.identity.wf_uuid and "DAGNodeName" not in ad:
            dagman = True
        name = str(ad.get("DAGNodeName") or ad.get("pegasus_wf_dag_job_id") or "")
        if name:
            ads.setdefault((own, name), []).append(ad)
    return ads, dagman


def _active(run: Run, dagman: bool | None) -> bool | None:
    """Whether DAGMan is in the queue; without a queue only its own last word in the log is proof."""
    if dagman is not None:
        return dagman
    if run.dagman.exit_status in (0, 1, 2):
        return False
    return None
