"""Point the stage-in job, and the replica catalog for later runs, at the place where the input really is."""

from __future__ import annotations

import json
import os
import re

from pydantic import Field

from actions._action import JobParams, jobs_of, make
from actions._paths import Refused, mode_of
from actions._program import path_of
from actions._submit import Lines
from doctor.model import Incident
from doctor.repair import Caps, Edit, JobView, Plan, Risk, RunView, Skipped

NAME = "update-replica"
SUMMARY = "Point the stage-in job and the catalog at the place where the input really is."
RISK = Risk.REVERSIBLE


class Params(JobParams):
    """``lfn``: the logical name. ``pfn``: where the file lies now, on this host."""

    lfn: str = Field(min_length=1, max_length=1024, pattern=r"^[^\x00\n]+$")
    pfn: str = Field(min_length=2, max_length=4096, pattern=r"^/[^\x00\n]*$")


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """Correct the source URL of every transfer of the file, and its entry in the catalog."""
    if mode_of(params.pfn) is None or os.path.isdir(params.pfn):
        return Skipped(NAME, f"{params.pfn} is no regular file on this host")
    edits: list[Edit] = []
    old: set[str] = set()
    reasons: list[str] = []
    for job in jobs_of(incident, params, view):
        try:
            edit, places = _transfer(job, params)
        except Refused as problem:
            reasons.append(f"{job.name}: {problem}")
            continue
        edits.append(edit)
        old |= places
    if not edits:
        return Skipped(NAME, "; ".join(reasons) or "the stage-in job is not known in this run")
    if catalog := _catalog(view.replica_catalog, params, old):
        edits.append(catalog)
    return make(
        NAME, RISK, incident, params,
        f"Take {params.lfn} from {params.pfn} instead of {', '.join(sorted(old))}",
        "The stage-in job finds the file" + (", and so does the next planning." if len(edits) > 1 else "; the catalog is not changed."),
        "The transfer list and the catalog get their old bytes back.",
        tuple(edits),
    )  # fmt: skip


def _transfer(job: JobView, params: Params) -> tuple[Edit, set[str]]:
    """The edit of one transfer list, and the places that it named."""
    if not job.transfer_file:
        raise Refused("it has no list of transfers")
    lines = Lines(job.transfer_file)
    try:
        entries = json.loads(lines.text)
    except (ValueError, RecursionError) as problem:
        raise Refused(f"{job.transfer_file} is not valid JSON") from problem
    wrong = {url for url in _sources(entries, params.lfn) if _missing(url)}
    if not wrong:
        raise Refused(f"no missing file source of {params.lfn} in {job.transfer_file}")
    text = lines.text
    start = 0
    while (found := re.compile(r'"lfn"\s*:\s*' + re.escape(json.dumps(params.lfn))).search(text, start)) is not None:
        end = text.find('"dest_urls"', found.end())
        part = text[found.end() : end if end >= 0 else len(text)]
        new = part
        for url in wrong:
            new = new.replace(json.dumps(url), json.dumps(_moved(url, params.pfn)))
        text = text[: found.end()] + new + text[found.end() + len(part) :]
        start = found.end() + len(new)
    lines.lines = [text]
    edit = lines.edit()
    if edit is None:
        raise Refused(f"{job.transfer_file} has another layout than expected")
    return edit, {path_of(url) for url in wrong}


def _sources(entries: object, lfn: str) -> list[str]:
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("lfn") == lfn and isinstance(entry.get("src_urls"), list):
            found += [str(one.get("url", "")) for one in entry["src_urls"] if isinstance(one, dict)]
    return found


def _missing(url: str) -> bool:
    path = path_of(url)
    return bool(path) and not os.path.exists(path)


def _moved(url: str, pfn: str) -> str:
    """The new place in the form of the old URL."""
    if not url.startswith("file://"):
        return pfn
    host = url[len("file://") :].partition("/")[0]
    return f"file://{host}{pfn}"


def _catalog(path: str, params: Params, old: set[str]) -> Edit | None:
    """The edit of the replica catalog (YAML or the plain file form), None where it has no such entry."""
    try:
        catalog = Lines(path) if path else None
    except Refused:
        return None
    if catalog is None:
        return None
    inside = False
    name = re.escape(params.lfn)
    heading = re.compile(rf"^\s*(?:-\s+)?lfn\s*:\s*(['\"]?){name}\1\s*$")
    other = re.compile(r"^\s*(?:-\s+)?lfn\s*:")
    flat = re.compile(rf"^(['\"]?){name}\1\s")
    for number, line in enumerate(catalog.lines):
        if heading.match(line.rstrip()):
            inside = True
        elif other.match(line):
            inside = False
        if inside or flat.match(line):
            for place in sorted(old, key=len, reverse=True):
                catalog.lines[number] = re.sub(
                    rf"(?<![\w./-]){re.escape(place)}(?![\w./-])|(?<=file://){re.escape(place)}(?![\w./-])",
                    lambda _: params.pfn,
                    catalog.lines[number],
                )
    return catalog.edit()
