"""Adding the doctor's findings to pegasus-analyzer's text without changing a byte of it."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from doctor import process
from doctor.errors import DoctorError
from doctor.model import Incident, Report
from doctor.repair import Finished

_SUBMIT_DIR = re.compile(r"^\s*Submit Directory\s*:\s*(/\S.*?)\s*$|submit dir: (/\S+)\s*$", re.MULTILINE)
_SUBMIT_FILE = re.compile(r"^\s*submit file:\s*(/\S.*?\.sub)\s*$", re.MULTILINE)
_JOB = re.compile(r"^=+([^=\s]+)=+$")
_TIMEOUT = 3600.0


def submit_directory(text: str) -> str | None:
    """The submit directory that pegasus-analyzer's output names, or None."""
    if found := _SUBMIT_DIR.search(text):
        return found[1] or found[2]
    for found in _SUBMIT_FILE.finditer(text):  # --files mode prints "None" above, but full paths of submit files
        directory = Path(found[1]).parent
        while directory != directory.parent:
            if os.path.isfile(directory / "braindump.yml"):
                return str(directory)
            directory = directory.parent
    return None


def enrich(text: str, report: Report) -> Iterator[str]:
    """The lines of ``text``, with one line of cause under the heading of each job that it details."""
    by_job: dict[str, Incident] = {}
    for incident in report.incidents:
        for job in (*incident.jobs, incident.diagnosis.culprit.job):
            by_job.setdefault(job, incident)
    for line in io.StringIO(text):  # not splitlines(), which also breaks at form feeds and the like
        yield line
        heading = _JOB.match(line.strip())
        if heading and heading[1] in by_job:
            incident = by_job[heading[1]]
            diagnosis = incident.diagnosis
            other = f" (culprit: {diagnosis.culprit.job})" if diagnosis.culprit.job not in ("", heading[1]) else ""
            yield f"\n pegasus-doctor: {incident.category}/{incident.cause}: {diagnosis.summary}{other}\n"


@contextmanager
def analyzer_command() -> Iterator[tuple[list[str], dict[str, str]]]:
    """The host's pegasus-analyzer, else the one of the ``pegasus-wms`` package; with its environment.

    Raises :class:`DoctorError` when there is neither.
    """
    found = shutil.which("pegasus-analyzer")
    if found:
        yield [found], dict(os.environ)
        return
    spec = importlib.util.find_spec("Pegasus.cli")
    places = list(spec.submodule_search_locations or ()) if spec else []
    script = next((path for place in places if (path := Path(place) / "pegasus-analyzer.py").is_file()), None)
    if script is None:
        raise DoctorError("pegasus-analyzer is neither on PATH nor in the Python package pegasus-wms; install Pegasus or pegasus-wms")
    with tempfile.TemporaryDirectory() as folder:  # it calls itself by name for sub-workflows
        shim = Path(folder) / "pegasus-analyzer"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        shim.chmod(0o700)
        yield [str(shim)], {**os.environ, "PATH": f"{folder}:{os.environ.get('PATH', '/usr/bin:/bin')}"}


def run_analyzer(arguments: Sequence[str]) -> Finished:
    """Run pegasus-analyzer with its own options and return what it printed."""
    with analyzer_command() as (command, environment):
        return process.run([*command, *arguments], timeout=_TIMEOUT, env=environment)


def run_argument(arguments: Sequence[str]) -> str:
    """The run that pegasus-analyzer's own arguments name: ``-i``, ``-d``, ``--dir`` or the last plain one, else '.'"""
    words = list(arguments)
    for index, word in enumerate(words):
        if word in ("-i", "-d", "--dir", "--input-dir") and index + 1 < len(words):
            return words[index + 1]
        if word.startswith("--dir="):
            return word.partition("=")[2]
    if words and not words[-1].startswith("-") and os.path.isdir(words[-1]):
        return words[-1]
    return "."
