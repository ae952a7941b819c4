"""PegasusLite's part of a job's standard error: which stage failed, and whose line is whose.

Banners and closing lines are those of ``pegasus-lite-common.sh``; phrases are matched, not prefixes,
because container jobs print the same stages under another heading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from doctor.model import Line

_STAGES: tuple[tuple[str, str], ...] = (
    ("setting up workdir", "workdir"),
    ("figuring out the worker package", "worker-package"),
    ("figuring out pegasus worker package", "worker-package"),
    ("staging in container", "container-image"),
    ("checking file integrity for transferred container", "integrity"),
    ("staging in input data", "stage-in"),
    ("staging in checkpoint", "stage-in"),
    ("setting the xbit", "xbit"),
    ("checking file integrity", "integrity"),
    ("executing the user task", "task"),
    ("launching user task", "task"),
    ("writing out script to launch user task", "container"),
    ("now in pegasus lite container script", "container"),
    ("loading", "container"),
    ("staging out", "stage-out"),
)
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d: ")
_TRANSFER_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\s")
_EXIT = re.compile(r"PegasusLite: exitcode (-?\d+)(?:, tool originally exited with exitcode (-?\d+))?")
_TASK = re.compile(r"User task failed with exitcode (\d+)")
_HOST = re.compile(r"Executing on host (\S+)")


@dataclass(slots=True)
class LiteLog:
    """One ``.err.NNN`` in parts. ``stage`` is the last stage entered; codes are None when absent."""

    present: bool = False
    stage: str = ""
    stage_lines: dict[str, int] = field(default_factory=dict)  # stage -> line of its latest banner
    host: str = ""
    exit_code: int | None = None
    tool_exit_code: int | None = None
    task_exit_code: int | None = None
    exit_line: int | None = None
    finished: bool = False
    wrapper: list[Line] = field(default_factory=list)  # PegasusLite's own words
    transfers: list[Line] = field(default_factory=list)  # pegasus-transfer in the stage-in, image and stage-out stages
    integrity: list[Line] = field(default_factory=list)
    task: list[Line] = field(default_factory=list)  # what the task or the container runtime printed past kickstart
    before: list[Line] = field(default_factory=list)  # lines before PegasusLite spoke at all

    def stage_at(self, number: int | None) -> str:
        """The stage in whose part of the log this line stands; empty before the first banner."""
        before = [(line, stage) for stage, line in self.stage_lines.items() if number is not None and line <= number]
        return max(before)[1] if before else ""

    @property
    def step_failed(self) -> bool:
        """A step of PegasusLite itself failed, not the task (its exit code is 71 then)."""
        return self.tool_exit_code is not None or (self.exit_code == 71 and self.task_exit_code is None)


def parse_lite(lines: Sequence[Line]) -> LiteLog:
    """Sort the lines of a job's standard error by stage. Jobs without PegasusLite give ``before`` only."""
    log = LiteLog()
    for line in lines:
        text = line.text
        if not text.strip():
            continue
        if text.startswith("####") or (text.startswith("#") and text.endswith("##")):
            banner = text.strip("# ").lower()
            stage = next((name for phrase, name in _STAGES if phrase in banner), "")
            if stage:
                log.present, log.stage = True, stage
                log.stage_lines[stage] = line.number or 0
                continue
        if not log.present and ("PegasusLite: version" in text or (_STAMP.match(text) and "Job launched in directory" in text)):
            log.present = True
        if found := _HOST.search(text):
            log.host = log.host or found[1]
        if found := _EXIT.search(text):
            log.finished, log.exit_code, log.exit_line = True, int(found[1]), line.number
            log.tool_exit_code = int(found[2]) if found[2] else None
            log.wrapper.append(line)
            continue
        if found := _TASK.search(text):
            log.task_exit_code = int(found[1])
            log.wrapper.append(line)
            continue
        _sort(log, line)
    return log


def _sort(log: LiteLog, line: Line) -> None:
    if not log.present:
        log.before.append(line)
    elif _STAMP.match(line.text) or line.text.startswith("PegasusLite: "):
        log.wrapper.append(line)
    elif log.stage in ("stage-in", "stage-out", "container-image") or _TRANSFER_STAMP.match(line.text):
        log.transfers.append(line)
    elif log.stage == "integrity":
        log.integrity.append(line)
    elif log.stage in ("task", "container"):
        log.task.append(line)
    else:
        log.wrapper.append(line)
