"""The real queue: edits, releases and holds of real jobs, on a real pool."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actions
from doctor.errors import DoctorError
from doctor.queue import ScheddQueue, largest_slot
from doctor.repair import Applied, Finished, Plan

from .cases import CASES
from .world import CAPS, Book, incident

pytest.importorskip("htcondor2")


class Tools:
    """The host's own commands, for the pool of this test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, ...]] = []

    def run(self, argv: tuple[str, ...], timeout: float, cwd: str | None = None) -> Finished:
        self.calls.append(argv)
        done = subprocess.run(
            [str(self.folder / argv[0]), *argv[1:]], capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd
        )
        return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def pool(pool: Any) -> Iterator[Any]:
    """The session's pool, to which HTCondor's library in this process talks."""
    import htcondor2

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDOR_CONFIG", str(pool.config))
        htcondor2.reload_config()
        yield pool


@pytest.fixture
def job(pool: Any) -> Iterator[Callable[..., str]]:
    """Submits a job as an ordinary user and removes it afterwards."""
    ids: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o777)

        def submit(*lines: str) -> str:
            text = [
                "universe = vanilla", "executable = /bin/sleep", "arguments = 600", "transfer_executable = false", "initialdir = /",
                f"log = {folder}/job.log", "request_memory = 64", "request_disk = 1024", *lines, "queue",
            ]  # fmt: skip
            (folder / "job.sub").write_text("\n".join(text) + "\n")
            said = pool.condor("condor_submit", "-terse", str(folder / "job.sub"))
            ids.append(said.split()[0])
            submit.log = folder / "job.log"  # type: ignore[attr-defined]
            return ids[-1]

        yield submit
        for one in ids:
            pool.condor("condor_rm", one)


def wait(check: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < limit, "nothing happened in time"
        time.sleep(0.5)


@pytest.fixture(params=["library", "tools"])
def queue(request: pytest.FixtureRequest, pool: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScheddQueue]:
    """The queue through the library, and where the library is not let in through the host's tools."""
    import htcondor2

    monkeypatch.setenv("_CONDOR_SEC_FS_ENFORCE_CHANNEL_BINDING", "False" if request.param == "library" else "True")
    htcondor2.reload_config()
    yield ScheddQueue(Tools(pool.installation.bin) if request.param == "tools" else None)


def test_edit_and_release_with_a_reason_that_arrives(queue: ScheddQueue, job: Any) -> None:
    job_id = job("hold = true")
    (ad,) = queue.present(f"ClusterId == {job_id.split('.')[0]}")
    assert (ad["JobStatus"], ad["HoldReasonCode"]) == (5, 15) and "Env" not in ad and "Args" not in ad
    assert queue.get(job_id, "RequestMemory") == "64" and queue.get(job_id, "NoSuchThing") is None
    queue.edit(job_id, "RequestMemory", "96")
    assert queue.get(job_id, "RequestMemory") == "96"
    queue.edit(job_id, "AllowedJobDuration", "77")
    assert queue.get(job_id, "AllowedJobDuration") == "77"
    queue.release(job_id, "pegasus-doctor: asks for more memory")
    log: Path = job.log
    wait(lambda: "Job was released" in log.read_text())
    assert "pegasus-doctor: asks for more memory" in log.read_text()
    queue.release(job_id, "again")  # nothing to do is no error
    queue.hold(job_id, "pegasus-doctor: stop")
    wait(lambda: "pegasus-doctor: stop" in log.read_text())
    assert queue.present(f"ClusterId == {job_id.split('.')[0]}")[0]["JobStatus"] == 5


def test_a_job_that_is_gone(queue: ScheddQueue) -> None:
    assert queue.present("ClusterId == 999999999") == [] and queue.get("999999999.0", "RequestMemory") is None
    with pytest.raises(DoctorError, match=r"999999999\.0"):
        queue.edit("999999999.0", "RequestMemory", "1")
    with pytest.raises(DoctorError, match=r"999999999\.0"):
        queue.release("999999999.0", "x")


def test_a_wrong_question_is_a_clear_error(queue: ScheddQueue) -> None:
    with pytest.raises(DoctorError, match="does not answer the query"):
        queue.present("((")


def test_what_may_not_be_asked_or_changed() -> None:
    queue = ScheddQueue()
    for job_id in ("1", "1.0 || true", "", "-all", "1.0.0"):
        with pytest.raises(DoctorError, match="no job id"):
            queue.release(job_id, "x")
    with pytest.raises(DoctorError, match="no attribute name"):
        queue.edit("1.0", "Request Memory", "1")
    with pytest.raises(DoctorError, match="cannot be changed"):
        queue.edit("1.0", "Owner", '"root"')


def test_without_a_pool_the_error_says_so() -> None:
    script = "from doctor.queue import ScheddQueue; ScheddQueue().present('true')"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("_CONDOR")}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**clean, "CONDOR_CONFIG": "/dev/null"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "DoctorError: HTCondor's schedd does not answer (" in done.stderr, done.stderr


def test_the_largest_slot_of_the_pool(pool: Any) -> None:
    offer = largest_slot()
    assert offer["memory_mb"] == pool.settings.memory_mb or offer["memory_mb"] > 0
    assert offer["cpus"] > 0 and offer["disk_mb"] > 0 and offer["gpus"] == -1


def test_more_memory_for_a_job_that_is_really_held(queue: ScheddQueue, job: Any, tmp_path: Path) -> None:
    """A held job gets more memory and runs again; its submit file keeps it; undo takes both back."""
    world, about, params = CASES["raise-memory"](tmp_path)
    job_id = job(
        "periodic_hold = (JobStatus == 2) && (RequestMemory < 100)", 'periodic_hold_reason = "memory usage exceeded request_memory"',
        f'+pegasus_root_wf_uuid = "{world.run.identity.root_wf_uuid}"', f'+pegasus_wf_uuid = "{world.run.identity.wf_uuid}"',
        '+pegasus_wf_dag_job_id = "assay_merge"',
    )  # fmt: skip
    cluster = job_id.split(".")[0]
    wait(lambda: queue.present(f"ClusterId == {cluster}")[0]["JobStatus"] == 5, 90)
    world.queue = queue  # type: ignore[assignment]
    view = world.view()
    assert view.jobs["assay_merge"].queue_ids == (job_id,) and view.jobs["assay_merge"].held and view.jobs["assay_merge"].hold_code == 3
    assert view.active is False
    plan = actions.get("raise-memory").plan(about, params, view, CAPS)
    assert isinstance(plan, Plan) and not plan.rescue and plan.queue[0].job_id == job_id
    book = Book()
    applied = actions.get("raise-memory").apply(plan, world.runner(book))
    assert isinstance(applied, Applied), applied
    assert [entry.what.split(" ")[0] for entry in book.entries] == ["edit", "queue", "queue"]
    assert applied.plan.queue[0].before == (("RequestMemory", "64"),)
    wait(lambda: queue.present(f"ClusterId == {cluster}")[0]["JobStatus"] in (1, 2))
    assert queue.get(job_id, "RequestMemory") == "770"
    again = actions.get("raise-memory").apply(plan, world.runner(book))
    assert isinstance(again, Applied) and again.entries == ()
    assert isinstance(actions.get("raise-memory").undo(applied, world.runner(book)), Applied)
    assert queue.get(job_id, "RequestMemory") == "64"


def test_a_requirement_against_a_host_is_understood_by_htcondor(pool: Any) -> None:
    from actions.exclude_host import excluding

    machines = pool.condor("condor_status", "-af", "Machine").split()
    full = machines[0].lower()
    for host in (full, full.split(".")[0]):
        clause = excluding(host).replace("TARGET.", "")
        assert full not in pool.condor("condor_status", "-const", clause, "-af", "Machine").lower().split()
        other = re.sub(r'"[^"]*"\)$', '"elsewhere")', clause)
        assert full in pool.condor("condor_status", "-const", other, "-af", "Machine").lower().split()


def test_an_incident_of_no_job_has_nothing_to_release(queue: ScheddQueue, tmp_path: Path) -> None:
    world, _, _ = CASES["release-held"](tmp_path)
    world.queue = queue  # type: ignore[assignment]
    answer = actions.get("release-held").plan(incident(""), {}, world.view(), CAPS)
    assert not isinstance(answer, Plan) and answer.reason
