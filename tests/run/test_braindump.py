"""Identity of a run, from a whole, a damaged or an absent braindump.yml."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from doctor.run.braindump import read_identity
from doctor.run.files import Files, Ledger
from tests.builder import RECORDED, braindump


def test_a_whole_file(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    (tmp_path / "braindump.yml").write_text(braindump())
    identity = read_identity(tmp_path, files)
    assert identity.complete
    assert (identity.dax_label, identity.dag, identity.condor_log, identity.submit_dir) == ("demo", "demo-0.dag", "demo-0.log", RECORDED)
    assert (identity.wf_uuid, identity.root_wf_uuid, identity.user) == ("uuid-wf", "uuid-root", "sci")
    assert ledger.entries == {}


def test_a_file_cut_in_the_middle_of_a_value_is_read_by_line(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    whole = braindump()
    (tmp_path / "braindump.yml").write_text(whole[: whole.index('"pegasus.1')] + '"pegasus.1.prop')
    (tmp_path / "demo-0.dag").write_text("")
    identity = read_identity(tmp_path, files)
    assert not identity.complete
    assert identity.wf_uuid == "uuid-wf"
    assert identity.dag == "demo-0.dag"
    assert identity.condor_log == "demo-0.log"
    assert "damaged" in ledger.entries["braindump.yml"]


def test_without_a_file_the_dag_names_the_run(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    (tmp_path / "blast-7.dag").write_text("")
    identity = read_identity(tmp_path, files)
    assert (identity.dag, identity.dax_label, identity.condor_log, identity.jsd) == ("blast-7.dag", "blast", "blast-7.log", "jobstate.log")
    assert not identity.complete
    assert "braindump.yml" in ledger.entries


def test_names_of_files_never_lead_out_of_the_directory(tmp_path: Path, files: Files) -> None:
    text = braindump().replace('"jobstate.log"', '"../../../etc/passwd"').replace('"demo-0.log"', '"/etc/shadow"')
    (tmp_path / "braindump.yml").write_text(text)
    identity = read_identity(tmp_path, files)
    assert (identity.jsd, identity.condor_log) == ("passwd", "shadow")
    (tmp_path / "braindump.yml").write_text(text + "\n]: broken")
    identity = read_identity(tmp_path, files)
    assert (identity.jsd, identity.condor_log) == ("passwd", "shadow")


@given(st.binary(max_size=400))
def test_any_bytes_give_an_identity(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "braindump.yml").write_bytes(data)
    identity = read_identity(tmp_path, Files(tmp_path, Ledger()))
    assert identity.jsd
    assert not identity.complete
    assert all("/" not in name for name in (identity.dag, identity.condor_log, identity.jsd, identity.properties))


@given(st.integers(0, 900), st.binary(max_size=12))
def test_any_damage_leaves_what_stands_before_it(tmp_path: Path, cut: int, rubbish: bytes) -> None:
    whole = braindump().encode()
    (tmp_path / "braindump.yml").write_bytes(whole[:cut] + rubbish)
    identity = read_identity(tmp_path, Files(tmp_path, Ledger()))
    if cut > whole.index(b"wf_uuid: ", 60) + len(b'wf_uuid: "uuid-root"\nwf_uuid: "uuid-wf"\n'):
        assert identity.root_wf_uuid == "uuid-root"
