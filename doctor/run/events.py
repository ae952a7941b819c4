"""The common HTCondor event log (``<wf>-0.log``), read through ``htcondor2.JobEventLog``.

The log of a large run has gigabytes, nearly all of it normal starts and ends. Only the events that
can explain a failure are cut out (with the line where each begins), and those are given to
HTCondor's own reader. Without the ``htcondor`` package the texts of the cut events still serve.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from doctor.run.files import Files, clean

#: Event numbers worth reading (HTCondor manual, "Job event log codes").
NAMES = {
    2: "executable-error",
    4: "evicted",
    7: "shadow-exception",
    9: "aborted",
    12: "held",
    13: "released",
    21: "remote-error",
    22: "disconnected",
    23: "reconnected",
    24: "reconnect-failed",
}
_HEAD = re.compile(rb"\n0(02|04|07|09|12|13|21|22|23|24) \((\d{1,12})\.(\d{1,6})\.\d{1,6}\) ")  # a literal start is found fast
_EXECUTE = re.compile(rb"\n0(01|05|12|21) \((\d{1,12})\.(\d{1,6})\.\d{1,6}\) ")
#: Where an event names the slot: the start of a job, and what failed before it could start (no sandbox, no input).
_SLOT = re.compile(rb"(?:SlotName: |execution point |Error from (?:starter on )?)([\w.@-]{1,256}\w)")
_WHEN = re.compile(rb"\) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d\d/\d\d \d\d:\d\d:\d\d)")
_CODE = re.compile(r"Code (-?\d{1,6}) Subcode (-?\d{1,9})")
_USED = re.compile(r"Memory \(MB\)\s*:\s*(\d{1,12})\s+(\d{1,12})")
_DISK = re.compile(r"Disk \(KB\)\s*:\s*(\d{1,15})\s+(\d{1,15})")
_FIELDS = ("HoldReasonCode", "HoldReasonSubCode", "EventTime")
_CHUNK = 1 << 20
_MAX_EVENT = 16 << 10
_MAX_EVENTS = 50_000


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of interest. ``line`` is where its text (the reason) stands; codes are -1 when absent."""

    kind: str
    condor_id: str  # "cluster.proc"
    when: float
    text: str
    line: int
    code: int = -1
    subcode: int = -1
    memory_mb: int = 0  # used, from the resource table
    request_memory_mb: int = 0
    disk_kb: int = 0
    request_disk_kb: int = 0


@dataclass(frozen=True, slots=True)
class _Cut:
    number: int
    condor_id: str
    body: bytes
    line: int


def read_events(path: Path, files: Files) -> list[JobEvent]:
    """The events of interest in their order. Absent, damaged or binary logs give what they hold."""
    cuts = list(_cuts(path, files))
    if len(cuts) >= _MAX_EVENTS:
        files.ledger.note(files.name(path), f"more than {_MAX_EVENTS} hold and eviction events; the rest was left out")
    parsed = _parse(cuts) or [{}] * len(cuts)
    return [_event(cut, ad) for cut, ad in zip(cuts, parsed, strict=True)]


def execute_hosts(path: Path, files: Files) -> tuple[dict[str, str], set[str]]:
    """Condor id -> name of the execute node that the job was last at (jobs of the vanilla universe), and who ended with 0."""
    hosts: dict[str, str] = {}
    fine: set[str] = set()
    for cut in _cuts(path, files, _EXECUTE):
        if cut.number == 5:
            if b"(return value 0)" in cut.body[:400]:
                fine.add(cut.condor_id)
        elif host := slot_host(cut.body):
            hosts[cut.condor_id] = host
    return hosts, fine


def slot_host(event: bytes) -> str:
    """The node that an event's text names by a slot on it, '' when it names none.

    A slot is called ``slot1_2@HOST``; one of a glidein ``slot1_2@glidein_77_1@HOST``, which is the same host.
    """
    found = _SLOT.search(event)
    return found[1].decode("utf-8", "replace").rpartition("@")[2] if found else ""


def parse_events(data: bytes, first_line: int) -> list[JobEvent]:
    """The events of interest in whole events' text that begins on line ``first_line``, as :func:`read_events` gives them.

    For a log that is followed: HTCondor's own reader is not asked, everything stands in the text.
    """
    found, counted, lines = [], 0, first_line - 1
    data = b"\n" + data
    for start in _HEAD.finditer(data):
        begin = start.start() + 1
        end = data.find(b"\n...", begin, begin + _MAX_EVENT)
        lines += data.count(b"\n", counted, begin)
        counted = begin
        cut = _Cut(int(start[1]), f"{int(start[2])}.{int(start[3])}", data[begin : end if end >= 0 else begin + _MAX_EVENT], lines)
        found.append(_event(cut, {}))
    return found


def _cuts(path: Path, files: Files, head: re.Pattern[bytes] = _HEAD) -> Iterator[_Cut]:
    """Cut the wanted events out of the stream, each with the line on which it starts."""
    handle = files.open(path, quiet=True)
    if handle is None:
        return
    made, lines, rest = 0, 0, b"\n"  # as if a line ended before the first
    with os.fdopen(handle, "rb") as stream:
        while made < _MAX_EVENTS:
            try:
                chunk = stream.read(_CHUNK)
            except OSError as problem:
                files.ledger.note(files.name(path), os.strerror(problem.errno or 0))
                return
            data = rest + chunk
            counted = keep_from = 0
            for found in head.finditer(data):
                if made >= _MAX_EVENTS:
                    return
                begin = found.start() + 1
                end = data.find(b"\n...", begin, begin + _MAX_EVENT)
                if end < 0 and chunk and len(data) - begin < _MAX_EVENT:
                    keep_from = found.start()
                    break
                body = data[begin : end if end >= 0 else begin + _MAX_EVENT]
                lines += data.count(b"\n", counted, begin)
                counted = begin
                made += 1
                yield _Cut(int(found[1]), f"{int(found[2])}.{int(found[3])}", body, lines)
            else:
                keep_from = max(data.rfind(b"\n"), 0)
            lines += data.count(b"\n", counted, keep_from)
            rest = data[keep_from:]
            if not chunk:
                return
            if len(rest) > max(_CHUNK, _MAX_EVENT):  # no newline for megabytes: binary rubbish
                lines, rest = lines + rest.count(b"\n"), b""


def _parse(cuts: list[_Cut]) -> list[dict[str, object]] | None:
    """The cut events as HTCondor's reader sees them, or None when it cannot read them all."""
    if not cuts:
        return []
    try:
        import htcondor2
    except Exception:  # noqa: BLE001 - absent, or its libraries do not load on this host
        return None
    ads: list[dict[str, object]] = []
    with tempfile.NamedTemporaryFile(suffix=".log") as copy:
        copy.write(b"\n...\n".join(cut.body for cut in cuts) + b"\n...\n")
        copy.flush()
        try:
            with htcondor2.JobEventLog(copy.name) as log:
                for event in log.events(stop_after=0):
                    ads.append({"_id": f"{event.cluster}.{event.proc}", **{name: event.get(name) for name in _FIELDS}})
        except Exception:  # noqa: BLE001 - HTCondorException and what its C++ side raises on damage
            return None
    if [ad["_id"] for ad in ads] != [cut.condor_id for cut in cuts]:
        return None
    return ads


def _event(cut: _Cut, ad: dict[str, object]) -> JobEvent:
    rows = cut.body.decode("utf-8", "replace").split("\n")
    text, offset = _reason(cut.number, rows)
    joined = "\n".join(rows)
    code, subcode = ad.get("HoldReasonCode"), ad.get("HoldReasonSubCode")
    if found := _CODE.search(joined):
        code, subcode = int(found[1]), int(found[2])
    elif code == 0:  # what HTCondor makes of an event that was cut before its code
        code = None
    memory, disk = _USED.search(joined), _DISK.search(joined)
    return JobEvent(
        kind=NAMES[cut.number],
        condor_id=cut.condor_id,
        when=_when(cut.body, ad.get("EventTime")),
        text=text,
        line=cut.line + offset,
        code=code if isinstance(code, int) else -1,
        subcode=subcode if isinstance(subcode, int) else -1,
        memory_mb=int(memory[1]) if memory else 0,
        request_memory_mb=int(memory[2]) if memory else 0,
        disk_kb=int(disk[1]) if disk else 0,
        request_disk_kb=int(disk[2]) if disk else 0,
    )


def _reason(number: int, rows: list[str]) -> tuple[str, int]:
    """The line that says why, and its offset in the event; the heading when there is none."""
    for offset, row in enumerate(rows[1:], 1):
        if "Abnormal termination" in row:
            return clean(row).strip(), offset
    for offset, row in enumerate(rows[1:], 1):
        text = clean(row).strip()
        if not text or text.startswith(("Code ", "(0) CPU", "(1) CPU", "Usr ", "Partitionable", "Job terminated by itself")):
            continue
        if text[0].isdigit() and "  -  " in text:
            continue
        if number == 4 and re.match(r"(Cpus|Disk|GPUs|Memory|Time\w+) .*:", text):
            continue
        return text, offset
    heading = clean(rows[0])
    return heading.split(" ", 4)[-1] if heading.count(" ") >= 4 else heading, 0


def _when(body: bytes, iso: object) -> float:
    """UNIX time of an event: as HTCondor's reader understood it, else from its heading."""
    if not isinstance(iso, str):
        found = _WHEN.search(body)
        iso = found[1].decode() if found else ""
    try:
        return datetime.fromisoformat(iso.rstrip("Z")).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
