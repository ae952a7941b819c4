"""What the shape of a run says that no single line does: refining the verdict on one attempt.

Each refiner takes the verdict and may name another cause, with its reason. They are listed in
:data:`REFINERS` by the causes that they look at; the order of the list is the order of application.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from doctor.diagnose.evidence import describe
from doctor.diagnose.places import WRITING, code_line, container_image, disk_place, permission_place, worker_package
from doctor.diagnose.verdict import Verdict
from doctor.model import Evidence, Kind, Symptom
from doctor.run.dataflow import inputs, outputs, transfers
from doctor.run.kickstart import Record
from doctor.run.nearby import Nearby, Script

Refiner = Callable[[Verdict, Nearby], None]

_LISTING = re.compile(r"\b(?:os\.)?(?:listdir|scandir|walk|iterdir|glob|list\.files|readdir|opendir)\b|\bls: cannot access|\bfind: ")
_UNREACHED = {"staging/endpoint-unreachable", "staging/transfer-timeout", "network/dns-failure", "network/network-transient"}
_UNSEEN = 0.75  # ceiling of the confidence where what would tell two causes apart cannot be seen
_EXEC_WORDS = re.compile(r"execv: |Unable to execute the specified binary")


def helper_file(verdict: Verdict, nearby: Nearby) -> None:
    """A module or script that is the workflow's own was not declared; it is not a missing package or tool."""
    name = verdict.subject
    if not name:
        return
    if verdict.cause == "dependency/python-package-missing":
        path = nearby.module(name)
        if path is None and nearby.script(verdict.facts.job) is None:
            verdict.confidence = min(verdict.confidence, _UNSEEN)
            verdict.reasons.append(
                "The workflow's own files cannot be seen from here, so it may also be a helper of its own that was not declared."
            )
    else:
        base = os.path.basename(name.rstrip("/"))
        path = next(iter(nearby.find(base)), None) if "." in base or "/" in name else None
        if path is not None and (base in inputs(verdict.facts.job) or base in outputs(verdict.facts.job)):
            return
    if path is None or path.name in inputs(verdict.facts.job):
        return
    place = verdict.facts.job.run.paths.recorded(path)
    why = f"{name} is no installed package or tool: {place} lies among the workflow's own files, but the job does not declare it."
    verdict.change("dependency/undeclared-helper-file", "structure:undeclared-helper", 0.93, why)
    verdict.remedies = [("add-input-file", {"lfn": path.name, "pfn": place})]


def exec_failure(verdict: Verdict, nearby: Nearby) -> None:
    """The program could not be started: line endings, interpreter, execute bit or the file itself."""
    facts = verdict.facts
    step, record = facts.step, facts.record
    texts = [line.text for channel in facts.channels if channel.kind in (Kind.STDERR, Kind.LITE) for line in channel.lines[-50:]]
    errno_text = step.failure_error or " ".join(text for text in texts if _EXEC_WORDS.search(text))
    started = not (step.failure_error or (step.raw is not None and step.raw < 0) or any(_EXEC_WORDS.search(text) for text in texts))
    if started or step.exit_code not in (None, 126, 127):
        return
    script = nearby.script(facts.job)
    if record is not None and record.executable_error:
        lfn = os.path.basename(record.executable)
        if lfn in inputs(facts.job):
            verdict.change(
                "staging/input-missing", "structure:exec-failure", 0.8, f"The program {lfn} was staged for the job, and was gone."
            )
            verdict.subject = lfn
            return
    cause, why = _why_not_started(record, script, errno_text)
    confidence = 0.92 if script or step.failure_error else 0.6
    verdict.change(cause, "structure:exec-failure", confidence, f"The program could not be started ({describe(step)}): {why}.")
    verdict.subject = script.interpreter if script and script.interpreter else (record.executable if record else "")
    if script is not None and script.first_line.startswith(b"#!"):
        verdict.evidence.append(
            Evidence(script.recorded, 1, script.first_line.decode("utf-8", "replace").rstrip("\n").replace("\r", "^M"), Kind.SUBMIT)
        )
    if cause in ("user-code/crlf-line-endings", "permissions/executable-not-executable"):
        action = "normalise-line-endings" if cause.startswith("user") else "make-executable"
        verdict.remedies = [(action, {"file": script.recorded} if script else {})]


def _why_not_started(record: Record | None, script: Script | None, errno_text: str) -> tuple[str, str]:
    """The cause of a failed exec, and the fact that says so."""
    mode = record.executable_mode if record is not None else None
    if script is not None and script.has_crlf:
        why = f"the first line of {script.recorded} ends with a carriage return, which becomes part of the interpreter's name"
        return "user-code/crlf-line-endings", why
    if "ermission denied" in errno_text or (mode is not None and not mode & 0o111):
        return "permissions/executable-not-executable", "the program file is there, but may not be executed"
    if record is not None and record.executable_error:
        return "dependency/command-not-found", "the program file was not there"
    if "xec format" in errno_text:
        return "dependency/version-conflict", "the program is not of a format that this platform runs"
    if script is not None and script.interpreter:
        why = f"the first line of {script.recorded} names an interpreter that was not found where the job ran"
        return "dependency/interpreter-missing", why
    why = "the program file was there, yet the system found nothing to run it with: its interpreter (#! line) is missing"
    return "dependency/interpreter-missing", why


def missing_path(verdict: Verdict, nearby: Nearby) -> None:
    """A path that does not exist: output folder, directory scan, undeclared helper, or an input that got lost."""
    facts, path = verdict.facts, verdict.subject
    if facts.transfer_job or not path:
        return
    code = code_line(verdict)
    base = os.path.basename(path.rstrip("/"))
    job_outputs = outputs(facts.job)
    if base in job_outputs or path in job_outputs or WRITING.search(code):
        if "/" in path.strip("/") or base in job_outputs:
            verdict.change(
                "user-code/output-subdirectory-missing",
                "structure:output-directory",
                0.85 if facts.record is not None else _UNSEEN,
                f"{path} is written by the program, and the folder that it lies in does not exist.",
            )
            verdict.remedies = [("create-output-directory", {"path": os.path.dirname(path)})] if os.path.dirname(path) else []
        return
    job_inputs = inputs(facts.job)
    if base in job_inputs or path in job_inputs:
        return  # declared: the dataflow tells where it got lost
    if _LISTING.search(code) or path.endswith("/"):
        verdict.change(
            "staging/directory-scan-in-job",
            "structure:directory-scan",
            0.88,
            f"The program lists {path}, but a job's sandbox holds only its declared inputs.",
        )


def output_missing(verdict: Verdict, nearby: Nearby) -> None:
    """Exit code 0 without the declared output is the cause itself; after a failure it is a mere symptom."""
    verdict.subject = verdict.subject or _missing_output(verdict)


def _missing_output(verdict: Verdict) -> str:
    record = verdict.facts.record
    declared = outputs(verdict.facts.job)
    missing = [fact.lfn for fact in record.missing() if fact.lfn in declared] if record else []
    return ", ".join(missing[:5])


def killed(verdict: Verdict, nearby: Nearby) -> None:
    """Say how much memory the killed program had used, where the record tells."""
    record = verdict.facts.record
    requested = verdict.facts.job.submit.get("request_memory")
    if record is not None and record.maxrss_kb:
        verdict.reasons.append(
            f"The program was killed from outside; its largest resident set was {record.maxrss_kb // 1024} MB"
            + (f" of {requested.strip()} requested." if requested else ".")
        )


def memory_numbers(verdict: Verdict, nearby: Nearby) -> None:
    """Used and requested memory, for the remedy's size."""
    used = [event for event in verdict.facts.events if event.memory_mb]
    if used:
        best = max(used, key=lambda event: event.memory_mb)
        verdict.reasons.append(f"HTCondor measured {best.memory_mb} MB in use with {best.request_memory_mb} MB requested.")
        verdict.remedies = [("raise-memory", {"at_least_mb": str(best.memory_mb), "requested_mb": str(best.request_memory_mb)})]
        log = verdict.facts.job.run.identity.condor_log
        verdict.evidence.append(
            Evidence(
                verdict.facts.job.run.files.name(verdict.facts.job.run.directory / log),
                best.line,
                f"Memory (MB): {best.memory_mb} used, {best.request_memory_mb} requested",
                Kind.EVENT,
            )
        )


def input_moved(verdict: Verdict, nearby: Nearby) -> None:
    """An input that is missing at its place but lies close by."""
    from doctor.run.paths import local_path

    for entry in transfers(verdict.facts.job):
        for url in entry.sources:
            recorded = local_path(url)
            if recorded and verdict.subject and os.path.basename(recorded) == os.path.basename(verdict.subject):
                found = nearby.moved(recorded)
                if found is not None:
                    place = verdict.facts.job.run.paths.recorded(found)
                    verdict.change("staging/input-moved", "structure:input-moved", 0.9, f"{recorded} does not exist, but {place} does.")
                    verdict.remedies = [("update-replica", {"lfn": entry.lfn, "pfn": place})]
                    verdict.evidence.append(Evidence(place, None, f"a file of the same name: {place}", Kind.RUN))
                return


def in_sub_workflow(verdict: Verdict, nearby: Nearby) -> None:
    """The planner's complaint came from a sub-workflow that is planned during the run."""
    if verdict.facts.attempt.last("PRE_SCRIPT_FAILURE"):
        why = f"{verdict.facts.job.name} is a sub-workflow that is planned while the workflow runs, and planning it failed."
        verdict.change("planner/subworkflow-replica-missing", "structure:sub-workflow", verdict.confidence, why)


def hold_as_symptom(verdict: Verdict, nearby: Nearby) -> None:
    """Note the hold that a failed program led to: visible, and not the cause."""
    facts = verdict.facts
    if facts.hold is None or any(one.kind is Kind.HOLD for one in verdict.evidence):
        return
    run = facts.job.run
    name = run.files.name(run.directory / run.identity.condor_log) if facts.hold.line else ""
    verdict.symptoms.append(Symptom(facts.job.name, facts.hold.text, name, facts.hold.line or None))
    if facts.task_exit:
        ended = describe(facts.step) if facts.step.failed else f"exit code {facts.task_exit}"
        verdict.reasons.append(f"The hold only says that outputs were missing afterwards; the program had already ended with {ended}.")


#: (causes looked at, refiner); an empty set means all.
REFINERS: tuple[tuple[frozenset[str], Refiner], ...] = (
    (
        frozenset(
            {
                "dependency/python-package-missing",
                "dependency/command-not-found",
                "dependency/undeclared-helper-file",
                "staging/input-missing",
                "user-code/application-error",
            }
        ),
        helper_file,
    ),
    (
        frozenset(
            {
                "dependency/interpreter-missing",
                "dependency/command-not-found",
                "dependency/version-conflict",
                "permissions/executable-not-executable",
                "permissions/file-not-accessible",
                "user-code/crlf-line-endings",
                "user-code/application-error",
            }
        ),
        exec_failure,
    ),
    (
        frozenset(
            {
                "staging/input-missing",
                "staging/directory-scan-in-job",
                "user-code/output-subdirectory-missing",
                "user-code/application-error",
            }
        ),
        missing_path,
    ),
    (frozenset({"user-code/declared-output-not-produced"}), output_missing),
    (frozenset({"disk/scratch-full", "disk/execute-disk-full", "disk/output-storage-full", "disk/submit-disk-full"}), disk_place),
    (frozenset({"permissions/file-not-accessible", "permissions/output-dir-not-writable"}), permission_place),
    (frozenset({"staging/input-missing", "staging/remote-not-found", "staging/transfer-failed", *_UNREACHED}), container_image),
    (frozenset({"staging/remote-not-found", "staging/transfer-failed", *_UNREACHED}), worker_package),
    (frozenset({"planner/replica-missing"}), in_sub_workflow),
    (frozenset({"resources/killed"}), killed),
    (frozenset({"resources/memory-exceeded-hold"}), memory_numbers),
    (frozenset({"staging/input-missing"}), input_moved),
    (frozenset(), hold_as_symptom),
)


def refine(verdict: Verdict, nearby: Nearby) -> None:
    """Apply all refiners whose causes include the verdict's."""
    for causes, refiner in REFINERS:
        if not causes or verdict.cause in causes:
            refiner(verdict, nearby)
