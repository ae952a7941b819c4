"""The fixed menu of what the model may ask for: read-only, inside this run, bounded, and redacted like all else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from doctor.diagnose.choose import last_words
from doctor.diagnose.evidence import gather
from doctor.diagnose.verdict import culprit_of
from doctor.llm.pack import Pack, Piece
from doctor.llm.schema import LIST_FOLDER, READ_LINES, SHOW_PRODUCER, Refused
from doctor.llm.sections import find_job
from doctor.model import Culprit, Kind, Line
from doctor.run.dataflow import origin
from doctor.run.reader import Job, Run

MAX_LINES = 60
MAX_NAMES = 60
ROOM = 1500  # tokens that one request may add
_SECRET_NAMES = (
    ".pem", ".key", ".p12", ".pfx", ".jks", ".db", ".sqlite", ".netrc", ".pgpass", ".conf", ".use", "credentials", "id_rsa", "id_ed25519",
    "id_ecdsa", "x509up", "scitoken", "token", "secret", "passw", "kerb", "krb5",
)  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _ReadLines(_Strict):
    file: str = Field(min_length=1, max_length=1000)
    first: int = Field(ge=1)
    last: int = Field(ge=1)


class _ListFolder(_Strict):
    job: str = Field(max_length=1000)


class _ShowProducer(_Strict):
    job: str = Field(max_length=1000)
    file: str = Field(min_length=1, max_length=1000)


def serve(name: str, data: Any, pack: Pack, run: Run | None) -> str:
    """Carry out one request; the rows that it added to the pack.

    Raises :class:`~doctor.llm.schema.Refused` when the request is not on the menu or leads outside the run.
    """
    if run is None:
        raise Refused("there is no run behind this message; nothing more can be read")
    start = len(pack.rows)
    pack.extend(ROOM)
    try:
        if name == READ_LINES:
            _read_lines(_ReadLines.model_validate(data), pack, run)
        elif name == LIST_FOLDER:
            _list_folder(_ListFolder.model_validate(data), pack, run)
        elif name == SHOW_PRODUCER:
            _show_producer(_ShowProducer.model_validate(data), pack, run)
        else:
            raise Refused("there is no such tool")
    except ValidationError as problem:
        first = problem.errors()[0]
        raise Refused(f"{'.'.join(str(part) for part in first['loc']) or 'the request'}: {first['msg']}") from None
    return pack.rows_from(start)


def _place(run: Run, name: str) -> Path:
    """A file inside the run's directories, links resolved; everything else is refused."""
    if "\0" in name or name.startswith(("~", "-")):
        raise Refused("file: no file of this run")
    path = Path(os.path.normpath(run.directory / name))
    real = os.path.realpath(path)
    roots = [os.path.realpath(part.directory) for part in run.tree()]
    if not any(real.startswith(f"{root}/") for root in roots):
        raise Refused("file: it does not lie inside this run")
    low = [part.lower() for part in (*Path(real).parts[-2:], path.name)]
    if any(word in part for word in _SECRET_NAMES for part in low[1:]) or not os.path.isfile(real):
        raise Refused("file: it is not there, or not one that may be read")
    return path


def _read_lines(asked: _ReadLines, pack: Pack, run: Run) -> None:
    name = pack.redactor.restore(asked.file)
    path = _place(run, name)
    last = min(asked.last, asked.first + MAX_LINES - 1)
    text = run.files.text(path, quiet=True)
    rows = tuple(line for line in text.lines if line.number and asked.first <= line.number <= last)
    known = next((one.kind for one in pack.lines.values() if one.file == text.file), Kind.STDOUT)
    if not rows:
        pack.fact(f"{text.file} has no lines {asked.first} to {last} that can be read")
        return
    pack.add(Piece(f"lines {asked.first} to {last}, as asked", text.file, known, rows, 4000, tail=False))


def _job(number: str, pack: Pack, run: Run) -> Job:
    known = pack.jobs.get(number) or next((one for one in pack.jobs.values() if pack.redactor.restore(number) == one.job), None)
    job = find_job(run, known.job, known.workflow) if known else None
    if job is None:
        raise Refused("job: none of those shown")
    return job


def _list_folder(asked: _ListFolder, pack: Pack, run: Run) -> None:
    job = _job(asked.job, pack, run)
    path = job.submit_path
    if path is None:
        raise Refused("job: it has no folder")
    stem = path.name.removesuffix(".sub")
    names = [name for name in run.files.listing(path.parent) if name == stem or name.startswith((f"{stem}.", f"{stem}_"))]
    rows = tuple(Line(f"{name} ({_size(path.parent / name)})") for name in names[:MAX_NAMES])
    pack.add(Piece("the job's files", run.files.name(path.parent), Kind.SUBMIT, rows, 3000, tail=False))


def _size(path: Path) -> str:
    try:
        return f"{path.lstat().st_size} bytes" if not path.is_symlink() else "a link"
    except OSError:
        return "unreadable"


def _show_producer(asked: _ShowProducer, pack: Pack, run: Run) -> None:
    job = _job(asked.job, pack, run)
    lfn = os.path.basename(pack.redactor.restore(asked.file).rstrip("/"))
    found = origin(job.run, lfn, job)
    if found.removed_by is not None:
        pack.job(_who(found.removed_by), f"a clean-up job that removed {lfn}")
    producer = found.producer
    if producer is None:
        pack.fact(f"no job of this workflow writes {lfn}")
        return
    number = pack.job(_who(producer), f"was to write {lfn}; {producer.state.value}")
    if not producer.attempts:
        return
    facts = gather(producer, producer.attempts[-1])
    record = facts.record
    fact = record.files.get(lfn) if record else None
    if fact is not None:
        state = f"{fact.size} bytes" if fact.error == 0 else f"error {fact.error} (not there)"
        pack.add(Piece(f"what kickstart recorded of {lfn}", facts.out_name, Kind.STATUS, (Line(f"{lfn}: {state}", fact.line),), 400))
    words = last_words(facts)
    if words:
        pack.add(Piece(f"last words of {number}", words[0].file, words[0].kind, tuple(Line(one.text, one.line) for one in words), 900))


def _who(job: Job) -> Culprit:
    return culprit_of(job, job.attempts[-1].index if job.attempts else 0, "")
