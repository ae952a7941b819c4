"""Kickstart's provenance records (``<job>.out.NNN``).

A YAML loader gives neither line numbers nor anything at all of a record cut short, and evidence
needs the first while half-written records are daily bread. Kickstart prints its YAML with fixed
indentation (``pegasus-kickstart``, C source), so the outline is read line by line; quoted scalars
and the small multi-part documents go through PyYAML. Tests compare both readings on real records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from doctor.model import Line

_MULTIPART = "---------------pegasus-multipart"
_MAX_PART = 4000  # lines of one multi-part document that are parsed
#: How the lines begin that are looked at, at the innermost level of a step and of a file, and of the machine.
_STEP_STARTS = frozenset(("raw", "reg", "sig", "sus", "fai", "max", "fil", "mod", "err"))
_FILE_STARTS = frozenset(("err", "siz", "out", "int", "lfn", "dat"))
_MACHINE_STARTS = frozenset(("ram", "una"))
_UNREAD = {"environment", "limits", "usage"}  # sections of which nothing is wanted: half of a failed job's record
_STEPS = ("setup", "prejob", "mainjob", "postjob", "cleanup")


@dataclass(slots=True)
class FileFact:
    """What kickstart found out about one logical file. ``error`` is an errno, 0 for none."""

    lfn: str
    error: int = 0
    size: int = -1
    output: bool = False
    integrity_error: str = ""
    line: int | None = None


@dataclass(slots=True)
class Step:
    """Status of one step (``mainjob``, ``prejob`` ...). ``raw`` is the wait status, None when absent."""

    raw: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    failure_error: str = ""
    line: int | None = None

    @property
    def failed(self) -> bool:
        return bool(self.exit_code or self.signal or self.failure_error or (self.raw not in (None, 0)))


@dataclass(slots=True)
class Record:
    """One ``- invocation:`` document. Text is dedented and keeps its line numbers of the file."""

    line: int | None
    fields: dict[str, str] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    files: dict[str, FileFact] = field(default_factory=dict)
    stdout: list[Line] = field(default_factory=list)
    stderr: list[Line] = field(default_factory=list)
    truncated: set[str] = field(default_factory=set)
    executable: str = ""
    executable_mode: int | None = None
    executable_error: int = 0
    arguments: list[str] = field(default_factory=list)
    maxrss_kb: int = 0
    ram_total_kb: int = 0
    complete: bool = False

    @property
    def main(self) -> Step:
        return self.steps.get("mainjob") or Step()

    @property
    def condor_id(self) -> str:
        return self.fields.get("condor", "")

    @property
    def failed(self) -> bool:
        return any(step.failed for name, step in self.steps.items() if name != "cleanup")

    def missing(self) -> list[FileFact]:
        """Files that were not there when the task had ended (``error: 2``), kickstart itself left out."""
        return [fact for fact in self.files.values() if fact.error == 2]


@dataclass(slots=True)
class ClusterTask:
    """One ``[cluster-task ...]`` or ``[cluster-summary ...]`` line of pegasus-cluster."""

    kind: str
    values: dict[str, str]
    line: int | None


@dataclass(slots=True)
class Output:
    """Everything in one ``.out.NNN`` file."""

    records: list[Record] = field(default_factory=list)
    documents: list[tuple[str, Sequence[Line], int | None]] = field(default_factory=list)  # (name, body, line), not yet parsed
    tasks: list[ClusterTask] = field(default_factory=list)
    stray: list[Line] = field(default_factory=list)  # text outside any record: a program run without kickstart

    @property
    def condor_id(self) -> str:
        return next((record.condor_id for record in self.records if record.condor_id), "")

    @property
    def parts(self) -> list[tuple[str, Any, int | None]]:
        """The multi-part documents: (name, document, line); None for a document that is no YAML."""
        return [(name, _document(body), line) for name, body, line in self.documents]

    def part(self, wanted: str) -> list[tuple[Any, int | None]]:
        """The documents of one name, with their lines."""
        return [(_document(body), line) for name, body, line in self.documents if name == wanted]

    def failed_records(self) -> list[Record]:
        return [record for record in self.records if record.failed]


def parse_output(lines: Sequence[Line]) -> Output:
    """Read the lines of one ``.out`` file. Never fails: what is not understood is ``stray``."""
    output = Output()
    index, total = 0, len(lines)
    while index < total:
        text = lines[index].text
        if text.startswith("- invocation:"):
            index = _record(lines, index, output)
        elif text.startswith(_MULTIPART):
            index = _multipart(lines, index + 1, output)
        elif text.startswith("[cluster-"):
            _cluster(lines[index], output)
            index += 1
        else:
            if text.strip():
                output.stray.append(lines[index])
            index += 1
    return output


def _record(lines: Sequence[Line], start: int, output: Output) -> int:
    record = Record(lines[start].number)
    output.records.append(record)
    section = child = ""
    index, total = start + 1, len(lines)
    while index < total:
        line = lines[index]
        text = line.text
        if text and not text.startswith("  "):
            break
        index += 1
        if text.startswith("      "):
            if text[6:9] not in (_FILE_STARTS if section == "files" else _STEP_STARTS) and child != "argument_vector":
                continue
        elif (section in _UNREAD or (section == "machine" and text[4:7] not in _MACHINE_STARTS)) and text.startswith("    "):
            continue
        indent = _indent(text)
        stripped = text.strip()
        if not indent or not stripped:
            continue
        key, sign, value = stripped.partition(":")
        value = value.strip()
        if indent == 2:
            section, child = key, ""
            record.complete = section == "files" or record.complete
            if value:
                record.fields[key] = _scalar(value)
        elif section == "files":
            if indent == 4 and sign:
                child = _scalar(stripped[:-1]) if stripped.endswith(":") else key
                if child not in ("stdin", "stdout", "stderr", "metadata", "kickstart", "logfile"):
                    record.files[child] = FileFact(child, line=line.number)
            elif indent == 6 and key == "data" and value.startswith("|") and child in ("stdout", "stderr"):
                index = _block(lines, index, record.stdout if child == "stdout" else record.stderr)
            elif indent == 6 and sign:
                _file_field(record, child, key, value, line)
        elif section in _STEPS:
            if indent == 4:
                child = key
            elif indent == 6:
                _step_field(record, section, child, key, value, stripped, line)
        elif section in ("jobids", "machine") and indent == 4:
            if key == "condor":
                record.fields["condor"] = _scalar(value)
            elif key == "ram_total":
                record.ram_total_kb = _number(value)
            elif key == "uname_nodename":
                record.fields["hostname"] = _scalar(value)
    return index


def _indent(text: str) -> int:
    """2, 4 or 6, the depths that mean something; 0 for all others and for an empty line."""
    for depth in (2, 4, 6):
        if (char := text[depth : depth + 1]) != " ":
            return depth if char and text[depth - 1] == " " else 0
    return 0


def _step_field(record: Record, section: str, child: str, key: str, value: str, stripped: str, line: Line) -> None:
    step = record.steps.setdefault(section, Step())
    if child == "status":
        if key == "raw":
            step.raw, step.line = _number(value, negative=True), line.number
        elif key == "regular_exitcode":
            step.exit_code, step.line = _number(value), line.number
        elif key in ("signalled_signal", "suspended_signal"):
            step.signal, step.line = _number(value), line.number
        elif key == "failure_error":
            step.failure_error, step.line = _scalar(value), line.number
    elif section != "mainjob":
        return
    elif child == "usage" and key == "maxrss":
        record.maxrss_kb = _number(value)
    elif child == "executable":
        if key == "file_name":
            record.executable = _scalar(value)
        elif key == "mode" and value.startswith("0o") and value[2:].isdigit():
            record.executable_mode = int(value[2:9], 8) if set(value[2:9]) <= set("01234567") else None
        elif key == "error":
            record.executable_error = _number(value)
    elif child == "argument_vector" and stripped.startswith("- "):
        record.arguments.append(_scalar(stripped[2:]))


def _file_field(record: Record, child: str, key: str, value: str, line: Line) -> None:
    if child in ("stdout", "stderr"):
        if key == "data_truncated" and value.lower() == "true":
            record.truncated.add(child)
        return
    fact = record.files.get(child)
    if fact is None:
        return
    if key == "error":
        fact.error, fact.line = _number(value), line.number
    elif key == "size":
        fact.size = _number(value)
    elif key == "output":
        fact.output = value.lower() == "true"
    elif key == "integrity_error":
        fact.integrity_error, fact.line = _scalar(value), line.number
    elif key == "lfn":
        fact.lfn = _scalar(value)


def _block(lines: Sequence[Line], index: int, into: list[Line]) -> int:
    """A literal block: every line indented by eight or more, and empty lines between them."""
    while index < len(lines):
        text = lines[index].text
        if text.startswith("        "):
            into.append(Line(text[8:], lines[index].number))
        elif text.strip():
            break
        index += 1
    while into and not into[-1].text.strip():
        into.pop()
    return index


def _multipart(lines: Sequence[Line], start: int, output: Output) -> int:
    """Documents after the multi-part mark, each ``- <name>:`` with its own indented body."""
    index = start
    while index < len(lines):
        text = lines[index].text
        if text.startswith(_MULTIPART):
            return index
        if text.startswith("- invocation:") or text.startswith("[cluster-"):
            return index
        if text.startswith("- ") and text.rstrip().endswith(":"):
            name, first = text[2:].strip().rstrip(":"), index
            index += 1
            while index < len(lines) and (lines[index].text.startswith("  ") or not lines[index].text.strip()):
                index += 1
            output.documents.append((name, lines[first + 1 : min(index, first + _MAX_PART)], lines[first].number))
            continue
        if text.strip():
            output.stray.append(lines[index])
        index += 1
    return index


def _document(body: Sequence[Line]) -> Any:
    import yaml

    try:
        return yaml.load("\n".join(line.text for line in body), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        return None


def _cluster(line: Line, output: Output) -> None:
    kind, _, rest = line.text.strip("[] ").partition(" ")
    pairs = (part.split("=", 1) for part in rest.split(",") if "=" in part)
    output.tasks.append(ClusterTask(kind, {key.strip(): value.strip().strip('"') for key, value in pairs}, line.number))


def _scalar(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        if "\\" in text:
            import yaml

            try:
                return str(yaml.load(text, Loader=yaml.CSafeLoader))
            except (yaml.YAMLError, ValueError):
                return text[1:-1]
        return text[1:-1]
    return text


def _number(text: str, negative: bool = False) -> int:
    digits = text[1:] if negative and text.startswith("-") else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        return 0
    return int(text)
