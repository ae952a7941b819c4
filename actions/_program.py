"""The user's program: its registered place, the copy that was staged, and the checksum recorded of it.

Which copy a rescue uses: a program that is installed runs where it is registered. A staged one is copied
by a stage-in job; once that job is DONE the rescue does not copy again, so the copy in scratch counts
(condorio: scratch on the submit host; nonsharedfs: the staging site; sharedfs: the shared scratch). While
the stage-in job is not DONE it will copy from the registered place. So both are repaired where they exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field

from actions._action import JobParams, held_by_person, jobs_of
from actions._paths import Refused, mode_of, read_file
from actions._resource import queue_edits
from actions._submit import Submit
from doctor.model import Incident
from doctor.repair import Edit, JobView, QueueEdit, RunView

_PROGRAM = re.compile(r"kickstart[^\n]*? -T \S+\s+(\S+)")
_META = re.compile(r"([^,\s]+\.meta)(?=\s*(?:,|$))")


def registered(job: JobView, given: str) -> str:
    """The program in its registered place on this host; raises :class:`Refused` when it cannot be told."""
    path = job.executable or given
    if not path:
        raise Refused(f"it is not known which program {job.name} runs")
    if given and job.executable and os.path.basename(given) != os.path.basename(job.executable):
        raise Refused(f"{given} is not the program of {job.name} ({job.executable})")
    if not path.startswith("/"):
        raise Refused(f"{path} is not on this host")
    return path


def copies(job: JobView, view: RunView, given: str) -> list[str]:
    """The registered file and the staged copy, those that are regular files here."""
    first = registered(job, given)
    places = [first]
    if (other := staged(job)) and other != first and os.path.realpath(other) != os.path.realpath(first):
        places.append(other)
    found = [place for place in places if mode_of(place) is not None and not os.path.isdir(place)]
    if not found:
        raise Refused(f"{first} is no regular file on this host")
    return found


def staged(job: JobView) -> str:
    """Where the program was staged to, as a path of this host; '' when it is not staged or out of reach."""
    word = _word(job)
    if not word:
        return ""
    if word.startswith("/"):  # sharedfs: a copy in scratch, or the installed program itself
        return os.path.normpath(word)
    name = os.path.basename(word)
    if job.data_configuration == "condorio":
        return os.path.join(job.initialdir, name) if job.initialdir else ""
    source = staged_source(job, name)
    return source if source.startswith("/") else ""


def _word(job: JobView) -> str:
    """The program as kickstart is given it."""
    try:
        text = (read_file(job.script) or b"").decode("utf-8", "replace") if job.script else ""
        if not text:
            submit = Submit(job.submit_file)
            text = f"{submit.get('executable') or ''} {(submit.get('arguments') or '').strip(chr(34))}"
    except Refused:
        return ""
    found = _PROGRAM.search(text)
    return found[1] if found else ""


def staged_name(job: JobView) -> str:
    """The logical name under which the program is staged; '' when it is not known."""
    return os.path.basename(_word(job))


def staged_source(job: JobView, lfn: str) -> str:
    """The URL (a path for file URLs) from which PegasusLite fetches an input; '' when it does not."""
    for entry in transfer_blocks((read_file(job.script) or b"").decode("utf-8", "replace")):
        if entry.get("lfn") == lfn and entry.get("linkage") == "input":
            sources = entry.get("src_urls")
            url = str(sources[0].get("url", "")) if isinstance(sources, list) and sources else ""
            return path_of(url) or url
    return ""


def transfer_blocks(script: str) -> list[dict[str, object]]:
    """The transfers that a PegasusLite script makes, of all its here-documents."""
    entries: list[dict[str, object]] = []
    for found in re.finditer(r"<< '?eof'?\n(\[.*?\n\])\neof", script, re.DOTALL):
        try:
            block = json.loads(found[1])
        except (ValueError, RecursionError):
            continue
        entries += [entry for entry in block if isinstance(entry, dict)]
    return entries


def path_of(url: str) -> str:
    """The path that a ``file://`` URL or a plain path names; '' for other protocols."""
    if url.startswith("file://"):
        url = url[len("file://") :]
        url = url[url.find("/") :] if "/" in url else ""
    return os.path.normpath(url) if url.startswith("/") else ""


def new_checksums(job: JobView, name: str, before: bytes, after: bytes) -> list[Edit]:
    """Metadata files of the job that record the old content's checksum: they get the new one.

    Without this the job would fail its integrity check on the repaired program.
    """
    old, new = hashlib.sha256(before).hexdigest(), hashlib.sha256(after).hexdigest()
    try:
        submit = Submit(job.submit_file)
    except Refused:
        return []
    edits = []
    for found in _META.finditer(submit.get("transfer_input_files") or ""):
        path = found[1].replace("$(wf_submit_dir)", job.workflow_dir)
        data = read_file(path, 4 << 20) if path.startswith("/") else None
        if data and old.encode() in data and json.dumps(name).encode() in data:
            text = data.replace(old.encode(), new.encode())
            text = text.replace(b'"size": "%d"' % len(before), b'"size": "%d"' % len(after)) if text.count(b'"_id"') == 1 else text
            edits.append(Edit(path, data, text))
    return edits


class ProgramParams(JobParams):
    """``file``: the program as the catalog names it."""

    file: str = Field(default="", max_length=4096)


@dataclass(frozen=True, slots=True)
class Repair:
    """Edits of the programs of some jobs, and how the jobs get to run again."""

    edits: tuple[Edit, ...]
    queue: tuple[QueueEdit, ...]
    rescue: bool


def repair(incident: Incident, params: ProgramParams, view: RunView, change: Callable[[JobView, str], list[Edit]]) -> Repair | str:
    """What ``change`` makes of every copy of the programs (it raises :class:`Refused` where it must not), or why that is nothing."""
    edits: dict[str, Edit] = {}
    queue: list[QueueEdit] = []
    reasons: list[str] = []
    rescue = False
    for job in jobs_of(incident, params, view):
        mine: list[Edit] = []
        try:
            for place in copies(job, view, params.file):
                try:
                    mine += change(job, place)
                except Refused as problem:
                    reasons.append(str(problem))
        except Refused as problem:
            reasons.append(str(problem))
        if not mine:
            continue
        edits |= {edit.path: edit for edit in mine}
        queue += queue_edits(job, ()) if job.held and not held_by_person(job, incident) else []
        rescue = rescue or not (job.queue_ids and job.held)
    if not edits:
        return "; ".join(dict.fromkeys(reasons)) or "the job is not known in this run"
    return Repair(tuple(edits.values()), tuple(queue), rescue)
