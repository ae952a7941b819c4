"""Logs of the planner, for sub-workflows that are planned during the run (``<job>.pre.log.NNN``)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from doctor.model import Line

_LEVEL = re.compile(r"^\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d\.\d{3} \S+\s*\[([A-Z ]+)\]")
_FRAME = re.compile(r"^\s*(at [\w.$<>/]+\(|\.\.\. \d+ more)")


def telling_lines(lines: Sequence[Line]) -> list[Line]:
    """What the planner complained of: ERROR and FATAL records with their causes, no stack frames.

    Lines without a level belong to the record before them. Warnings are kept only when the log has
    no error at all, because healthy plans warn too.
    """
    level, serious, warnings = "", [], []
    for line in lines:
        if found := _LEVEL.match(line.text):
            level = found[1].strip()
        if _FRAME.match(line.text) or not line.text.strip():
            continue
        if level in ("FATAL ERROR", "FATAL", "ERROR") or not level:
            serious.append(line)
        elif level in ("WARNING", "WARN"):
            warnings.append(line)
    return serious or warnings
