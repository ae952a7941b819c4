"""The job event log: with HTCondor's own reader and without it, damaged, and at the edges of a chunk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.run import events as module
from doctor.run.events import JobEvent, read_events
from doctor.run.files import Files, Ledger
from tests.builder import event
from tests.recorded import Case, every

NORMAL = event(0, "7.0", "Job submitted from host: <127.0.0.1:9618>", "    DAG Node: a") + event(
    1, "7.0", "Job executing on host: <127.0.0.1:9618>"
)
HELD = event(12, "7.0", "Job was held.", "Error from slot1@vm: memory usage exceeded request_memory", "Code 21 Subcode 102")
EVICTED = event(
    4,
    "7.0",
    "Job was evicted.",
    "(0) CPU times",
    "\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run Remote Usage",
    "\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run Local Usage",
    "0  -  Run Bytes Sent By Job",
    "36151  -  Run Bytes Received By Job",
    "Error from slot1@vm: memory usage exceeded request_memory",
    "Partitionable Resources :    Usage  Request Allocated ",
    "   Cpus                 :        0        1         1 ",
    "   Disk (KB)            :       53  5242880   5243904 ",
    "   Memory (MB)          :      617      200       256 ",
)
ABORTED = event(9, "7.0", "Job was aborted.", "via condor_rm (by user sci)")


def read(tmp_path: Path, text: str | bytes, ledger: Ledger | None = None) -> list[JobEvent]:
    path = tmp_path / "demo-0.log"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_events(path, Files(tmp_path, ledger or Ledger()))


@pytest.fixture
def no_htcondor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "htcondor2", None)


def check(found: list[JobEvent]) -> None:
    assert [(one.kind, one.condor_id, one.text, one.line, one.code, one.subcode) for one in found] == [
        ("evicted", "7.0", "Error from slot1@vm: memory usage exceeded request_memory", 12, -1, -1),
        ("held", "7.0", "Error from slot1@vm: memory usage exceeded request_memory", 19, 21, 102),
        ("aborted", "7.0", "via condor_rm (by user sci)", 23, -1, -1),
    ]
    assert (found[0].memory_mb, found[0].request_memory_mb, found[0].disk_kb, found[0].request_disk_kb) == (617, 200, 53, 5242880)
    assert all(one.when > 0 for one in found)


def test_reasons_codes_lines_and_resources(tmp_path: Path) -> None:
    check(read(tmp_path, NORMAL + EVICTED + HELD + ABORTED))


@pytest.mark.usefixtures("no_htcondor")
def test_without_htcondor_the_same(tmp_path: Path) -> None:
    check(read(tmp_path, NORMAL + EVICTED + HELD + ABORTED))


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_recorded_logs_read_alike_with_and_without_htcondor(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("htcondor2")
    runs = list(case.open().tree())
    paths = [run.directory / run.identity.condor_log for run in runs]
    with_it = [read_events(path, run.files) for path, run in zip(paths, runs, strict=True)]
    monkeypatch.setitem(sys.modules, "htcondor2", None)
    without = [read_events(path, run.files) for path, run in zip(paths, runs, strict=True)]
    strip = [[(e.kind, e.condor_id, e.text, e.line, e.code, e.subcode, e.memory_mb) for e in one] for one in with_it]
    assert strip == [[(e.kind, e.condor_id, e.text, e.line, e.code, e.subcode, e.memory_mb) for e in one] for one in without]


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_htcondors_reader_takes_the_events_that_are_cut_out(case: Case) -> None:
    """Otherwise the first test would pass on the fall-back alone."""
    pytest.importorskip("htcondor2")
    for run in case.open().tree():
        cuts = list(module._cuts(run.directory / run.identity.condor_log, run.files))
        assert module._parse(cuts) is not None


def test_events_across_the_edge_of_a_chunk_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (NORMAL + EVICTED + HELD + ABORTED) * 3
    whole = read(tmp_path, text)
    for size in (1, 7, 64, 333, 1000):
        monkeypatch.setattr(module, "_CHUNK", size)
        assert read(tmp_path, text) == whole


@pytest.mark.usefixtures("no_htcondor")
@given(
    st.lists(st.sampled_from([NORMAL, HELD, EVICTED, ABORTED, "rubbish\n", "...\n", "012 (x.y) broken\n"]), max_size=12),
    st.integers(5, 900),
)
def test_chunks_of_any_size_make_no_difference(tmp_path: Path, parts: list[str], size: int) -> None:
    text = "".join(parts)
    whole = read(tmp_path, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", size)
        patch.setattr(module, "_MAX_EVENT", 4096)
        assert read(tmp_path, text) == whole
    rows = text.split("\n")
    assert len(whole) == sum(part in (HELD, EVICTED, ABORTED) for part in parts)
    for one in whole:
        assert one.text in rows[one.line - 1]


def test_an_event_cut_short_still_gives_its_reason(tmp_path: Path) -> None:
    found = read(tmp_path, NORMAL + HELD[: HELD.index("Subcode")])
    assert [(one.kind, one.code) for one in found] == [("held", -1)]
    assert "memory usage" in found[0].text


def test_an_event_without_a_reason_shows_its_heading(tmp_path: Path) -> None:
    (found,) = read(tmp_path, event(12, "7.0", "Job was held."))
    assert found.text == "Job was held."
    assert found.line == 1


def test_an_absent_log_has_no_events(tmp_path: Path, files: Files) -> None:
    assert read_events(tmp_path / "demo-0.log", files) == []


def test_megabytes_without_a_newline_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1000)
    found = read(tmp_path, HELD.encode() + b"\x00" * 50_000 + b"\n" + ABORTED.encode())
    assert [one.kind for one in found] == ["held", "aborted"]
    assert [one.line for one in found] == [2, 7]


def test_too_many_events_are_cut_off_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_EVENTS", 5)
    ledger = Ledger()
    assert len(read(tmp_path, HELD * 9, ledger)) == 5
    assert "left out" in ledger.entries["demo-0.log"]


@given(st.binary(max_size=500))
def test_any_bytes_are_a_log(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, data)
    assert read(tmp_path, data + b"\n" + HELD.encode())[-1].kind == "held"


@given(st.binary(max_size=200))
def test_any_bytes_within_an_event_are_harmless(tmp_path: Path, data: bytes) -> None:
    text = b"012 (7.000.000) 2026-11-20 21:23:12 Job was held.\n\t" + data + b"\n...\n"
    found = read(tmp_path, text)
    assert found[0].condor_id == "7.0"
