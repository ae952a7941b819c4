"""``python -m benchmarks watch``: figures of the daemon, with the targets of the project.

The daemon is a process of its own; runs are small directories whose logs are written here. All times
are measured from outside: from the write of the line to the row in the store.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import psutil

from doctor.statedir import run_key
from doctor.store import Store

ROOT = Path(__file__).resolve().parent.parent
_CONFIG = """
[discovery]
workflow_db = false
queue = false
folders = [{folders}]
every_s = 1
[polling]
queue_s = 300
{more}
[limits]
healers = 0
free_space_mb = 1
"""
_STATES = ("SUBMIT", "EXECUTE", "JOB_TERMINATED", "JOB_SUCCESS", "POST_SCRIPT_STARTED", "POST_SCRIPT_TERMINATED", "POST_SCRIPT_SUCCESS")
_SUBMIT = 'universe = vanilla\n+pegasus_wf_xformation = "step"\n+pegasus_site = "condorpool"\nqueue\n'
_RECORD = """- invocation: True
  version: 3.0
  mainjob:
    status:
      raw: 256
      regular_exitcode: 1
  files:
    stderr:
      size: 60
      data: |
        Traceback (most recent call last):
        ModuleNotFoundError: No module named 'package_{number}'
"""


@dataclass(frozen=True)
class Figure:
    """One measured value and its target."""

    name: str
    value: str
    target: str
    met: bool


class Flow:
    """A run directory whose jobstate.log is written by the benchmark."""

    def __init__(self, folder: Path, jobs: int, failing: int = 0) -> None:
        self.folder = folder
        place = folder / "00" / "00"
        place.mkdir(parents=True)
        rows = []
        for number in range(jobs):
            rows.append(f"JOB step_{number} 00/00/step_{number}.sub\nRETRY step_{number} 1\n")
        for number in range(failing):
            (place / f"step_{number}.sub").write_text(
                'universe = vanilla\n+pegasus_wf_xformation = "step"\n+pegasus_site = "condorpool"\nqueue\n'
            )
            (place / f"step_{number}.out.000").write_text(_RECORD.format(number=number))
        (folder / "demo-0.dag").write_text("".join(rows))
        keys = {"submit_dir": folder, "dax_label": folder.name, "wf_uuid": folder.name, "root_wf_uuid": folder.name, "dag": "demo-0.dag",
                "condor_log": "demo-0.log", "jsd": "jobstate.log", "type": "dag"}  # fmt: skip
        (folder / "braindump.yml").write_text("".join(f'{key}: "{value}"\n' for key, value in keys.items()))
        (folder / "demo-0.log").touch()
        self.log = (folder / "jobstate.log").open("ab", buffering=0)
        self.log.write(b"%d INTERNAL *** DAGMAN_STARTED 100.0 ***\n" % time.time())

    def good(self, number: int) -> bytes:
        now = int(time.time())
        return b"".join(
            b"%d step_%d %s %d.0 condorpool - %d\n" % (now, number, state.encode(), 1000 + number, number + 1) for state in _STATES
        )

    def fails(self, number: int) -> bytes:
        now = int(time.time())
        words = ("SUBMIT", "EXECUTE", "JOB_TERMINATED", "JOB_FAILURE")
        return b"".join(b"%d step_%d %s 1 condorpool - %d\n" % (now, number, word.encode(), number + 1) for word in words)


@contextmanager
def daemon(place: Path, runs: list[Path], more: str = "", folders: str = "") -> Iterator[psutil.Process]:
    """The daemon on these runs; it is there when the block begins and ended after it."""
    (place / "config.toml").write_text(_CONFIG.format(more=more, folders=folders))
    argv = [sys.executable, "-m", "doctor", "watch", "--state", str(place / "state"), "--config", str(place / "config.toml")]
    with (place / "daemon.log").open("ab") as log:
        child = subprocess.Popen([*argv, *map(str, runs)], cwd=ROOT, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while "watching" not in (place / "daemon.log").read_text() and time.monotonic() < end and child.poll() is None:
            time.sleep(0.05)
        yield psutil.Process(child.pid)
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()


def _store(place: Path) -> Store:
    return Store(place / "state", time.time)


def latency(place: Path, runs: int = 50, rate: int = 1000, seconds: float = 20.0) -> list[Figure]:
    """A failure among 1,000 lines a second over 50 runs: from its line to the stored diagnosis."""
    flows = [Flow(place / f"run{number:03d}", 3000, failing=40) for number in range(runs)]
    written: dict[tuple[str, str], float] = {}
    stored: dict[tuple[str, str], float] = {}
    keys = {run_key(str(flow.folder)): flow for flow in flows}
    with daemon(place, [flow.folder for flow in flows]):
        store = _store(place)
        done = threading.Event()

        def look() -> None:
            while not done.is_set() or (len(stored) < len(written) and time.monotonic() < give_up):
                for row in store._rows("select run, job from seen"):
                    stored.setdefault((row["run"], row["job"]), time.monotonic())
                time.sleep(0.01)

        give_up = time.monotonic() + seconds + 30
        time.sleep(3)
        watcher = threading.Thread(target=look)
        watcher.start()
        begun, lines, turn = time.monotonic(), 0, 0
        names = list(keys)
        while time.monotonic() - begun < seconds:
            flow = keys[names[turn % runs]]
            job = turn // runs
            if turn % 7 == 0 and job < 40:
                written[names[turn % runs], f"step_{job}"] = time.monotonic()
                flow.log.write(flow.fails(job))
                lines += 4
            else:
                flow.log.write(flow.good(40 + turn))
                lines += 7
            turn += 1
            ahead = lines / rate - (time.monotonic() - begun)
            if ahead > 0:
                time.sleep(ahead)
        took = time.monotonic() - begun
        done.set()
        watcher.join()
        store.close()
    times = sorted(stored[key] - when for key, when in written.items() if key in stored)
    lost = len(written) - len(times)
    middle, late = statistics.median(times), times[int(len(times) * 0.95)]
    where = f"{lines / took:,.0f} lines/s over {runs} runs, {len(written)} failures"
    return [
        Figure(f"line to stored diagnosis, p50 ({where})", f"{middle * 1000:.0f} ms", "< 200 ms", middle < 0.2),
        Figure("line to stored diagnosis, p95", f"{late * 1000:.0f} ms", "< 1000 ms", late < 1.0),
        Figure("failures without a diagnosis", str(lost), "0", lost == 0),
    ]


def throughput(place: Path, runs: int = 50, rate: int = 20_000, seconds: float = 15.0) -> list[Figure]:
    """20,000 lines a second for a while: how far behind is the daemon at the end, and is any line lost?"""
    flows = [Flow(place / f"run{number:03d}", 10) for number in range(runs)]
    with daemon(place, [flow.folder for flow in flows]) as process:
        store = _store(place)
        time.sleep(3)
        before = process.cpu_times()
        begun, lines, turn = time.monotonic(), runs, 0
        while time.monotonic() - begun < seconds:
            flow = flows[turn % runs]
            flow.log.write(b"".join(flow.good(10 + turn * 10 + n) for n in range(10)))
            lines += 70
            turn += 1
            ahead = (lines - runs) / rate - (time.monotonic() - begun)
            if ahead > 0:
                time.sleep(ahead)
        took, end = time.monotonic() - begun, time.monotonic()
        behind = 0.0
        while time.monotonic() - end < 60:
            read = sum(_lines(store, flow) for flow in flows)
            behind = time.monotonic() - end
            if read >= lines:
                break
            time.sleep(0.1)
        after = process.cpu_times()
        memory = process.memory_info().rss / 1e6
        store.close()
    busy = (after.user + after.system - before.user - before.system) / took
    return [
        Figure(
            f"sustained lines/s over {runs} runs for {took:.0f} s",
            f"{(lines - runs) / took:,.0f}",
            ">= 20,000",
            (lines - runs) / took >= 0.97 * rate,
        ),
        Figure("lines lost", str(lines - read), "0", lines == read),
        Figure("caught up after the end", f"{behind:.1f} s", "< 5 s", behind < 5),
        Figure("share of one core meanwhile", f"{busy:.0%}", "-", True),
        Figure("memory", f"{memory:.0f} MB", "< 200 MB", memory < 200),
    ]


def _lines(store: Store, flow: Flow) -> int:
    mark = store.marks(run_key(str(flow.folder))).get("|jobstate")
    return int(json.loads(mark)[3]) if mark else 0


def idle(place: Path, runs: int = 200, seconds: float = 30.0) -> list[Figure]:
    """200 runs in which nothing happens."""
    flows = [Flow(place / f"run{number:03d}", 200) for number in range(runs)]
    with daemon(place, [flow.folder for flow in flows]) as process:
        time.sleep(15)
        before, begun = process.cpu_times(), time.monotonic()
        time.sleep(seconds)
        after, took = process.cpu_times(), time.monotonic() - begun
        memory = process.memory_info().rss / 1e6
    share = (after.user + after.system - before.user - before.system) / took
    return [
        Figure(f"{runs} idle runs: share of one core", f"{share:.2%}", "< 1 %", share < 0.01),
        Figure(f"{runs} idle runs: memory", f"{memory:.0f} MB", "< 150 MB", memory < 150),
    ]


def large(place: Path, jobs: int = 100_000) -> list[Figure]:
    """A run of 100,000 jobs, followed from its first line to its last."""
    flow = Flow(place / "large", jobs, failing=20)
    with daemon(place, [flow.folder]) as process:
        begun = time.monotonic()
        most = 0.0
        for start in range(0, jobs, 500):
            flow.log.write(b"".join(flow.fails(n) if n < 20 else flow.good(n) for n in range(start, min(jobs, start + 500))))
            most = max(most, process.memory_info().rss / 1e6)
        store = _store(place)
        lines = 1 + 20 * 4 + (jobs - 20) * 7
        while _lines(store, flow) < lines and time.monotonic() - begun < 180:
            most = max(most, process.memory_info().rss / 1e6)
            time.sleep(0.1)
        took = time.monotonic() - begun
        most = max(most, process.memory_info().rss / 1e6)
        seen = len(store.seen(run_key(str(flow.folder))))
        read = _lines(store, flow)
        store.close()
    return [
        Figure(f"{jobs:,} jobs followed: most memory", f"{most:.0f} MB", "< 200 MB", most < 200),
        Figure(f"{jobs:,} jobs followed: {lines:,} lines in", f"{took:.1f} s", "-", read == lines and seen == 20),
    ]


def writer_cost(place: Path, pairs: int = 60, lines: int = 2_000) -> list[Figure]:
    """Is whoever writes the log slowed? Small blocks of the same work in turn, in a watched run and in one that is not.

    The work is what monitord does, reduced to the least: make a line, write it, unbuffered.
    """
    watched, alone = Flow(place / "watched", 10), Flow(place / "alone", 10)

    def write(flow: Flow) -> float:
        begun = time.perf_counter()
        for number in range(lines // 7):
            for line in flow.good(number).splitlines(keepends=True):
                flow.log.write(line)
            time.sleep(0.0002)
        return time.perf_counter() - begun

    differences = []
    with daemon(place, [watched.folder]):
        time.sleep(3)
        for number in range(pairs):
            first, second = (watched, alone) if number % 2 else (alone, watched)
            times = {id(first): write(first), id(second): write(second)}
            differences.append(times[id(watched)] / times[id(alone)] - 1)
    middle = statistics.median(differences)
    return [Figure(f"time that a writer of a log needs, paired, median of {pairs}", f"{middle:+.1%}", "< 2 %", middle < 0.02)]


def many(place: Path, runs: int = 2_000) -> list[Figure]:
    """Thousands of runs appear at once in a watched folder."""
    flows = [Flow(place / "runs" / f"run{number:04d}", 5, failing=1) for number in range(runs)]
    for flow in flows:
        flow.log.write(flow.fails(0))
    with daemon(place, [], folders=f'"{place}/runs"') as process:
        begun = time.monotonic()
        store = _store(place)
        while time.monotonic() - begun < 120:
            seen = store._rows("select count(*) as n from seen")[0]["n"]
            if seen == runs:
                break
            time.sleep(0.1)
        took = time.monotonic() - begun
        memory = process.memory_info().rss / 1e6
        store.close()
    return [
        Figure(f"{runs:,} runs appear at once, one failure each: all diagnosed in", f"{took:.1f} s", "-", seen == runs),
        Figure(f"{runs:,} runs: memory", f"{memory:.0f} MB", "-", True),
    ]


def giant(place: Path) -> list[Figure]:
    """An event log of 10 GB (sparse), met for the first time."""
    flow = Flow(place / "giant", 10, failing=1)
    with (flow.folder / "demo-0.log").open("wb") as stream:
        stream.truncate(10 << 30)
        stream.seek(0, os.SEEK_END)
        stream.write(b"\n...\n")
    with daemon(place, [flow.folder]) as process:
        store = _store(place)
        begun = time.monotonic()
        flow.log.write(flow.fails(0))
        while not store.seen(run_key(str(flow.folder))) and time.monotonic() - begun < 60:
            time.sleep(0.01)
        took = time.monotonic() - begun
        time.sleep(2)
        memory = process.memory_info().rss / 1e6
        store.close()
    return [
        Figure("event log of 10 GB, just met: line to stored diagnosis", f"{took:.2f} s", "-", took < 10),
        Figure("event log of 10 GB: memory", f"{memory:.0f} MB", "-", memory < 200),
    ]


_PARTS = {"latency": latency, "throughput": throughput, "idle": idle, "large": large, "writer": writer_cost, "many": many, "giant": giant}


@click.command("watch")
@click.argument("parts", nargs=-1, type=click.Choice(list(_PARTS)))
@click.option("--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file too.")
def main(parts: tuple[str, ...], target: Path | None) -> None:
    """Measure the daemon. Exit code 0, whatever the figures say."""
    from rich.console import Console
    from rich.table import Table

    found: list[Figure] = []
    for name in parts or tuple(_PARTS):
        with tempfile.TemporaryDirectory(prefix="doctor-watch-") as folder:
            try:
                found += _PARTS[name](Path(folder))
            except Exception as problem:  # noqa: BLE001 - the other figures are still worth something
                log = Path(folder) / "daemon.log"
                print(log.read_text()[-2000:] if log.exists() else "", file=sys.stderr)
                found.append(Figure(name, f"failed: {problem}", "-", False))
    table = Table(box=None, header_style="dim")
    for title in ("figure", "measured", "target", ""):
        table.add_column(title)
    for one in found:
        table.add_row(one.name, one.value, one.target, "" if one.target == "-" and one.met else "met" if one.met else "missed")
    Console(highlight=False, width=140).print(table)
    if target:
        target.write_text(json.dumps([one.__dict__ for one in found], indent=1))


if __name__ == "__main__":
    os.environ.setdefault("CONDOR_CONFIG", "/dev/null")
    main()
