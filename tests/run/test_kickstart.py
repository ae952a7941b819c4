"""Kickstart records: the outline reading against PyYAML's, and everything that no YAML loader reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from doctor.model import Line
from doctor.run.files import clean, to_lines
from doctor.run.kickstart import Output, Record, parse_output
from tests.builder import record
from tests.recorded import Case, every


def parse(text: str) -> Output:
    return parse_output(list(to_lines(text.encode())))


def one(text: str) -> Record:
    (found,) = parse(text).records
    return found


def text_of(lines: list[Line]) -> str:
    return "\n".join(line.text for line in lines)


# ---- the two readings of every recorded output agree


def _documents(text: str) -> Iterator[list[str]]:
    """The ``- invocation:`` documents of one file, cut out as text."""
    current: list[str] = []
    for row in text.split("\n"):
        if current and (row == "" or row.startswith("  ")):
            current.append(row)
            continue
        if current:
            yield current
        current = [row] if row.startswith("- invocation:") else []
    if current:
        yield current


def _rows(rows: Iterable[str]) -> list[str]:
    """Without empty lines at both ends, of which YAML's literal blocks keep some and kickstart's text means none."""
    return "\n".join(row.rstrip() for row in rows).strip("\n").split("\n")


def _compare(ours: Record, theirs: dict[str, Any]) -> None:
    for name in ("setup", "prejob", "mainjob", "postjob", "cleanup"):
        if name not in theirs:
            assert name not in ours.steps
            continue
        status, step = theirs[name]["status"], ours.steps[name]
        assert step.raw == status["raw"]
        assert step.exit_code == status.get("regular_exitcode")
        assert step.signal == status.get("signalled_signal", status.get("suspended_signal"))
        assert step.failure_error == str(status.get("failure_error", ""))
    main = theirs.get("mainjob", {})
    assert ours.maxrss_kb == main.get("usage", {}).get("maxrss", 0)
    assert ours.executable == str(main.get("executable", {}).get("file_name", ""))
    assert ours.arguments == [str(word) for word in main.get("argument_vector") or []]
    assert ours.condor_id == str((theirs.get("jobids") or {}).get("condor", ""))
    assert ours.ram_total_kb == (theirs.get("machine") or {}).get("ram_total", 0)
    files = theirs.get("files") or {}
    own = {"stdin", "stdout", "stderr", "metadata", "kickstart", "logfile"}
    assert set(ours.files) == {str(name) for name in files if name not in own}
    for name, fact in ours.files.items():
        entry = next(value for key, value in files.items() if str(key) == name)
        assert (fact.error, fact.output) == (entry.get("error", 0), entry.get("output") in (True, "True")), name
        assert fact.size == entry.get("size", -1)
        assert fact.integrity_error == str(entry.get("integrity_error", ""))
    for name, lines in (("stdout", ours.stdout), ("stderr", ours.stderr)):
        data = str((files.get(name) or {}).get("data") or "")
        assert _rows(line.text for line in lines) == _rows(clean(row) for row in data.split("\n"))
        assert (name in ours.truncated) == ((files.get(name) or {}).get("data_truncated") is True)


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_the_outline_reading_agrees_with_pyyaml(case: Case) -> None:
    compared = 0
    for path in sorted((case.folder / case.run).rglob("*.out.[0-9][0-9][0-9]")):
        data = path.read_bytes()
        ours = parse_output(list(to_lines(data))).records
        documents = list(_documents(data.decode("utf-8", "replace")))
        assert len(ours) == len(documents), path.name
        for mine, rows in zip(ours, documents, strict=True):
            try:
                loaded = yaml.load("\n".join(rows), Loader=yaml.CSafeLoader)
            except yaml.YAMLError:
                continue  # a program's output can break the document; ours reads on
            _compare(mine, loaded[0])
            compared += 1
    outputs = list((case.folder / case.run).rglob("*.out.[0-9][0-9][0-9]"))
    assert compared or not any(b"- invocation:" in path.read_bytes() for path in outputs)


# ---- single facts


def test_line_numbers_point_at_the_text(tmp_path: Path) -> None:
    text = record(raw=256, stderr="Traceback (most recent call last):\n  File x\nValueError: bad", stdout="hello")
    found = one(text)
    rows = text.split("\n")
    for line in (*found.stderr, *found.stdout):
        assert line.number is not None and rows[line.number - 1].strip() == line.text.strip()
    assert text_of(found.stderr) == "Traceback (most recent call last):\n  File x\nValueError: bad"
    assert found.main.line is not None and "regular_exitcode: 1" in rows[found.main.line - 1]


@pytest.mark.parametrize("spelling", ["signalled_name", "singalled_name"])
def test_signals_in_both_spellings(spelling: str) -> None:
    text = record(raw=9, status=f'      signalled_signal: 9\n      {spelling}: "Killed"\n      corefile: false\n')
    found = one(text)
    assert (found.main.signal, found.main.exit_code, found.failed) == (9, None, True)
    assert found == one(text.replace(spelling, "signalled_name"))


def test_a_program_that_could_not_be_started() -> None:
    found = one(record(raw=-127, status="      failure_error: 13   Permission denied\n"))
    assert (found.main.raw, found.main.failure_error, found.failed) == (-127, "13   Permission denied", True)


def test_a_healthy_record_has_not_failed_and_a_failed_clean_up_does_not_count() -> None:
    text = record().replace("  jobids:", "  cleanup:\n    status:\n      raw: 256\n      regular_exitcode: 1\n  jobids:")
    found = one(text)
    assert found.steps["cleanup"].failed
    assert not found.failed
    assert found.complete


def test_missing_outputs_and_integrity_errors() -> None:
    extra = (
        '    f.c1:\n      lfn: "f.c1"\n      file_name: /x/f.c1\n      error: 2\n      output: True\n'
        '    f.d1:\n      lfn: "f.d1"\n      size: 10\n      integrity_error: failed creating a checksum\n'
        "    kickstart:\n      error: 2\n"
    )
    found = one(record(extra_files=extra))
    assert [fact.lfn for fact in found.missing()] == ["f.c1"]
    assert found.files["f.c1"].output
    assert found.files["f.d1"].integrity_error == "failed creating a checksum"
    assert "kickstart" not in found.files


def test_the_record_of_a_run_with_truncated_output_says_so() -> None:
    text = record(stderr="end").replace("data_truncated: false", "data_truncated: true")
    assert one(text).truncated == {"stderr"}


def test_clustered_tasks() -> None:
    text = (
        record(condor="5.0")
        + "[cluster-task id=1, start=2026, duration=0.1, status=0, line=1, pid=5, app=/usr/bin/step]\n"
        + record(raw=256, condor="5.0", stderr="boom")
        + '[cluster-task id=2, start=2026, duration=0.1, status=256, line=2, pid=6, app="/usr/bin/step"]\n'
        + '[cluster-summary stat="fail", lines=2, tasks=2, succeeded=1, failed=1, extra=0, duration=1, start="x", pid=4, app="y"]\n'
    )
    output = parse(text)
    assert [entry.failed for entry in output.records] == [False, True]
    assert [(task.kind, task.values.get("status")) for task in output.tasks[:2]] == [("cluster-task", "0"), ("cluster-task", "256")]
    assert output.tasks[2].values["failed"] == "1"
    assert text_of(output.failed_records()[0].stderr) == "boom"
    assert output.stray == []


PART = """\
---------------pegasus-multipart
- integrity_verification_attempts:
  - lfn: "f.a"
    pfn: "f.a"
    sha256: aaa
    sha256_expected: bbb
    success: False
"""


def test_multipart_documents_before_and_without_a_record() -> None:
    output = parse(record() + PART + "---------------pegasus-multipart\n- transfer_attempts:\n  - src_url: a\n    success: True\n")
    assert [name for name, _, _ in output.parts] == ["integrity_verification_attempts", "transfer_attempts"]
    assert output.parts[0][1][0]["success"] is False
    assert len(output.records) == 1
    alone = parse(PART)
    assert (len(alone.records), alone.parts[0][0], alone.parts[0][2]) == (0, "integrity_verification_attempts", 2)
    broken = parse(PART.replace("sha256: aaa", "sha256: [aaa"))
    assert broken.parts[0][1] is None


def test_text_without_any_record_is_stray() -> None:
    output = parse("plain program\n\nERROR: it failed\n")
    assert [(line.text, line.number) for line in output.stray] == [("plain program", 1), ("ERROR: it failed", 3)]


@given(st.integers(0, 5000))
def test_a_truncated_record_tells_what_stands_before_the_cut(cut: int) -> None:
    text = record(raw=256, stderr="ValueError: bad\nmore words", stdout="hello", condor="77.0")
    cut = min(cut, len(text))
    output = parse(text[:cut])
    head = text[:cut].rpartition("\n")[0] + "\n"
    if "regular_exitcode: 1\n" in head:
        assert output.records[0].main.exit_code == 1
    if "condor: 77.0\n" in head:
        assert output.condor_id == "77.0"
    if "ValueError: bad\n" in head:
        assert output.records[0].stderr[0].text == "ValueError: bad"


words = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@given(st.lists(words, max_size=8), st.integers(0, 255))
def test_any_printed_text_comes_back(rows: list[str], code: int) -> None:
    while rows and not rows[-1].strip():
        rows.pop()
    found = one(record(raw=code << 8, stderr="\n".join(rows)))
    assert [line.text for line in found.stderr] == ["" if not row.strip() and row != row else row for row in rows] or not rows
    assert found.main.exit_code == code
    assert found.failed == bool(code)


@given(st.binary(max_size=600))
def test_any_bytes_are_an_output(data: bytes) -> None:
    parse_output(list(to_lines(data)))


pieces = st.sampled_from(
    [
        "- invocation: True", "  mainjob:", "    status:", "      raw: 256", "      raw: x",
        "      regular_exitcode: 99999999999999999999",
        "      signalled_signal: -1", "  files:", "    stderr:", "      data: |", "        text", "    f.a:", "      error: 2",
        "      lfn: \"\\x\"",
        "---------------pegasus-multipart", "- integrity_summary:", "  - lfn: [", "[cluster-task id=1", "[cluster-summary]", "", "  ",
        "stray",
        "      mode: 0o9", "      mode: 0o100755", "  jobids:", "    condor: 1.0", "\u00fc: \u0661", "      raw: \u0661",
    ]
)  # fmt: skip


@given(st.lists(pieces, max_size=40))
def test_any_order_of_its_lines_is_an_output(rows: list[str]) -> None:
    output = parse("\n".join(rows))
    numbers = [line.number for line in output.stray]
    assert numbers == sorted(numbers, key=lambda value: value or 0)
    assert len(output.records) == sum(row.startswith("- invocation:") for row in rows)
    output.failed_records()
