"""The workflow's own files around a run: programs, inputs and what lies beside them.

Only names and, for scripts, the first line are read; nothing is written, and a walk is bounded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from doctor.run.catalogs import Executable
from doctor.run.paths import local_path
from doctor.run.reader import Job, Run

_MAX_ENTRIES = 20_000
_MAX_DEPTH = 4
_SKIP = {".git", "node_modules", "site-packages", "__pycache__", "proc", "sys", "dev"}


@dataclass(frozen=True, slots=True)
class Script:
    """An executable of the workflow as it lies on this host. ``first_line`` keeps a carriage return."""

    path: Path
    recorded: str
    first_line: bytes
    mode: int

    @property
    def interpreter(self) -> str:
        """What the ``#!`` line names, without carriage return; empty for a binary or a script without one."""
        if not self.first_line.startswith(b"#!"):
            return ""
        return self.first_line[2:].decode("utf-8", "replace").strip()

    @property
    def has_crlf(self) -> bool:
        return self.first_line.startswith(b"#!") and self.first_line.rstrip(b"\n").endswith(b"\r")


class Nearby:
    """Looks around one run, through the path map; everything is found at most once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._scripts: dict[str, Script | None] = {}

    def executable(self, job: Job) -> Executable | None:
        """The catalog entry of the job's program, for its site or a stageable one."""
        name = job.submit.transformation
        plain = name.split("::")[-1].split(":")[0]
        fitting = [entry for entry in self.run.executables if entry.name in (name, plain)]
        same_site = [entry for entry in fitting if entry.site == job.submit.site]
        return next(iter(same_site or fitting), None)

    def script(self, job: Job) -> Script | None:
        """The job's program as a file on this host, or None where it cannot be read."""
        entry = self.executable(job)
        recorded = local_path(entry.pfn) if entry else None
        if recorded is None:
            return None
        if recorded not in self._scripts:
            self._scripts[recorded] = self._read(recorded)
        return self._scripts[recorded]

    def _read(self, recorded: str) -> Script | None:
        path = self.run.paths.local(recorded)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        with os.fdopen(handle, "rb") as stream:
            try:
                return Script(path, recorded, stream.readline(512), os.fstat(handle).st_mode)
            except OSError:
                return None

    @cached_property
    def folders(self) -> list[Path]:
        """Folders that belong to the workflow: those of its programs, inputs and description, where they exist."""
        recorded = [entry.pfn for entry in self.run.executables if entry.stageable]
        recorded += [pfn for pfns in self.run.replicas.values() for pfn in pfns]
        recorded += [self.run.identity.dax] if self.run.identity.dax else []
        found: dict[Path, None] = {}
        for text in recorded[:500]:
            path = local_path(text)
            if path is not None:
                folder = self.run.paths.local(path).parent
                if os.path.isdir(folder) and len(folder.parts) > 2:
                    found[folder] = None
        return list(found)

    @cached_property
    def _names(self) -> dict[str, list[Path]]:
        """Base name -> paths, below the workflow's folders; run directories and outputs of jobs are left out."""
        names: dict[str, list[Path]] = {}
        count = 0
        submit = os.path.realpath(self.run.directory)
        seen: set[str] = set()
        for folder in self.folders:
            for base, folders, files in os.walk(folder):
                real = os.path.realpath(base)
                depth = len(Path(base).parts) - len(folder.parts)
                if real in seen or submit.startswith(real + "/runs") or "braindump.yml" in files:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = (
                    []
                    if depth >= _MAX_DEPTH
                    else sorted(name for name in folders if name not in _SKIP and os.path.realpath(os.path.join(base, name)) != submit)
                )
                for name in (*sorted(files), *folders):
                    names.setdefault(name, []).append(Path(base) / name)
                    count += 1
                if count > _MAX_ENTRIES:
                    return names
        return names

    def find(self, name: str) -> list[Path]:
        """Files or folders of this base name among the workflow's own."""
        return self._names.get(name, [])

    def module(self, dotted: str) -> Path | None:
        """A Python module of the workflow's own with this name, or None."""
        top = dotted.split(".", maxsplit=1)[0]
        for candidate in (f"{top}.py", top):
            for path in self.find(candidate):
                if candidate.endswith(".py") or any(path.glob("*.py")):
                    return path
        return None

    def moved(self, recorded: str) -> Path | None:
        """A file of the same name close to a recorded place that no longer has it."""
        here = self.run.paths.local(recorded)
        for folder in (here.parent, here.parent.parent):
            if len(here.name) > 255 or not os.path.isdir(folder) or len(folder.parts) < 3:
                continue
            for depth in ("*", "*/*"):
                for index, candidate in enumerate(
                    folder.glob(f"{depth}/{_literal(here.name)}" if depth != "*" else f"*/{_literal(here.name)}")
                ):
                    if index > 50:
                        break
                    if candidate.is_file() and candidate != here and not self._is_run_data(candidate):
                        return candidate
        return None

    def _is_run_data(self, path: Path) -> bool:
        """Below the submit directory or a scratch or storage directory: a copy of the run's making."""
        text = str(path)
        if text.startswith(str(self.run.directory)):
            return True
        places = [str(self.run.paths.local(place)) for _, _, place in self.run.storage]
        return any(text.startswith(place + "/") for place in places)


def _literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
