"""``<wf>.dag.dagman.out``: how DAGMan itself fared, read from the end of the file.

Wordings: HTCondor source, ``src/condor_dagman``. The time stamps are local to the submit host, so
only their order is used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from doctor.model import Line
from doctor.run.files import Files, Text

RESTART = 3  # DAGMan's exit status when its job is held, or HTCondor is to start it again: no end
_EXIT = re.compile(r"\(condor_DAGMAN\) pid \d+ EXITING WITH STATUS (\d+)")
_STATUS = re.compile(r"DAG status: (\d+) \((\w+)\)")
_HELD = re.compile(r"(\d+) job proc\(s\) currently held")
_STAMP = re.compile(r"^\d\d/\d\d/\d\d(?:\d\d)? \d\d:\d\d:\d\d (?:\([^)]*\) )*")
_NOISE = ("DAGMan Runtime Statistics", "  ===", "Currently monitoring", "Number of idle job procs")


@dataclass
class DagmanLog:
    """What the last DAGMan of this DAG logged. ``exit_status`` is None while (or where) it did not end."""

    file: str
    present: bool = False
    started: bool = False
    exit_status: int | None = None
    exit_line: Line | None = None
    dag_status: int = 0
    held: int = 0
    removed: Line | None = None
    rows: Sequence[Line] = field(default=(), repr=False)  # of the last start, as they stand in the file

    @cached_property
    def lines(self) -> list[Line]:
        """The last start's lines with their stamps, noise left out."""
        return [line for line in self.rows if line.text and not any(noise in line.text for noise in _NOISE)]


def read_dagman_log(path: Path, files: Files) -> DagmanLog:
    """Read the end of the log (4 MiB) back to the last start of DAGMan."""
    text: Text = files.text(path, head=0, tail=4 << 20, quiet=True)
    log = DagmanLog(text.file, present=bool(text.lines))
    start = 0
    for index, line in enumerate(text.lines):
        if "STARTING UP" in line.text and ("(CONDOR_DAGMAN) STARTING UP" in line.text or "(condor_DAGMAN) STARTING UP" in line.text):
            start, log.started = index, True
    log.rows = text.lines[start:]
    for line in log.rows:
        row = line.text
        if not ("EXITING" in row or "DAG status" in row or "currently held" in row or "SIGUSR1" in row):
            continue  # nearly all lines; a search costs more
        if found := _EXIT.search(row):
            log.exit_status, log.exit_line = int(found[1]), line
        elif found := _STATUS.search(row):
            log.dag_status = int(found[1])
        elif found := _HELD.search(row):
            log.held = int(found[1])
        elif "Received SIGUSR1" in row or "got SIGUSR1" in row:
            log.removed = line
    return log


def message(line: Line) -> str:
    """The line without its time stamp."""
    return _STAMP.sub("", line.text)
