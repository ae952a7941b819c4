"""The daemon as a guest on its host: low priority, no descriptor kept, nothing written but its own state, gone when told to."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from doctor.diagnose.matcher import Matcher
from doctor.loop.policy import load_policy
from doctor.settings import SettingsError, in_force
from doctor.statedir import run_key
from doctor.store import Store
from doctor.watch.config import load_config
from doctor.watch.daemon import Daemon
from doctor.watch.healing import Healer
from doctor.watch.observe import Observers
from tests.loop.world import MEMORY_ERROR, World
from tests.watch.flows import CONFIG, ROOT, Flow, start_daemon, until


def ready(folder: Path) -> bool:
    return until(lambda: "watching" in (folder / "daemon.log").read_text(), 30)


def ended(daemon: subprocess.Popen[bytes], within: float = 5.0) -> None:
    daemon.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert daemon.wait(15) == 0
    assert time.monotonic() - begun < within


def tree(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything below a folder as the file system knows it; any write changes one of these."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            info = os.lstat(os.path.join(base, name))
            found[os.path.join(base, name)] = (info.st_ino, info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return found


def test_many_runs_at_low_priority_cost_no_descriptors(tmp_path: Path) -> None:
    flows = [Flow(tmp_path / "runs" / f"run{number:03d}", 5) for number in range(200)]
    gentle = CONFIG.replace("nice = 0", "nice = 7").replace("idle_io = false", "idle_io = true")
    (tmp_path / "config.toml").write_text(gentle.format(healers=0))
    daemon = subprocess.Popen(
        [sys.executable, "-m", "doctor", "watch", "--only", "--state", str(tmp_path / "state"), "--config", str(tmp_path / "config.toml"),
         *(str(flow.folder) for flow in flows)],
        cwd=ROOT, stderr=(tmp_path / "daemon.log").open("ab"), env={**os.environ, "CONDOR_CONFIG": "/dev/null"},
    )  # fmt: skip
    store = None
    try:
        assert ready(tmp_path)
        seen = psutil.Process(daemon.pid)
        assert (seen.nice(), seen.ionice().ioclass) == (7, psutil.IOPRIO_CLASS_IDLE)
        store = Store(tmp_path / "state", time.time)
        counts = []
        for number in range(4):
            for flow in flows:
                flow.job(number, fails=flow is flows[number])
            assert until(lambda number=number: store.seen(run_key(str(flows[number].folder))), 60)  # type: ignore[misc]
            assert until(lambda number=number: all(_read(store, flow) for flow in flows), 60)
            counts.append((seen.num_fds(), seen.num_threads()))
        assert max(fds for fds, _ in counts) <= counts[0][0] + 5 and counts[0][0] < 60, counts
        assert max(threads for _, threads in counts) <= counts[0][1] + 2, counts
        open_now = [one.path for one in seen.open_files() if "/runs/" in one.path]
        assert len(open_now) <= 2, "no log is kept open between two reads"
        print("descriptors, threads:", counts)
        ended(daemon)
    finally:
        daemon.kill()
        daemon.wait()
        if store is not None:
            store.close()


def test_threads_that_watch_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count against the user's own limit of processes; what exceeds the bound is swept, as on a host without inotify."""
    monkeypatch.setattr("doctor.watch.observe.MOST", 2)
    woken: list[str] = []
    observers = Observers(woken.append)
    observers.start()
    try:
        folders = [tmp_path / name for name in "abc"]
        for folder in folders:
            folder.mkdir()
        assert [observers.add(folder, folder.name) for folder in folders] == ["inotify", "inotify", "sweep"]
        assert observers.counts == {"inotify": 2, "polling": 0, "sweep": 1}
        (folders[1] / "log").write_text("x")
        assert until(lambda: "b" in woken, 10)
        observers.remove(folders[0])
        assert observers.add(folders[2], "c") == "inotify" and observers.counts["sweep"] == 0
    finally:
        observers.stop()


def _read(store: Store, flow: Flow) -> bool:
    """Whether the whole log of the run has been read."""
    mark = store.marks(run_key(str(flow.folder))).get("|jobstate", "[]")
    return str(flow.log.stat().st_size) in mark or flow.log.stat().st_size in json.loads(mark)


def test_in_mode_observe_nothing_but_the_state_is_written(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "runs" / "other", 4)
    World(tmp_path / "runs").build({"a1": (MEMORY_ERROR, "200")})
    flow.job(0, fails=True)
    flow.job(1, fails=False)
    flow.finish(1)
    home = tmp_path / "home"
    (home / ".config").mkdir(parents=True)
    policy, config = tmp_path / "observe.toml", tmp_path / "config.toml"
    policy.write_text('mode = "observe"\n')
    config.write_text(CONFIG.format(healers=2).replace("workflow_db = false", f'workflow_db = true\nfolders = ["{tmp_path}/runs"]'))
    before, at_home = tree(tmp_path / "runs"), tree(home)
    words = ["watch", "--state", str(tmp_path / "state"), "--config", str(config), "--policy", str(policy)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_") or name == "XDG_CACHE_HOME"}
    daemon = subprocess.Popen(
        [sys.executable, "-m", "doctor", *words], cwd=ROOT, stderr=(tmp_path / "daemon.log").open("ab"),
        env={**env, "HOME": str(home), "CONDOR_CONFIG": "/dev/null"},
    )  # fmt: skip
    try:
        assert ready(tmp_path)
        assert until(lambda: "-> escalated" in (tmp_path / "daemon.log").read_text(), 40), (tmp_path / "daemon.log").read_text()
        assert until(lambda: (tmp_path / "daemon.log").read_text().count("opened") == 2, 20)
        ended(daemon)
    finally:
        daemon.kill()
        daemon.wait()
    assert tree(tmp_path / "runs") == before
    assert tree(home) == at_home


def test_a_run_that_had_failed_before_the_start_is_taken_through_the_loop(
    tmp_path: Path, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly the healers start: the readers tell them of it once only."""
    world = World(tmp_path).build({"a1": (MEMORY_ERROR, "200")})
    real = Healer.start

    def slowly(self: Healer, threads: int) -> None:
        time.sleep(1)
        real(self, threads)

    monkeypatch.setattr(Healer, "start", slowly)
    (tmp_path / "config.toml").write_text(CONFIG.format(healers=1))
    store = Store(tmp_path / "state", time.time)
    daemon = Daemon(
        store, load_config(tmp_path / "config.toml"), load_policy(), matcher, named=[str(world.run)], condor=object(), alone=True
    )  # fmt: skip
    daemon.start()
    try:
        assert until(lambda: daemon.healer.steps > 0, 20)
    finally:
        daemon.stop()
        daemon.shut_down()
        store.close()


def test_it_ends_in_time_while_the_state_is_locked(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "run", 10)
    daemon = start_daemon(tmp_path / "state", tmp_path, [flow.folder])
    blocker = None
    try:
        assert ready(tmp_path)
        blocker = sqlite3.connect(tmp_path / "state" / "doctor.db", timeout=10)
        blocker.execute("BEGIN IMMEDIATE")
        for number in range(10):
            flow.job(number, fails=True)
        time.sleep(1)  # the writer waits for the lock, ten seconds at a time
        ended(daemon)
    finally:
        if blocker is not None:
            blocker.rollback()
            blocker.close()
        daemon.kill()
        daemon.wait()
    again = start_daemon(tmp_path / "state", tmp_path, [flow.folder])
    store = Store(tmp_path / "state", time.time)
    try:
        assert until(lambda: set(store.seen(run_key(str(flow.folder)))) == flow.failed, 30), "and nothing was lost"
    finally:
        store.close()
        again.kill()
        again.wait()


def test_it_ends_in_time_while_its_main_thread_hangs() -> None:
    """A handler written in Python has to wait for the main thread; a file system that does not answer holds that for ever."""
    code = (
        "import signal, sqlite3\n"
        "from doctor.watch import system\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "system.end_within(0.5, signal.SIGTERM)\n"
        "print('hangs', flush=True)\n"
        "sqlite3.connect(':memory:').execute('with recursive c(x) as (select 1 union all select x + 1 from c) select max(x) from c')"
    )
    hangs = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert hangs.stdout is not None
    assert hangs.stdout.readline() == b"hangs\n"
    time.sleep(0.3)
    assert hangs.poll() is None
    hangs.send_signal(signal.SIGTERM)
    assert hangs.wait(10) == 0


# -- the files that say how -------------------------------------------------------------------------------------


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "doctor", *words], capture_output=True, text=True, cwd=ROOT, check=False)


WRONG = {
    "unknown key": ("[polling]\nbogus = 1\n", ":2: polling.bogus: unknown key"),
    "unknown table": ("[nope]\na = 1\n", ":1: nope: unknown key"),
    "wrong type": ('[limits]\nreaders = "two"\n', ":2: limits.readers: must be an integer"),
    "out of range": ("[limits]\n\nhealers = 99\n", ":3: limits.healers: must be less than or equal to 32"),
    "no table": ("polling = 3\n", ":1: polling: must be a table"),
    "no list": ("[notify]\nurls = 3\n", ":2: notify.urls: must be a list"),
    "one of": ('[log]\nlevel = "loud"\n', ":2: log.level: must be 'debug', 'info', 'warning' or 'error'"),
    "template": ('[notify]\ntitle = "{run.secret}"\n', ":2: notify.title: not a template"),
    "template field": ('[notify]\nbody = "{nothing}"\n', ":2: notify.body: not a template"),
    "template brace": ('[notify]\nbody = "{"\n', ":2: notify.body: not a template"),
    "syntax": ("a = = 3\n", ":1: not valid TOML"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, what: str) -> None:
    file = tmp_path / "config.toml"
    text, expected = WRONG[what]
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_config(file)
    assert str(caught.value).startswith(f"{file}{expected}")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe[")
    (tmp_path / "wrong").write_text('[limits]\nreaders = "two"\n[notify]\nurls = ["json://u:geheim@h"]\n')
    for name, said in (("missing", "No such file"), ("binary", "not UTF-8"), (".", "Is a directory"), ("wrong", "must be an integer")):
        for words in (("config", "check"), ("config", "show", "--config"), ("watch", "--config"), ("watch", "--policy")):
            if (words[-1], name) == ("--policy", "wrong"):
                said = "unknown key"
            done = cli(*words, str(tmp_path / name))
            assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, (words, name, done)
            assert "geheim" not in done.stderr + done.stdout


def test_what_is_shown_can_be_used_again(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('llm = "off"\n[limits]\nnice = 3\n[notify]\ntitle = "Störung \\"{label}\\" 🚑"\nevents = ["new"]\n')
    shown = cli("config", "show", "--config", str(file))
    assert shown.returncode == 0 and shown.stdout.startswith(f"# {file}\n")
    lines = shown.stdout.splitlines()
    assert "nice = 3  # not the default" in lines and 'llm = "off"  # not the default' in lines and "readers = 2" in lines
    (tmp_path / "again.toml").write_text(shown.stdout)
    assert load_config(tmp_path / "again.toml") == load_config(file)
    whole = cli("config", "show")
    (tmp_path / "whole.toml").write_text(whole.stdout)
    assert "not the default" not in whole.stdout and load_config(tmp_path / "whole.toml") == load_config()
    data = json.loads(cli("config", "show", "--json", "--config", str(file)).stdout)
    assert data["schema"] == 1 and data["file"] == str(file) and data["config"]["limits"]["nice"] == 3


def test_ones_own_files_are_found_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --config and --policy the user's own files count, also those that are put there while the daemon runs."""
    own = tmp_path / "config" / "pegasus-doctor"
    own.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert in_force(None, "policy.toml") is None
    flow = Flow(tmp_path / "run", 2)
    (own / "config.toml").write_text(CONFIG.format(healers=0))
    words = [sys.executable, "-m", "doctor", "watch", "--only", "--state", str(tmp_path / "state"), str(flow.folder)]
    env = {**os.environ, "CONDOR_CONFIG": "/dev/null"}
    daemon = subprocess.Popen(words, cwd=ROOT, stderr=(tmp_path / "daemon.log").open("ab"), env=env)

    def found() -> dict[str, object]:
        text = cli("status", "--json", "--state", str(tmp_path / "state")).stdout
        facts = json.loads(text) if text else {"sources": [], "daemon": {}}
        return {**{one["name"]: one for one in facts["sources"]}, "mode": facts["daemon"].get("mode")}

    try:
        assert ready(tmp_path)
        assert until(lambda: found()["mode"] == "ask", 15)
        (own / "policy.toml").write_text('mode = "observe"\n')
        (own / "config.toml").write_text(CONFIG.format(healers=0).replace("nice = 0", "nice = 5") + f'[log]\nfile = "{tmp_path}/own.log"\n')
        daemon.send_signal(signal.SIGHUP)
        assert until(lambda: found()["mode"] == "observe", 15)
        assert found()["config"]["text"] == "read again; from the next start on: limits.nice"  # type: ignore[index]
        assert "read again" in (tmp_path / "own.log").read_text() and (tmp_path / "own.log").stat().st_mode & 0o777 == 0o600
        (own / "policy.toml").write_text('mode = "everything"\n')
        daemon.send_signal(signal.SIGHUP)
        assert until(lambda: not found()["config"]["ok"], 15)  # type: ignore[index]
        assert found()["mode"] == "observe" and "policy.toml:1: mode" in found()["config"]["text"]  # type: ignore[index]
        (own / "policy.toml").unlink()
        (own / "config.toml").write_text(CONFIG.format(healers=0) + '[log]\nfile = "/nonexistent/x.log"\n')
        daemon.send_signal(signal.SIGHUP)
        assert until(lambda: "log.file cannot be written" in str(found()["config"]), 15)
        assert found()["mode"] == "observe", "either both are taken over or none"
        ended(daemon)
    finally:
        daemon.kill()
        daemon.wait()
