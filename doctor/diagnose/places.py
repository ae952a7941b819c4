"""Where it happened: which file system was full, what was refused, which stage of the wrapper failed.

Refiners like those of :mod:`doctor.diagnose.structure`, for causes that a place tells apart.
"""

from __future__ import annotations

import os
import re

from doctor.diagnose.verdict import Verdict
from doctor.model import Evidence, Kind
from doctor.run.dataflow import is_cleanup, outputs
from doctor.run.nearby import Nearby

WRITING = re.compile(
    r"""open\([^)]*,\s*(?:mode\s*=\s*)?['"][wax]|for writing|to_(?:csv|parquet|pickle|json|hdf)\(|savez?\(|savefig\("""
    r"""|makedirs?\(|mkdir\(|write_|\bofstream\b"""
)
_READING = re.compile(r"not readable|for reading|cannot open|can't open|reading from")
_CREATING = re.compile(r"(?i)cannot create|failed to create|can't create|mkdir")


def code_line(verdict: Verdict) -> str:
    """Source lines that a traceback shows around the finding."""
    first = verdict.evidence[0] if verdict.evidence else None
    if first is None or first.line is None:
        return ""
    for channel in verdict.facts.channels:
        if channel.file == first.file and channel.kind is first.kind:
            near = [line.text for line in channel.lines if line.number is not None and first.line - 12 <= line.number <= first.line]
            return "\n".join(near)
    return first.text


def disk_place(verdict: Verdict, nearby: Nearby) -> None:
    """Which file system was full: output storage, scratch, the execute node's sandbox or the submit host."""
    if verdict.cause == "disk/quota-exceeded":
        return
    facts, run = verdict.facts, verdict.facts.job.run
    job_class, text = facts.job.submit.job_class, " ".join(one.text for one in verdict.evidence)
    storage = [(kind.lower(), place.rstrip("/")) for _, kind, place in run.storage if place.startswith("/")]
    scratch_places = [place for kind, place in storage if "scratch" in kind]
    output_places = [place for kind, place in storage if "storage" in kind]
    cwd = (facts.record.fields.get("cwd", "") if facts.record else "") or facts.job.submit.get("remote_initialdir")
    if verdict.evidence and verdict.evidence[0].file.endswith((".lib.err", ".lib.out", "monitord.log", ".dagman.out")):
        place, why = "submit-disk-full", "DAGMan or monitord itself could not write on the submit host"
    elif facts.transfer_job and job_class == 3:
        place, why = "output-storage-full", "a stage-out job was writing to the output storage"
    elif any(place + "/" in text for place in output_places):
        place, why = "output-storage-full", "the file lies on the output storage"
    elif run.identity.submit_dir and run.identity.submit_dir + "/" in text:
        place, why = "submit-disk-full", "the file lies in the submit directory"
    elif any(place + "/" in text for place in scratch_places) or (facts.transfer_job and job_class in (2, 4, 6)):
        place, why = "scratch-full", "the file lies on the scratch file system"
    elif (cwd and any(cwd.startswith(place) for place in scratch_places)) or (cwd and facts.job.submit.get("remote_initialdir") == cwd):
        place, why = "scratch-full", "the job was working in the scratch directory"
    elif facts.lite.stage == "stage-out" and facts.lite.step_failed:
        place, why = "scratch-full", "the wrapper was staging outputs to the scratch file system"
    elif verdict.cause == "disk/scratch-full" and (cwd or facts.lite.present):
        place, why = "execute-disk-full", f"the job was working in its sandbox on the execute node ({cwd or 'PegasusLite work directory'})"
    else:
        place, why = verdict.cause.split("/")[1], ""
    if why:
        verdict.change(f"disk/{place}", "structure:disk-place", max(verdict.confidence, 0.85), f"No space was left, and {why}.")
    if not storage:
        verdict.confidence = min(verdict.confidence, 0.75)
        verdict.reasons.append("The site catalog is not to be had, so the place is a guess.")
    if place == "scratch-full":
        _why_scratch_filled(verdict)


def _why_scratch_filled(verdict: Verdict) -> None:
    root = list(verdict.facts.job.run.lineage())[-1]
    run = verdict.facts.job.run
    image_runs = [part for part in root.tree() if part.containers] if root.children or run.containers else []
    if len(image_runs) > 1 or (run.containers and len(root.children) > 1):
        verdict.change(
            "disk/image-copies",
            "structure:image-copies",
            0.8,
            f"{len(image_runs)} (sub-)workflows each stage the container image into scratch.",
        )
        return
    arguments = run.identity.planner_arguments
    names = run.dag.all_names()
    cleans = any(
        is_cleanup(job) and not job.name.startswith("cleanup_")
        for job in run.jobs([name for name in names if name.startswith("clean")][:5])
    )
    said_none = re.search(r"--cleanup[ =]none", arguments) or _property(verdict, "pegasus.file.cleanup.strategy") == "none"
    if said_none or (names and not cleans and len(names) > 3 and "--cleanup" not in arguments):
        how = "the workflow was planned with --cleanup none" if said_none else "the DAG has no clean-up jobs"
        verdict.change(
            "disk/cleanup-disabled", "structure:no-cleanup", 0.9, f"Scratch filled because every intermediate file is kept: {how}."
        )


def _property(verdict: Verdict, name: str) -> str:
    run = verdict.facts.job.run
    text = run.files.text(run.directory / run.identity.properties, quiet=True) if run.identity.properties else None
    for line in text.lines if text else ():
        key, sign, value = line.text.partition("=")
        if sign and key.strip() == name:
            return value.strip().lower()
    return ""


def _stage(verdict: Verdict) -> str:
    """PegasusLite's stage in which the first line of evidence was written."""
    first, facts = next(iter(verdict.evidence), None), verdict.facts
    return facts.lite.stage_at(first.line) if first is not None and first.file == facts.err_name else ""


def container_image(verdict: Verdict, nearby: Nearby) -> None:
    """The file that could not be had is the container image, not an input."""
    facts = verdict.facts
    images = {os.path.basename(image.rstrip("/")) for _, image in facts.job.run.containers} | {name for name, _ in facts.job.run.containers}
    about_image = _stage(verdict) == "container-image"
    if about_image or (verdict.subject and os.path.basename(verdict.subject.rstrip("/")) in images):
        missing = verdict.cause in ("staging/input-missing", "staging/remote-not-found", "staging/input-moved")
        cause = "container/image-missing" if missing else "container/image-pull-failed"
        verdict.change(cause, "structure:container-image", max(verdict.confidence, 0.85), "What could not be had is the container's image.")


def worker_package(verdict: Verdict, nearby: Nearby) -> None:
    """The wrapper stopped while it looked for the Pegasus worker package."""
    facts = verdict.facts
    if facts.record is None and _stage(verdict) == "worker-package":
        why = "PegasusLite found no Pegasus worker package that fits the node, and could not fetch one."
        verdict.change("dependency/worker-package-mismatch", "structure:worker-package", 0.85, why)
        lines = [line for line in facts.lite.wrapper if "worker package" in line.text]
        verdict.evidence += [Evidence(facts.err_name, line.number, line.text, Kind.LITE) for line in lines[-2:]]


def permission_place(verdict: Verdict, nearby: Nearby) -> None:
    """Whether the refused path is the program, something to be written, or something to be read."""
    facts = verdict.facts
    if facts.step.exit_code == 126 and verdict.cause == "permissions/file-not-accessible":
        verdict.change(
            "permissions/executable-not-executable",
            "structure:permission-place",
            0.85,
            "The shell found the program but may not execute it (exit code 126).",
        )
        return
    text, path = " ".join(one.text for one in verdict.evidence), verdict.subject
    base = os.path.basename(path.rstrip("/"))
    if verdict.cause != "permissions/file-not-accessible" or _READING.search(text):
        return
    made = bool(base) and not facts.transfer_job and base in outputs(facts.job)
    stored = facts.transfer_job and facts.job.submit.job_class == 3
    if made or stored or _CREATING.search(text) or WRITING.search(code_line(verdict)):
        verdict.change("permissions/output-dir-not-writable", "structure:permission-place", 0.85, "The path is one that the job writes.")
