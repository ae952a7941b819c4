"""``status`` and ``top`` of a real daemon, in real terminals: tmux where it is installed, a pseudo-terminal everywhere."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from doctor.report.watching import screen
from tests.watch.flows import ROOT, Flow, start_daemon, until

_DEEP = "somebody/pegasus/a-workflow-with-a-rather-long-name"
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;)")


class Scene:
    """A daemon on ten runs, two of which have failed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.flows = [Flow(folder / _DEEP / f"run{number:04d}", 6) for number in range(10)]
        for flow in self.flows[3:5]:
            flow.job(0, fails=True)
        self.flows[7].job(1, fails=False)
        self.daemon = start_daemon(self.state, folder, [flow.folder for flow in self.flows])
        assert until(lambda: self.found()["runs"] and sum(run["open"] for run in self.found()["runs"]) == 2, 30)

    def found(self) -> dict[str, Any]:
        done = command("status", "--json", "--state", str(self.state))
        return json.loads(done.stdout) if done.stdout else {"runs": []}

    def stop(self) -> None:
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            assert self.daemon.wait(10) == 0


def command(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "doctor", *words], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environ}, check=False
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("seeing"))
    yield made
    made.stop()


def words_of(line: str) -> list[str]:
    return line.split()


# -- status -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_status_fits_and_trouble_comes_first(scene: Scene, width: int) -> None:
    done = command("status", "--state", str(scene.state), COLUMNS=str(width))
    assert done.returncode == 0 and "\x1b" not in done.stdout
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("watching 10 runs, mode ask")
    assert any(line.startswith("queue: (never answered)") for line in lines), "a source that fails says so and since when"
    at = next(number for number, line in enumerate(lines) if line.startswith("run "))
    runs = lines[at + 1 : at + 11]
    assert {re.search(r"run\d{4}", line)[0] for line in runs[:2]} == {"run0003", "run0004"}, "the end of a long path is what is kept"  # type: ignore[index]
    assert len({re.search(r"run\d{4}", line)[0] for line in runs}) == 10  # type: ignore[index]
    incidents = [line for line in lines if "package-m" in line]
    assert len(incidents) == 2 and all(words_of(line)[1] == "open" for line in incidents)


def test_status_for_programs(scene: Scene) -> None:
    found = scene.found()
    assert found["schema"] == 1 and found["running"] and found["pid"] == scene.daemon.pid == found["daemon"]["pid"]
    assert found["last_sign_s"] < 30
    run = next(run for run in found["runs"] if run["run"].endswith("run0003"))
    assert run["open"] == 1 and run["jobs"]["failed"] == 1 and run["label"] == "demo"
    (incident,) = run["incidents"]
    assert set(incident) >= {"id", "category", "cause", "state", "summary", "jobs", "updated"}
    assert (incident["category"], incident["cause"], incident["jobs"]) == ("dependency", "python-package-missing", 1)
    queue = next(one for one in found["sources"] if one["name"] == "queue")
    assert queue["ok"] is False and queue["age_s"] is None and queue["text"]
    writer = next(one for one in found["sources"] if one["name"] == "writer")
    assert writer["ok"] and writer["age_s"] < 60


def test_status_without_a_daemon(tmp_path: Path) -> None:
    never = command("status", "--state", str(tmp_path / "never"))
    assert never.returncode == 1 and "no daemon has run yet" in never.stdout and not (tmp_path / "never").exists()
    flow = Flow(tmp_path / "run", 2)
    daemon = start_daemon(tmp_path / "state", tmp_path, [flow.folder])
    try:
        flow.job(0, fails=True)
        assert until(lambda: "opened" in (tmp_path / "daemon.log").read_text(), 30)
        assert until(lambda: command("status", "--state", str(tmp_path / "state")).stdout.count("package-m"), 15)
    finally:
        daemon.kill()
        daemon.wait()
    lock = tmp_path / "state" / "locks" / "watch.lock"
    assert lock.read_text().split() == ["pid", str(daemon.pid)], "it could not clean up behind itself"
    killed = command("status", "--state", str(tmp_path / "state"))
    assert killed.returncode == 1 and "no daemon is running; as the last one left it" in killed.stdout and "package-m" in killed.stdout
    (tmp_path / "state" / "doctor.db").write_bytes(os.urandom(20_000))
    for suffix in ("-wal", "-shm"):
        (tmp_path / "state" / f"doctor.db{suffix}").unlink(missing_ok=True)
    for words in (("status",), ("status", "--json"), ("top", "--once")):
        broken = command(*words, "--state", str(tmp_path / "state"))
        assert broken.returncode == 2 and "damaged" in broken.stderr and "Traceback" not in broken.stderr and not broken.stdout


def test_many_runs_and_incidents_stay_on_one_screen() -> None:
    def run(number: int, opened: int) -> dict[str, Any]:
        incident = {"category": "resources", "cause": "memory-exceeded", "state": "open", "summary": "s", "jobs": 3, "updated": time.time()}
        return {
            "run": f"/very/{'long/' * 40}run{number:04d}", "label": "x" * 30, "state": "running", "jobs": {"total": 10**6}, "problem": "",
            "moved": time.time() - number, "open": opened, "incidents": [{"id": f"{number:010d}", **incident} for _ in range(opened)],
        }  # fmt: skip

    facts = {
        "running": True, "pid": 1, "state_dir": "/s", "last_sign_s": 400.0, "daemon": {}, "sources": [],
        "runs": [run(number, int(number >= 400)) for number in range(500)],
    }  # fmt: skip
    for width, height in ((80, 24), (40, 12), (200, 50), (20, 8), (80, 45)):
        console = Console(width=width, file=io.StringIO())
        console.print(screen(facts, width, height))
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert len(lines) <= height and max(map(len, lines)) <= width
        assert lines[0].startswith("no sign of life"[: width - 1])
        assert sum(line.startswith("... and ") for line in lines) == 2, "of the runs and of the incidents"
        first = next(number for number, line in enumerate(lines) if line.startswith("run "))
        assert re.search("run04", lines[first + 1]), "runs with trouble first"


def test_a_terminal_that_is_not_utf_8(scene: Scene) -> None:
    for encoding in ("latin-1", "ascii"):
        done = command("status", "--state", str(scene.state), COLUMNS="60", PYTHONIOENCODING=encoding)
        assert done.returncode == 0 and "?" in done.stdout and "run0003" in done.stdout and not done.stderr


# -- top: a pseudo-terminal ----------------------------------------------------------------------------------


class Terminal:
    """A program in a pseudo-terminal, of which it is the session's leader."""

    def __init__(self, words: list[str], columns: int, rows: int, **environ: str) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.slave)
        env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}

        def lead() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            words, stdin=self.slave, stdout=self.slave, stderr=self.slave, cwd=ROOT, preexec_fn=lead,
            env={**env, "TERM": "xterm-256color", **environ},
        )  # fmt: skip
        self.text = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds: float = 0.1) -> str:
        while select.select([self.master], [], [], seconds)[0]:
            try:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                break
            seconds = 0.02
        return self.text

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def end(self) -> int:
        code = self.process.wait(10)
        self.read()
        return code

    @property
    def sane(self) -> bool:
        """The line settings as before, the cursor visible, the ordinary screen shown."""
        shown = self.text.rfind("\x1b[?1049l") > self.text.rfind("\x1b[?1049h") and self.text.rfind("\x1b[?25h") > self.text.rfind(
            "\x1b[?25l"
        )
        return termios.tcgetattr(self.slave) == self.before and shown


@contextmanager
def terminal(scene: Scene, columns: int = 80, rows: int = 24, **environ: str) -> Iterator[Terminal]:
    words = [sys.executable, "-m", "doctor", "top", "--every", "30", "--state", str(scene.state)]
    made = Terminal(words, columns, rows, **environ)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()
        os.close(made.master)
        os.close(made.slave)


@pytest.mark.parametrize("how", ["q", "Ctrl-C", "SIGTERM", "SIGHUP", "Ctrl-D"])
def test_top_leaves_the_terminal_as_it_was(scene: Scene, how: str) -> None:
    with terminal(scene) as seen:
        assert until(lambda: "python-package-missing" in seen.read(), 20), seen.text
        assert "\x1b[?1049h" in seen.text and not termios.tcgetattr(seen.slave)[3] & termios.ECHO, "it does own the terminal"
        if how in ("q", "Ctrl-C", "Ctrl-D"):
            seen.type({"q": "q", "Ctrl-C": "\x03", "Ctrl-D": "\x04"}[how])
        else:
            seen.process.send_signal(getattr(signal, how))
        code = seen.end()
        assert code == {"SIGTERM": 143, "SIGHUP": 129}.get(how, 0)
        assert seen.sane, seen.text[-300:]
        assert "Traceback" not in seen.text


def test_top_follows_the_size_at_once(scene: Scene) -> None:
    with terminal(scene) as seen:  # it looks by itself every 30 s only
        assert until(lambda: "dependency" not in seen.read() and "python-package-missing" in seen.text, 20)
        seen.resize(150, 40)
        assert until(lambda: "dependency/python-package-missing" in seen.read(), 10), "at 150 columns there is room for the category"
        seen.type("q")
        assert seen.end() == 0


def test_top_can_be_put_aside(scene: Scene) -> None:
    """Ctrl-Z gives the terminal back, and fg takes it again."""
    with terminal(scene) as seen:
        assert until(lambda: "python-package-missing" in seen.read(), 20)
        seen.type("\x1a")
        assert until(lambda: Path(f"/proc/{seen.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", 10)
        seen.read()
        assert seen.sane
        seen.process.send_signal(signal.SIGCONT)
        assert until(lambda: seen.read().rfind("\x1b[?1049h") > seen.text.rfind("\x1b[?1049l"), 10)
        seen.type("q")
        assert seen.end() == 0 and seen.sane


def test_top_without_colour_and_without_a_terminal(scene: Scene) -> None:
    for environ, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with terminal(scene, **environ) as seen:
            assert until(lambda seen=seen: "python-package-missing" in seen.read(), 20)
            seen.type("q")
            assert seen.end() == 0
            assert bool(_COLOUR.search(seen.text)) is coloured
    with terminal(scene, TERM="dumb") as seen:
        assert seen.end() == 0, "shown once"
        assert "python-package-missing" in seen.text and "\x1b" not in seen.text
    piped = command("top", "--state", str(scene.state))
    assert piped.returncode == 0 and "python-package-missing" in piped.stdout and "\x1b" not in piped.stdout


# -- top: tmux ------------------------------------------------------------------------------------------------


class Tmux:
    """A tmux server of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._socket = str(folder / "tmux")

    def __call__(self, *words: str) -> str:
        env = {name: value for name, value in os.environ.items() if name not in ("TMUX", "NO_COLOR", "COLUMNS", "LINES")}
        done = subprocess.run(["tmux", "-S", self._socket, "-f", "/dev/null", *words], capture_output=True, text=True, env=env, check=False)
        return done.stdout

    def keys(self, *keys: str) -> None:
        self("send-keys", *keys)

    def lines(self) -> list[str]:
        return self("capture-pane", "-p").splitlines()


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed (package tmux)")
    made = Tmux(tmp_path)
    made("new-session", "-d", "-x", "80", "-y", "24", "env PS1='> ' sh -i")
    yield made
    made("kill-server")


def test_top_in_tmux(scene: Scene, tmux: Tmux) -> None:
    assert until(lambda: tmux.lines()[:1] == [">"], 10)
    tmux.keys(f"cd {ROOT}; clear; {sys.executable} -m doctor top --every 0.5 --state {scene.state}", "Enter")
    assert until(lambda: tmux.lines()[0].startswith("watching 10 runs"), 20), tmux.lines()
    first = tmux.lines()
    assert len(first) <= 24 and sum("python-package-missing" in line for line in first) == 2
    scene.flows[8].job(2, fails=True)
    assert until(lambda: sum("python-package-missing" in line for line in tmux.lines()) == 3, 20), "what fails now appears by itself"
    assert until(lambda: any(re.search(r"run0008.* 1 ", line) for line in tmux.lines()), 20), "and its run moves up"
    for columns, rows in ((40, 12), (200, 50), (80, 24)):
        tmux("resize-window", "-x", str(columns), "-y", str(rows))

        def drawn(columns: int = columns, rows: int = rows) -> bool:
            lines = tmux.lines()
            right = ("dependency/python" in "".join(lines)) == (columns == 200) and lines[0].startswith("watching")
            return right and len(lines) <= rows and max(map(len, lines)) <= columns and any(line.startswith("run ") for line in lines)

        assert until(drawn, 10), tmux.lines()
    tmux.keys("q")
    assert until(lambda: not any("python-package-missing" in line for line in tmux.lines()), 10)
    tmux.keys("stty -a | tr ' ' '\\n' | grep -x -e echo -e icanon | sort | tr '\\n' .", "Enter")
    assert until(lambda: any("echo.icanon." in line for line in tmux.lines()), 10), tmux.lines()
