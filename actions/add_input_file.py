"""Ship a helper of the workflow's own that the job did not declare as an input.

condorio: the file is put into the job's ``initialdir`` and onto ``transfer_input_files``. nonsharedfs:
PegasusLite fetches it with the other inputs. sharedfs: it is put into the shared scratch directory. The
other jobs that run the same program get it too, so that they do not fail one after the other.
"""

from __future__ import annotations

import json
import os
import re

from pydantic import Field

from actions._action import JobParams, count, held_by_person, jobs_of, make
from actions._paths import Refused, mode_of, read_file
from actions._program import path_of, transfer_blocks
from actions._resource import queue_edits
from actions._submit import Lines, Submit
from doctor.model import Incident
from doctor.repair import Caps, Edit, JobView, Plan, QueueEdit, Risk, RunView, Skipped

NAME = "add-input-file"
SUMMARY = "Ship the undeclared helper file with the job as one more input."
RISK = Risk.REVERSIBLE

_MAX_FILES = 200
_MAX_BYTES = 16 << 20
_STAGE_IN = "# stage in data and executables\n"
_BLOCK = re.compile(r"(<< '?eof'?\n\[.*?)(\n\]\neof)", re.DOTALL)


class Params(JobParams):
    """``lfn``: the name that the program looks for, relative to where it runs. ``pfn``: the file or package folder."""

    lfn: str = Field(min_length=1, max_length=255, pattern=r"^[\w][\w.+-]*(/[\w][\w.+-]*)*$")
    pfn: str = Field(min_length=2, max_length=4096, pattern=r"^/[^\x00\n]*$")


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Ship the file with each of the incident's jobs and with all others that run the same program."""
    jobs = jobs_of(incident, params, view)
    if not jobs:
        return Skipped(NAME, "the job is not known in this run")
    same = {(job.workflow_dir, job.transformation) for job in jobs if job.transformation}
    others = [job for job in view.jobs.values() if job not in jobs and (job.workflow_dir, job.transformation) in same]
    edits: dict[str, Edit] = {}
    queue: list[QueueEdit] = []
    reasons: list[str] = []
    rescue, served = False, 0
    try:
        content = _content(params)
    except Refused as problem:
        return Skipped(NAME, str(problem))
    for job in (*jobs, *others):
        try:
            made = _edits(job, params, content)
        except Refused as problem:
            reasons.append(f"{job.name}: {problem}")
            continue
        served += 1
        edits.update({edit.path: edit for edit in made})
        if job in jobs:
            changes = _queue(job, made) if job.held and not held_by_person(job, incident) else []
            queue += changes
            rescue = rescue or not changes
    if not edits:
        return Skipped(NAME, "; ".join(reasons) or f"{params.lfn} is shipped already")
    return make(
        NAME, RISK, incident, params,
        f"Ship {params.lfn} with {count(served, 'job')}",
        f"The program finds {params.lfn} where it runs.",
        "The submit files get their old bytes back, and the copies are removed.",
        tuple(edits.values()), queue=tuple(queue), rescue=rescue,
    )  # fmt: skip


def _content(params: Params) -> dict[str, bytes]:
    """Path relative to the sandbox -> content; a folder gives all its files."""
    if not os.path.isdir(params.pfn):
        data = read_file(params.pfn, _MAX_BYTES)
        if data is None:
            raise Refused(f"{params.pfn} is no readable regular file of at most {_MAX_BYTES >> 20} MiB")
        return {params.lfn: data}
    found: dict[str, bytes] = {}
    size = 0
    for base, folders, files in os.walk(params.pfn):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", ".git"))
        for name in sorted(files):
            data = read_file(os.path.join(base, name), _MAX_BYTES)
            if data is None:
                raise Refused(f"{os.path.join(base, name)} is no readable regular file")
            size += len(data)
            found[os.path.normpath(os.path.join(params.lfn, os.path.relpath(os.path.join(base, name), params.pfn)))] = data
        if len(found) > _MAX_FILES or size > _MAX_BYTES:
            raise Refused(f"{params.pfn} holds more than {_MAX_FILES} files or {_MAX_BYTES >> 20} MiB")
    if not found:
        raise Refused(f"{params.pfn} is empty")
    return found


def _edits(job: JobView, params: Params, content: dict[str, bytes]) -> list[Edit]:
    if job.data_configuration == "nonsharedfs":
        return _nonsharedfs(job, params, content)
    if not job.initialdir.startswith("/"):
        raise Refused("it is not known where the job finds its inputs")
    put = _put(job.initialdir, content)
    if job.data_configuration == "sharedfs":
        return put
    submit = Submit(job.submit_file)
    listed = submit.get("transfer_input_files")
    top = params.lfn.split("/", 1)[0]
    if top not in [name.strip() for name in (listed or "").split(",")]:
        submit.set("transfer_input_files", f"{listed},{top}" if listed else top)
    edit = submit.edit()
    return [*put, *([edit] if edit else [])]


def _put(directory: str, content: dict[str, bytes]) -> list[Edit]:
    """Edits that place the files below a directory; what lies there with the same bytes stays."""
    edits: list[Edit] = []
    folders: list[str] = []
    if not os.path.isdir(directory):
        raise Refused(f"{directory} does not exist on this host")
    for name, data in content.items():
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = os.path.join(directory, *parts[:depth])
            if folder not in folders and not os.path.isdir(folder):
                folders.append(folder)
        path = os.path.join(directory, name)
        if os.path.lexists(path):
            if read_file(path) == data:
                continue
            raise Refused(f"{path} exists already, with other content")
        edits.append(Edit(path, None, data, mode=0o644))
    return [Edit(folder, None, b"", mode=0o755, directory=True) for folder in folders] + edits


def _nonsharedfs(job: JobView, params: Params, content: dict[str, bytes]) -> list[Edit]:
    """PegasusLite fetches the file from where it fetches the others, or from the sandbox that HTCondor fills."""
    script = Lines(job.script)
    text = script.text
    at = text.find(_STAGE_IN)
    block = _BLOCK.search(text, at) if at >= 0 else None
    if block is None:
        raise Refused("its script stages no inputs in")
    entries = [entry for entry in transfer_blocks(text[: block.end()]) if entry.get("linkage") == "input"]
    wanted = {name: data for name, data in content.items() if name not in {entry.get("lfn") for entry in entries}}
    if not wanted:
        return []
    number = max([int(str(entry["id"])) for entry in entries if str(entry.get("id")).isdigit()], default=0)
    here, label = _neighbour(entries)
    put: list[Edit] = []
    if here:
        put = _put(here, wanted)
    rows = ""
    for name in wanted:
        number += 1
        source = f"file://{here}/{name}" if here else f"file://$_CONDOR_SCRATCH_DIR/{name}"
        rows += _entry(name, number, source, label if here else job.site, job.site)
    script.lines = [text[: block.end(1)] + rows + text[block.end(1) :]]
    edits = [*put, edit] if (edit := script.edit()) else put
    if not here:
        submit = Submit(job.submit_file)
        listed = submit.get("transfer_input_files")
        submit.set("transfer_input_files", f"{listed},{params.pfn}" if listed else params.pfn)
        edits += [made] if (made := submit.edit()) else []
    return edits


def _neighbour(entries: list[dict[str, object]]) -> tuple[str, str]:
    """(directory of this host where the job's other inputs lie, site label); '' where it is out of reach."""
    for entry in entries:
        sources = entry.get("src_urls")
        if isinstance(sources, list) and sources and isinstance(sources[0], dict):
            path = path_of(str(sources[0].get("url", "")))
            if path and os.path.isdir(os.path.dirname(path)) and mode_of(os.path.dirname(path)) is not None:
                return os.path.dirname(path), str(sources[0].get("site_label", "local"))
    return "", ""


def _entry(lfn: str, number: int, source: str, source_site: str, site: str) -> str:
    """One transfer in the planner's own layout."""
    here = json.dumps(f"file://$PWD/{lfn}")
    return (
        '\n ,\n { "type": "transfer",\n   "linkage": "input",\n'
        f'   "lfn": {json.dumps(lfn)},\n   "id": {number},\n   "src_urls": [\n'
        f'     {{ "site_label": {json.dumps(source_site)}, "url": {json.dumps(source)}, "checkpoint": "false" }}\n'
        f'   ],\n   "dest_urls": [\n     {{ "site_label": {json.dumps(site)}, "url": {here} }}\n   ] }}'
    )


def _queue(job: JobView, made: list[Edit]) -> list[QueueEdit]:
    """Release of the held job; where the list of inputs grew, the job's ad gets the new list first."""
    grown: tuple[tuple[str, str], ...] = ()
    for edit in made:
        if edit.path == job.submit_file and edit.after is not None:
            submit = Submit(edit.path, edit.after)
            names = submit.expanded("transfer_input_files")
            if "$(" in names or '"' in names:
                return []
            grown = (("TransferInput", f'"{names}"'),)
    return queue_edits(job, grown)
