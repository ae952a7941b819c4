"""``.in`` files of auxiliary jobs and ``.lof`` lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from doctor.run.files import Files, Ledger
from doctor.run.transfers import Transfer, read_lof, read_transfers


def read(tmp_path: Path, text: str | bytes, ledger: Ledger | None = None) -> list[Transfer]:
    (tmp_path / "x.in").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_transfers(tmp_path / "x.in", Files(tmp_path, ledger or Ledger()))


def test_transfers_removals_and_directories(tmp_path: Path) -> None:
    entries = [
        {
            "type": "transfer",
            "lfn": "f.a",
            "src_urls": [{"site_label": "local", "url": "/in/f.a"}, {"url": "http://x/f.a"}],
            "dest_urls": [{"url": "file:///scratch/f.a"}],
        },
        {"type": "remove", "target": {"url": "file:///scratch/./f.a", "recursive": "False"}},
        {"type": "mkdir", "target": {"url": "file:///scratch"}},
    ]
    assert read(tmp_path, json.dumps(entries)) == [
        Transfer("transfer", "f.a", ("/in/f.a", "http://x/f.a"), ("file:///scratch/f.a",)),
        Transfer("remove", "", (), ("file:///scratch/./f.a",)),
        Transfer("mkdir", "", (), ("file:///scratch",)),
    ]


def test_a_list_of_replicas_is_no_list_of_transfers(tmp_path: Path) -> None:
    ledger = Ledger()
    assert read(tmp_path, 'f.d file:///out/f.d site="local"\n', ledger) == []
    assert ledger.entries == {}


def test_a_cut_list_is_noted(tmp_path: Path) -> None:
    ledger = Ledger()
    assert read(tmp_path, '[ { "type": "transfer", "lfn": "f', ledger) == []
    assert "not valid JSON" in ledger.entries["x.in"]


def test_deeply_nested_json_is_survived(tmp_path: Path) -> None:
    assert read(tmp_path, "[" * 200_000) == []


def test_an_absent_file_is_no_complaint(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    assert read_transfers(tmp_path / "x.in", files) == []
    assert ledger.entries == {}


shapes = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "lfn", "src_urls", "dest_urls", "target", "url"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(shapes)
def test_json_of_any_shape_is_survived(tmp_path: Path, value: Any) -> None:
    found = read(tmp_path, json.dumps(value))
    assert len(found) == (sum(isinstance(entry, dict) for entry in value) if isinstance(value, list) else 0)
    assert all(isinstance(url, str) for entry in found for url in (*entry.sources, *entry.destinations, entry.lfn, entry.kind))


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, data)
    read(tmp_path, b"[" + data)


def test_lof_lists(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    (tmp_path / "a.in.lof").write_text("step=step\nf.b=1=/x/f.b\n\nbare\n")
    assert read_lof(tmp_path / "a.in.lof", files) == ["step", "f.b=1", "bare"]
    assert read_lof(tmp_path / "none.lof", files) == []
    assert ledger.entries == {}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_lof(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b.lof").write_bytes(data)
    assert all(isinstance(name, str) for name in read_lof(tmp_path / "b.lof", Files(tmp_path, Ledger())))
