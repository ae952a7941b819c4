"""Whether pegasus-monitord is still at work on a run (``monitord.pid``: ``pid N`` and ``timestamp ...``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doctor.run.reader import Run


def monitord_runs(run: Run) -> bool:
    """Whether the process that monitord.pid names is a monitord of this host that is still at work.

    One monitord serves a workflow with all its sub-workflows; its file is in the root's directory.
    """
    top = list(run.lineage())[-1]
    text = top.files.text(top.directory / "monitord.pid", head=4096, tail=0, quiet=True)
    pid = next((found[1] for line in text.lines if (found := re.match(r"pid (\d{1,9})$", line.text.strip()))), "")
    if not pid:
        return False
    try:
        return b"monitord" in Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False
