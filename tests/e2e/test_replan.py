"""Planning again with the real planner of this host, where one is on PATH: scratch is small, and nothing was cleaned up."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.scenarios import ACT
from tests.pool.fleet import unmount
from tests.pool.live import Doctor, give
from tests.pool.pool import Pool

PLANNER = shutil.which("pegasus-plan")
STEPS, SIZE = 6, 3  # files of so many MB, one after the other
_PROGRAM = f"""#!/usr/bin/python3
import os, sys, time
with open(sys.argv[2], "wb") as made:
    for _ in range({SIZE}):
        made.write(os.urandom(1 << 20))
time.sleep(3)  # clean-up jobs need a moment too
"""


def _write(place: Path, scratch: Path) -> None:
    """A chain of steps, its catalogs and properties."""
    (place / "bin").mkdir()
    (place / "bin/bulk").write_text(_PROGRAM)
    (place / "bin/bulk").chmod(0o755)
    (place / "seed.txt").write_text("seed\n")

    def directory(kind: str, path: Path) -> dict[str, object]:
        return {"type": kind, "path": str(path), "fileServers": [{"url": f"file://{path}", "operation": "all"}]}

    names = ["seed.txt", *(f"v{number}.bin" for number in range(STEPS))]
    jobs = [
        {
            "type": "job", "name": "bulk", "id": f"stage{number}", "arguments": [names[number], names[number + 1]],
            "uses": [
                {"lfn": names[number], "type": "input"},
                {"lfn": names[number + 1], "type": "output", "stageOut": number == STEPS - 1, "registerReplica": False},
            ],
        }
        for number in range(STEPS)
    ]  # fmt: skip
    home = str(Path(PLANNER or "/").resolve().parents[1])
    pool_site = {
        "name": "condorpool", "directories": [directory("sharedScratch", scratch / "pool")],
        "profiles": {
            "condor": {"universe": "vanilla"}, "env": {"PEGASUS_HOME": home}, "pegasus": {"style": "condor", "auxillary.local": "True"},
        },
    }  # fmt: skip
    local = {"name": "local", "directories": [directory("sharedScratch", scratch), directory("localStorage", place / "output")]}
    documents: dict[str, dict[str, object]] = {
        "workflow.yml": {
            "name": "chain", "jobs": jobs,
            "jobDependencies": [{"id": f"stage{n}", "children": [f"stage{n + 1}"]} for n in range(STEPS - 1)],
        },
        "sites.yml": {"sites": [local, pool_site]},
        "replicas.yml": {"replicas": [{"lfn": "seed.txt", "pfns": [{"site": "local", "pfn": str(place / "seed.txt")}]}]},
        "transformations.yml": {
            "transformations": [{"name": "bulk", "sites": [{"name": "local", "pfn": str(place / "bin/bulk"), "type": "stageable"}]}]
        },
    }  # fmt: skip
    for name, document in documents.items():
        (place / name).write_text(yaml.safe_dump({"pegasus": "5.0", **document}, sort_keys=False))
    (place / "pegasus.properties").write_text("pegasus.data.configuration = sharedfs\ndagman.retry = 0\npegasus.mode = development\n")


@pytest.fixture
def place(pool_folder: Path) -> Iterator[Path]:
    """A folder with a small file system for scratch."""
    if PLANNER is None:
        pytest.skip("no pegasus-plan on PATH: planning again cannot be tried for real")
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = pool_folder / "chain"
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={STEPS * SIZE - 5}m,mode=777", "tmpfs", str(scratch)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    unmount(scratch)


def test_scratch_full_without_cleanup_recovers_in_a_new_run(place: Path, pool: Pool) -> None:
    _write(place, place / "scratch")
    give(place)
    tools = f"PATH={Path(PLANNER or '').parent}:{pool.installation.bin}:/usr/bin:/bin"
    words = ["--conf", "pegasus.properties", "--sites", "condorpool", "--output-sites", "local", "--dir", str(place / "runs")]
    pool.condor("env", tools, str(PLANNER), *words, "--cleanup", "none", "--submit", "workflow.yml", cwd=place, seconds=300)
    (run,) = (path.parent for path in (place / "runs").rglob("braindump.yml"))
    (place / "act.toml").write_text(ACT)
    base = place / "doctor"
    doctor = Doctor(pool, base)
    options = ["--policy", str(place / "act.toml"), "--state", str(base / "home/state"), "--json", "--timeout", "400"]
    new = run.parent / f"replanned-{run.name}"
    _wait_end(run)
    code, document = doctor.json("heal", str(run), *options, seconds=500)
    assert (code, document["outcome"], document["new_run"]) == (0, "recovered", str(new)), document
    assert [action["action"] for one in document["incidents"] for action in one["actions"] if action["applied"]] == ["enable-cleanup"]
    assert (place / f"output/v{STEPS - 1}.bin").stat().st_size == SIZE << 20
    assert "DAGMAN_FINISHED 0" in (new / "jobstate.log").read_text()
    code, document = doctor.json("heal", str(run), *options)
    assert (code, document["outcome"]) == (0, "healthy")


def _wait_end(run: Path) -> None:
    deadline = time.monotonic() + 240
    while "DAGMAN_FINISHED" not in ((run / "jobstate.log").read_text() if (run / "jobstate.log").exists() else ""):
        assert time.monotonic() < deadline, "the workflow did not end"
        time.sleep(1)
