"""Free space on a real (small) file system that fills up, and on one that clean-up jobs keep free."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from doctor.watch import detect
from doctor.watch.disks import DiskWatch, folder_size, local_path, quota_left
from tests.watch.test_detect import RUN

START = 1_000_000.0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 MB."""
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system takes root")
    yield place
    subprocess.run(["umount", str(place)], check=False)


def watch(place: Path, clean_up: bool) -> list[str]:
    """Nine samples, ten seconds apart, while a run writes 8 MB between two of them."""
    scratch, output = place / "scratch", place / "output"
    scratch.mkdir()
    output.mkdir()
    disks = DiskWatch()
    disks.follow("k", {"scratch": [str(scratch)], "output": [str(output)]})
    found = []
    for number in range(9):
        now = START + 10 * number
        (scratch / f"file_{number}").write_bytes(b"x" * (8 << 20))
        if clean_up and number % 2:
            for path in scratch.iterdir():
                path.unlink()
        disks.sample(now)
        run = replace(RUN, begun=now - 3600, done=50, total=100)
        found = detect.disk_full(run, disks.of("k", now), now)
    return [one.explanation for one in found]


def test_a_disk_that_fills_up_is_told_with_the_folder_that_grows(small: Path) -> None:
    told = watch(small, clean_up=False)
    assert len(told) == 1 and f"{small}/scratch grows by 4" in told[0] and "will be full in about 4 min" in told[0], told


def test_what_clean_up_removes_again_is_no_trend(small: Path) -> None:
    assert watch(small, clean_up=True) == []


def test_the_size_of_folders_is_taken_with_a_bound(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"f{number}").write_bytes(b"x" * 4096)
    budget = [20]
    assert 0 < folder_size(str(tmp_path), budget) < 50 * 4096 and budget[0] <= 0


def test_quota() -> None:
    text = """Disk quotas for user alice (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
  server:/home    9000   10000   12000       0     100       0       0       0
      /dev/sdb1      10       0       0       0       5       0       0       0
"""
    assert quota_left(text) == {"server:/home": (3000 * 1024.0, float("inf"))}


def test_urls_of_this_host() -> None:
    assert local_path("file:///a%20b/c") == "/a b/c" and local_path("/a") == "/a"
    assert local_path("file://other/a") == "" and local_path("https://x/a") == ""
