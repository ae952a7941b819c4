"""Rescue DAGs (``<dag>.rescueNNN``): what DAGMan had finished and what had failed when it stopped.

Format: HTCondor manual, "The Rescue DAG" (partial rescue files: ``DONE node`` lines and a header).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from doctor.run.files import Files

_NUMBER = re.compile(r"\.rescue(\d{3})$")


@dataclass(frozen=True, slots=True)
class RescueDag:
    """One rescue file. ``complete`` is False when its header or its end is missing."""

    file: str
    number: int
    failed: tuple[str, ...]
    done: int
    complete: bool


def rescue_files(directory: Path, dag: str, files: Files) -> list[Path]:
    """Rescue files of this DAG, oldest first."""
    found = [name for name in files.listing(directory) if name.startswith(f"{dag}.rescue") and _NUMBER.search(name)]
    return [directory / name for name in sorted(found)]


def read_rescue(path: Path, files: Files) -> RescueDag:
    """Read one rescue file; a damaged one gives what it holds, with ``complete`` False."""
    text = files.text(path, head=8 << 20, tail=8 << 20)
    header, failed, done, wanted = False, [], 0, -1
    listing = False
    for line in text.lines:
        row = line.text.strip()
        if row.startswith("# Rescue DAG file"):
            header = True
        elif row.startswith("# Nodes that failed:"):
            count = row.partition(":")[2].strip()
            wanted, listing = int(count) if count.isdigit() and len(count) < 9 else -1, True
        elif listing and row.startswith("#"):
            names = [name.strip() for name in row.lstrip("# ").split(",")]
            failed += [name for name in names if name and name != "<ENDLIST>"]
            listing = "<ENDLIST>" not in row
        elif row.startswith("DONE "):
            done += 1
    number = _NUMBER.search(path.name)
    complete = header and wanted == len(failed) and not text.partial
    return RescueDag(text.file, int(number[1]) if number else 0, tuple(failed), done, complete)
