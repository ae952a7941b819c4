"""What Pegasus' auxiliary jobs were told to do (``<job>.in``) and the ``.lof`` lists of files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctor.run.files import Files


@dataclass(frozen=True, slots=True)
class Transfer:
    """One entry of a ``.in`` file. ``kind`` is transfer, remove or mkdir; URLs may be empty."""

    kind: str
    lfn: str
    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()


def read_transfers(path: Path, files: Files) -> list[Transfer]:
    """Entries of a stage-in, stage-out, clean-up or create-dir job's ``.in``; empty when absent or damaged."""
    data = files.bytes(path, 16 << 20, quiet=True)
    if not data:
        return []
    text = data.decode("utf-8", "replace")
    if not text.lstrip().startswith(("[", "{")):
        return []  # a registration job's list of replicas
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        files.ledger.note(files.name(path), "not valid JSON; its transfers are unknown")
        return []
    return [_transfer(entry) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _transfer(entry: dict[str, Any]) -> Transfer:
    target = entry.get("target")
    if isinstance(target, dict):
        return Transfer(str(entry.get("type", "")), "", (), (str(target.get("url", "")),))
    return Transfer(
        str(entry.get("type", "transfer")),
        str(entry.get("lfn", "")),
        _urls(entry.get("src_urls")),
        _urls(entry.get("dest_urls")),
    )


def _urls(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(str(item["url"]) for item in value if isinstance(item, dict) and "url" in item)


def read_lof(path: Path, files: Files) -> list[str]:
    """Logical file names of a ``.in.lof`` or ``.out.lof`` list (``lfn=pfn`` lines)."""
    text = files.text(path, head=1 << 20, tail=1 << 20, quiet=True)
    return [line.text.rpartition("=")[0] or line.text for line in text.lines if line.text.strip()]
