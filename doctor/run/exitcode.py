"""``<wf>.exitcode.log``: what pegasus-exitcode, the POST script, made of each attempt.

One JSON object a line: name (``.//00/00/<job>.out``), exitcode, app_exitcode, retry, std_err and others;
source: ``Pegasus/exitcode.py``. Negative ``app_exitcode`` values are DAGMan's: -1001 submit failed,
-1002 removed, -1003 log-monitor error, -1004 skipped.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from doctor.model import Line
from doctor.run.files import Files, clean


@dataclass(frozen=True, slots=True)
class PostVerdict:
    """The latest verdict on one job. ``lines`` are its complaints; ``exitcode`` is pegasus-exitcode's own."""

    exitcode: int
    app_exitcode: int
    lines: tuple[Line, ...]


def read_verdicts(path: Path, files: Files, stems: set[str]) -> dict[str, PostVerdict]:
    """Latest verdict by job for the wanted jobs; lines that are no JSON are left out."""
    handle = files.open(path, quiet=True)
    found: dict[str, PostVerdict] = {}
    if handle is None:
        return found
    with os.fdopen(handle, "rb", buffering=1 << 20) as stream:
        number = 0
        while raw := stream.readline(1 << 20):
            number += 1
            stem = _stem(raw)
            if stem in stems and (verdict := _verdict(raw, number)):
                found[stem] = verdict
    return found


def _stem(raw: bytes) -> str:
    """The job's name, taken from the text so that the lines of other jobs are not parsed."""
    begin = raw.find(b'"name": "')
    end = raw.find(b'"', begin + 9)
    if begin < 0 or end < 0:
        return ""
    return raw[begin + 9 : end].rsplit(b"/", 1)[-1].removesuffix(b".out").decode("utf-8", "replace")


def _verdict(raw: bytes, number: int) -> PostVerdict | None:
    try:
        entry = json.loads(raw)
        code, app = int(entry["exitcode"]), int(entry.get("app_exitcode", 0))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    text = f"{entry.get('std_err', '')}\n{entry.get('std_out', '')}"
    lines = tuple(Line(clean(line).strip(), number) for line in text.splitlines()[:50] if line.strip())
    return PostVerdict(code, app, lines)
