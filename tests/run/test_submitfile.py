"""HTCondor submit files: macros, lists, attributes, environment."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from doctor.run.files import Files, Ledger
from doctor.run.submitfile import SubmitFile, read_submit_file

SAMPLE = """\
# SUBMIT FILE NAME : a.sub
environment = "LANG=en_US.UTF-8 GRIDSTART_CLEANUP='/bin/rm -rf a b' PEGASUS_SITE=condorpool"
request_memory = $(pegasus_memory_mb) MB
Transfer_Input_Files = step, f.b1,$(wf_submit_dir)/a.lof,,
wf_submit_dir = /data/run
pegasus_memory_mb = 200
+pegasus_wf_xformation = "step"
+pegasus_job_class = 1
+pegasus_site = "condorpool"
requirements = (Arch == "X86_64") && (Memory >= 5)
queue
"""


def read(tmp_path: Path, text: str | bytes) -> SubmitFile:
    (tmp_path / "a.sub").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_submit_file(tmp_path / "a.sub", Files(tmp_path, Ledger()))


def test_values_macros_and_lists(tmp_path: Path) -> None:
    submit = read(tmp_path, SAMPLE)
    assert submit.get("request_memory") == "200 MB"
    assert submit.files_of("TRANSFER_INPUT_FILES") == ("step", "f.b1", "/data/run/a.lof")
    assert (submit.transformation, submit.site, submit.job_class) == ("step", "condorpool", 1)
    assert submit.get("requirements") == '(Arch == "X86_64") && (Memory >= 5)'
    assert submit.line_of["request_memory"] == 3
    assert submit.environment() == {"LANG": "en_US.UTF-8", "GRIDSTART_CLEANUP": "/bin/rm -rf a b", "PEGASUS_SITE": "condorpool"}


def test_macros_that_name_each_other_end(tmp_path: Path) -> None:
    submit = read(tmp_path, "a = $(b)\nb = $(a)\nc = $(c)$(c)\nd = $(unknown)\n")
    assert submit.get("a") in ("$(a)", "$(b)")
    assert len(submit.get("c")) < 1 << 20
    assert submit.get("d") == "$(unknown)"


def test_an_absent_file_is_noted_and_false(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    submit = read_submit_file(tmp_path / "a.sub", files)
    assert not submit
    assert submit.get("executable") == ""
    assert submit.job_class == 0
    assert "a.sub" in ledger.entries


@given(st.binary(max_size=400))
def test_any_bytes_are_a_submit_file(tmp_path: Path, data: bytes) -> None:
    submit = read(tmp_path, data)
    for key in submit.values:
        submit.get(key)
    submit.environment()
    assert submit.job_class >= 0


keys = st.from_regex(r"\+?[a-z][a-z_]{0,8}", fullmatch=True)
values = st.text(alphabet=st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=20).filter(lambda text: "$(" not in text)


@given(st.dictionaries(keys, values, max_size=8))
def test_what_is_written_is_what_is_read(tmp_path: Path, pairs: dict[str, str]) -> None:
    submit = read(tmp_path, "".join(f"{key} = {value}\n" for key, value in pairs.items()))
    assert {key: submit.get(key) for key in pairs} == pairs
    assert [submit.line_of[key] for key in pairs] == list(range(1, len(pairs) + 1))
