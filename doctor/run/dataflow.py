"""Which job makes and which job reads a file, found by walking the DAG around one job."""

from __future__ import annotations

import os
from dataclasses import dataclass

from doctor.model import JobState
from doctor.run.reader import Job, Run
from doctor.run.transfers import Transfer, read_lof, read_transfers

_MAX_WALK = 2_000  # nodes visited in search of a producer

AUXILIARY = ("stage_in", "stage_out", "stage_inter", "stage_worker", "create_dir", "clean_up", "cleanup", "register", "chmod")


def is_auxiliary(job: Job) -> bool:
    """Whether Pegasus added the job (transfer, directory, clean-up, registration, chmod)."""
    job_class = job.submit.job_class
    if job_class:
        return job_class not in (1, 10)
    return job.name.startswith(AUXILIARY)


def is_transfer(job: Job) -> bool:
    """Whether the job's program is pegasus-transfer (its output is a transfer log)."""
    transformation = job.submit.transformation
    if transformation:
        return transformation.startswith("pegasus::") and transformation.split("::")[1] in ("transfer", "cleanup", "dirmanager", "worker")
    return job.name.startswith(AUXILIARY[:7])


def is_cleanup(job: Job) -> bool:
    """Whether the job removes files (clean-up of intermediate files, or of the whole directory)."""
    return job.submit.transformation == "pegasus::cleanup" or job.name.startswith(("clean_up_", "cleanup_"))


def inputs(job: Job) -> set[str]:
    """Logical names that the job reads."""
    names = set(_lof(job, ".in.lof"))
    if not names:
        names = {os.path.basename(path) for path in job.submit.files_of("transfer_input_files")}
    return names


def outputs(job: Job) -> set[str]:
    """Logical names that the job makes: declared outputs, or what a transfer job puts in place."""
    names = set(_lof(job, ".out.lof"))
    if not names:
        names = {os.path.basename(path) for path in job.submit.files_of("transfer_output_files")}
    return names | {entry.lfn for entry in transfers(job) if entry.kind == "transfer"}


def transfers(job: Job) -> list[Transfer]:
    path = job.beside(".in")
    return read_transfers(path, job.run.files) if path and os.path.isfile(path) else []


def _lof(job: Job, suffix: str) -> list[str]:
    path = job.beside(suffix)
    return read_lof(path, job.run.files) if path else []


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a file comes from within the workflow; ``removed_by`` is a clean-up job that deleted it."""

    producer: Job | None
    removed_by: Job | None


def origin(run: Run, lfn: str, job: Job) -> Origin:
    """Search upwards from ``job`` for the compute job that makes ``lfn``, and for a clean-up that removed it."""
    producer = _producer(run, lfn, job)
    return Origin(producer, _remover(run, lfn, job, producer))


def _producer(run: Run, lfn: str, job: Job) -> Job | None:
    seen, level, visited = {job.name}, list(job.node.parents), 0
    staged: Job | None = None
    while level and visited < _MAX_WALK:
        fresh = [name for name in dict.fromkeys(level) if name not in seen]
        seen.update(fresh)
        visited += len(fresh)
        level = []
        for parent in run.jobs(fresh[:_MAX_WALK]):
            if lfn in outputs(parent):
                if not is_auxiliary(parent):
                    return parent
                staged = staged or parent
            level.extend(parent.node.parents)
    return staged


def _remover(run: Run, lfn: str, job: Job, producer: Job | None) -> Job | None:
    """A clean-up job that ran successfully and had the file on its list."""
    around = [job, *([producer] if producer else [])]
    names = {name for one in around for name in (*one.node.children, *one.node.parents)}
    second = {child for one in run.jobs(sorted(names)[:_MAX_WALK]) for child in one.node.children}
    for candidate in run.jobs(sorted(names | second)[:_MAX_WALK]):
        if candidate.state is JobState.SUCCEEDED and is_cleanup(candidate):
            for entry in transfers(candidate):
                if entry.kind == "remove" and any(os.path.basename(url.rstrip("/")) == lfn for url in entry.destinations):
                    return candidate
    return None
