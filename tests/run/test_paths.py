"""Where recorded paths live now."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.errors import DoctorError
from doctor.run.paths import PathMap, local_path


def test_the_longest_prefix_wins_and_the_submit_directory_before_all(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = PathMap.parse((f"/data={tmp_path}/a", f"/data/flows={tmp_path}/b"))
    assert paths.local("/data/flows/x/in") == tmp_path / "b/x/in"
    assert paths.local("/data/other") == tmp_path / "a/other"
    assert paths.local("/database") == Path("/database")
    assert paths.local("/data") == tmp_path / "a"
    assert paths.local("file:///data/flows/./x") == tmp_path / "b/x"
    run = paths.under("/data/flows/x/run0001", tmp_path / "here")
    assert run.local("/data/flows/x/run0001/00/a.sub") == tmp_path / "here/00/a.sub"
    assert run.local("/data/flows/x/in") == tmp_path / "b/x/in"
    assert paths.under("", tmp_path).pairs == paths.pairs


@pytest.mark.parametrize("option", ["nonsense", "relative=/tmp", "=/tmp", "/data=", "/data=/does/not/exist"])
def test_wrong_options_are_errors_that_name_the_option(option: str) -> None:
    with pytest.raises(DoctorError, match="--map"):
        PathMap.parse((option,))


def test_urls_of_other_protocols_are_no_local_paths() -> None:
    assert local_path("http://example.org/x") is None
    assert local_path("file://host/data/x") == "/data/x"
    assert local_path("/data/../x") == "/x"


@given(st.text(max_size=40))
def test_any_text_has_some_place(text: str) -> None:
    PathMap((("/data", Path("/mnt")),)).local(text)
    local_path(text)


parts = st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), min_size=1, max_size=5)


@given(parts, parts)
def test_a_path_below_a_mapped_folder_stays_below_its_new_place(old: list[str], rest: list[str]) -> None:
    paths = PathMap((("/" + "/".join(old), Path("/new")),))
    assert paths.local("/" + "/".join(old + rest)) == Path("/new", *rest)
