"""Situations in which a workflow is in trouble while it still runs, each with a healthy twin that looks alike.

Every situation is real: jobs on a pool, broken execute nodes, file systems that fill up, a DAGMan that is held.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.pool.config import PoolSettings
from tests.pool.flow import Flow, SubFlow, Task
from tests.pool.live import Live, Tweak, nothing
from tests.pool.pool import Pool
from tests.pool.processes import send

MAIN = "127-0-0-1.local"
SPARE, FULL, BARE, TINY = "spare.local", "full.local", "bare.local", "tiny.local"
LONG_HOLD = 900  # seconds: a held job stays until somebody does something about it
STALLED_S, WAITING_S, GONE_S, TREND_S = 22, 12, 6, 8
SYSTEMIC = 5
EVICTIONS = 3
BURNING = 40  # jobs of the workflow whose program always fails
WAVE = 5  # of which so many are submitted at a time

#: Two good nodes, one with a sandbox disk that is full, one that lacks the software, and one of a single core.
SETTINGS = PoolSettings(
    extra={"START": "(TARGET.NobodyTakesIt =!= True)"},
    nodes={
        SPARE: {"STARTER_JOB_ENVIRONMENT": "SOFTWARE=/bin"},
        FULL: {"STARTER_JOB_ENVIRONMENT": "SOFTWARE=/bin"},
        BARE: {"STARTER_JOB_ENVIRONMENT": "SOFTWARE=/nonexistent/software"},
        TINY: {"NUM_CPUS": "1"},
    },
)
CONFIG = f"""
[discovery]
workflow_db = false
every_s = 1
[polling]
queue_s = 2
pool_s = 5
disk_s = 1
sweep_s = 1
settle_s = 2
[detections]
stalled_s = {STALLED_S}
unmatchable_s = 8
sub_workflow_s = {WAITING_S}
gone_s = {GONE_S}
evictions = {EVICTIONS}
systemic_jobs = {SYSTEMIC}
disk_horizon_s = 120
disk_trend_s = {TREND_S}
[limits]
free_space_mb = 16
"""
POLICY = f'mode = "act"\n[systemic]\njobs = {SYSTEMIC}\n[rescue]\nback_off_s = 1\n[verify]\npoll_s = 1\n'

NAP = '#!/bin/sh\nsleep "$1"\n'
USES_SOFTWARE = '#!/bin/sh\n"${SOFTWARE:-/bin}/true"\n'
NEEDS_TOOL = "#!/bin/sh\nsolve-everything --fast\n"
LATE = "#!/bin/sh\nsleep 12\necho 'ModuleNotFoundError: No module named solver' >&2\nexit 1\n"
FAILS = "#!/bin/sh\necho 'ModuleNotFoundError: No module named solver' >&2\nexit 1\n"
DISK_MB = 96


def on(node: str) -> dict[str, str]:
    """Keeps a task on one node."""
    return {"requirements": f'(TARGET.Machine == "{node}")'}


def flow(name: str, *tasks: Task, **more: object) -> Flow:
    """A workflow whose programs run where they are registered: nothing is staged unless a task has inputs."""
    programs = {"nap": NAP, "late": LATE, "uses": USES_SOFTWARE, "needs": NEEDS_TOOL, "fails": FAILS, "fill": FILL, "saw": SAW}
    used = {task.program: programs[task.program] for task in tasks}
    values: dict[str, object] = {"hold_seconds": LONG_HOLD, "installed": frozenset(used), **more}
    return Flow(name, tasks, used, **values)  # type: ignore[arg-type]


def nap(id_: str, seconds: float, node: str = MAIN, **more: object) -> Task:
    submit = {**on(node), **more.pop("submit", {})}  # type: ignore[dict-item]
    return Task(id_, "nap", arguments=(str(seconds),), submit=submit, **more)  # type: ignore[arg-type]


#: `fill MEGABYTES PAUSE`: files in the folder where the job runs, which is the shared scratch.
FILL = '#!/bin/sh\nfor n in $(seq "$1"); do head -c 1048576 /dev/zero > part.$n; sleep "$2"; done\n'
SAW = '#!/bin/sh\nfor n in $(seq "$1"); do head -c 8388608 /dev/zero > part; sleep 0.7; rm part; sleep 0.7; done\n'


def shared(id_: str, program: str, *words: object, after: tuple[str, ...] = ()) -> Task:
    return Task(id_, program, arguments=tuple(map(str, words)), submit=on(MAIN), after=after)


# -- what is done to a workflow, before it is submitted and while it runs ---------------------------------


def small_scratch(root: Path) -> None:
    """The shared scratch is a file system of its own."""
    place = root / "pscratch"
    place.mkdir()
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=777", "tmpfs", str(place)], capture_output=True, check=False)
    (place / "pool").mkdir()


def hang_planner(run: Path) -> None:
    """The sub-workflow's PRE script hangs before it has planned anything."""
    place = next((run / "00/00").glob("inner_*.000"))
    place.rename(place.with_name("not-yet"))
    script = next((run / "00/00").glob("*.pre.sh"))
    script.write_text("#!/bin/bash\nexec sleep 600\n")


def mute_dagman(run: Path) -> None:
    """The sub-workflow's DAGMan hangs before its first word."""
    place = run / "bin"
    place.mkdir()
    program = place / "condor_dagman"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    _edit(next((run / "00/00").glob("pegasus-plan_*.sub")), r"(?m)^executable = .*$", f"executable = {program}")


def throttle(run: Path) -> None:
    """No more than so many jobs at a time."""
    _edit(next(run.glob("*.dag.condor.sub")), r" -AutoRescue 1", f" -MaxJobs {WAVE} -AutoRescue 1")


def slow_transfer(run: Path) -> None:
    """pegasus-transfer takes its time, as with a slow file server."""
    sub = next((run / "00/00").glob("stage_in_local*.sub"))
    found = re.search(r"\S+/bin/pegasus-transfer", sub.read_text())
    assert found is not None
    program = run / "slow-transfer"
    program.write_text(f'#!/bin/sh\nsleep 12\nexec {found[0]} "$@"\n')
    program.chmod(0o755)
    _edit(sub, r"\S+/bin/pegasus-transfer", str(program))


def _edit(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, lambda _: new, path.read_text())
    assert count, f"{path} has nothing like {pattern}"
    path.write_text(text)


def hold_job(live: Live) -> None:
    live.wait_state("nap_one", "EXECUTE")
    live.pool.condor("condor_hold", live.queue_id("nap_one"))


def hold_dagman(live: Live) -> None:
    live.wait_state("nap_one", "EXECUTE")
    live.pool.condor("condor_hold", "-constraint", f'JobUniverse == 7 && Iwd == "{live.run}"')


def crash_dagman(live: Live) -> None:
    """DAGMan dies of a segmentation fault, after which HTCondor takes its job out of the queue."""
    live.wait_state("nap_one", "EXECUTE")
    for pid in _processes(str(live.run)):
        send(pid, signal.SIGSEGV)


def remove_by_force(live: Live) -> None:
    """A person takes the DAGMan job out of the queue by force, so that DAGMan cannot say a word any more."""
    live.wait_state("nap_one", "EXECUTE")
    family = _processes(str(live.run))
    for pid in family:
        send(pid, signal.SIGSTOP)
    mine = ["-constraint", f'JobUniverse == 7 && Iwd == "{live.run}"']
    live.pool.condor("condor_rm", *mine)
    live.pool.condor("condor_rm", "-forcex", *mine)
    for pid in family:
        send(pid, signal.SIGKILL)


def _processes(folder: str) -> list[int]:
    """DAGMan and what belongs to it: the processes that work in a submit directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd") == folder:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def silence_monitord(live: Live) -> None:
    """monitord is killed whenever it is there."""
    live.wait_state("nap_one", "EXECUTE")
    end = time.monotonic() + 75
    while time.monotonic() < end and not live.ends():
        _kill_monitord(live)
        time.sleep(0.2)


def _kill_monitord(live: Live) -> None:
    for pid in _processes(str(live.run)):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"pegasus-monitord" in words and b"pegasus-dagman" not in words:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def evict(times: int) -> Callable[[Live], None]:
    """The job is thrown off its slot so many times; the last time that it starts it may end."""

    def work(live: Live) -> None:
        for number in range(times):
            live.wait(lambda number=number: live.jobstate().count(" nap_one EXECUTE ") > number, 90, f"start {number + 1}")  # type: ignore[misc]
            live.pool.condor("condor_vacate_job", "-fast", live.queue_id("nap_one"))

    return work


# -- the situations ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """One workflow: what is done to it, and whether it is healthy."""

    flow: Flow
    before: Tweak = nothing
    after: Tweak = nothing
    meanwhile: Callable[[Live], None] | None = None
    root_only: bool = False  # it takes the right to mount


_INNER = flow("inner", nap("deep", 20))
_PARTS = tuple(Task(f"{node.partition('.')[0]}{n}", "uses", submit=on(node)) for node in (FULL, BARE, SPARE) for n in range(3))
_SAME = tuple(Task(f"{node.partition('.')[0]}{n}", "needs", submit=on(node)) for node in (MAIN, SPARE) for n in range(3))
_FINE = tuple(nap(f"fine{node.partition('.')[0]}{n}", 1, node) for node in (MAIN, SPARE) for n in range(3))
#: The first attempt goes to the node without the software, later ones to another.
_FIRST = {"requirements": f'(TARGET.Machine == ifThenElse(int(MY.DAGNodeRetry) == 0, "{BARE}", "{SPARE}"))'}

TROUBLE: dict[str, Situation] = {
    "held": Situation(flow("dheld", nap("one", 600)), meanwhile=hold_job),
    "refused": Situation(flow("drefused", nap("one", 1, submit={"+NobodyTakesIt": "True"}))),
    "planning": Situation(flow("dplanning", subflows=(SubFlow("part", _INNER),)), after=hang_planner),
    "mute": Situation(flow("dmute", subflows=(SubFlow("part", _INNER),)), after=mute_dagman),
    "nodes": Situation(flow("dnodes", *_PARTS), root_only=True),
    "eaten": Situation(
        flow(
            "deaten",
            *(Task(f"r{n}", "uses", submit=_FIRST) for n in range(3)),
            *_FINE,
            nap("last", 20, after=("r0", "r1", "r2")),
            retries=1,
        )
    ),
    "burning": Situation(flow("dburning", *(Task(f"{n:02}", "fails", submit=on(MAIN)) for n in range(BURNING))), after=throttle),
    "evicted": Situation(flow("devicted", nap("one", 600)), meanwhile=evict(EVICTIONS)),
    "disk": Situation(flow("ddisk", shared("one", "fill", DISK_MB - 6, 0.4), data="sharedfs"), small_scratch, root_only=True),
    "dagman-held": Situation(flow("ddagheld", nap("one", 600)), meanwhile=hold_dagman),
    "dagman-gone": Situation(flow("ddaggone", nap("one", 600)), meanwhile=crash_dagman),
    "dagman-removed": Situation(flow("dremoved", nap("one", 600)), meanwhile=remove_by_force),
    "monitord": Situation(flow("dmonitord", nap("one", 60), Task("one", "late", submit=on(MAIN))), meanwhile=silence_monitord),
    "short-hold": Situation(flow("dshort", Task("one", "nap", outputs=("result.txt",), arguments=("1",), submit=on(MAIN)), hold_seconds=3)),
}
FINE: dict[str, Situation] = {
    "long-job": Situation(flow("flong", nap("one", 36, TINY))),
    "busy-pool": Situation(flow("fbusy", nap("one", 1, TINY, after=()))),
    "sub-workflow": Situation(flow("fsub", subflows=(SubFlow("part", flow("inner", nap("deep", 24))),))),
    "nodes": Situation(flow("fnodes", *_FINE)),
    "evicted-once": Situation(flow("fevicted", nap("one", 8)), meanwhile=evict(1)),
    "saw-tooth": Situation(flow("fsaw", shared("one", "saw", 16), data="sharedfs"), small_scratch, root_only=True),
    "ends-in-time": Situation(
        flow("fintime", *(shared(f"n{n}", "nap", 0) for n in range(6)), shared("one", "fill", 24, 0.5, after=("n0",)), data="sharedfs"),
        small_scratch,
        root_only=True,
    ),
    "slow-transfer": Situation(
        flow("fslow", Task("one", "nap", ("near.txt", "far.txt"), arguments=("1",), submit=on(MAIN)), inputs={"near.txt": "x\n"},
             sources={"far.txt": "@FAR@"}),
        after=slow_transfer,
    ),
}  # fmt: skip
#: Workflows that fail, but in which one thing must not be said.
OTHER: dict[str, Situation] = {
    "everywhere": Situation(flow("oevery", *_SAME, *_FINE)),
    "landed": Situation(flow("olanded", *_SAME[3:], *(nap(f"fine{n}", 1) for n in range(3)))),
    "few": Situation(
        flow("ofew", *(Task(f"{n}", "fails", submit=on(MAIN)) for n in range(SYSTEMIC - 2)), nap("a", 6), nap("b", 6, after=("a",)),
             nap("c", 1, after=("b",)))
    ),
}  # fmt: skip


class SlowServer:
    """Files over HTTP, each after some seconds."""

    def __init__(self, seconds: float) -> None:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(seconds)
                self.send_response(200)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"far\n")

            def log_message(self, *words: object) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}/far.txt"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def break_nodes(pool: Pool) -> bool:
    """Fills the sandbox disk of one node up; whether that could be done."""
    place = pool.execute(FULL)
    owner = place.stat()
    words = ["mount", "-t", "tmpfs", "-o", f"size=32k,mode=755,uid={owner.st_uid},gid={owner.st_gid}", "tmpfs", str(place)]
    return os.geteuid() == 0 and subprocess.run(words, capture_output=True, check=False).returncode == 0
