"""Notifications: real apprise from a real daemon to servers on this host, and what may go wrong with them."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from doctor.cli import main
from doctor.diagnose.matcher import Matcher
from doctor.loop import wiring
from doctor.loop.policy import load_policy
from doctor.loop.seams import Seams
from doctor.store import Store
from doctor.watch.config import Notify, load_config
from doctor.watch.daemon import Daemon
from doctor.watch.message import event_of, masked, message, targets, through_apprise
from doctor.watch.notify import Notifier
from tests.loop.world import MEMORY_ERROR, FakeQueue, FakeRun, World
from tests.watch.flows import CONFIG, ROOT, Flow, start_daemon, until
from tests.watch.receivers import Hook, hook, mail

pytest.importorskip("apprise")
SECRETS = ("geheim-password", "geheim-token", "0123geheim4567")


@contextmanager
def daemon(folder: Path, runs: list[Path], urls: list[str], more: str = "", healers: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """In mode observe: what a repair would be for is handed to a person."""
    log, policy = folder / "daemon.log", folder / "policy.toml"
    policy.write_text('mode = "observe"\n')
    before = log.read_text().count("watching") if log.exists() else 0
    process = start_daemon(folder / "state", folder, runs, healers=healers, extra=f"[notify]\nurls = {urls}\n{more}", policy=policy)
    try:
        assert until(lambda: log.read_text().count("watching") > before, 30), log.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            assert process.wait(10) == 0
            assert time.monotonic() - begun < 5


def cli(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "doctor", *words], capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout + done.stderr


def test_every_kind_of_target_is_told_once_of_every_event(tmp_path: Path) -> None:
    flow, lost = Flow(tmp_path / "run0001", 4), World(tmp_path / "other").build({"a1": (MEMORY_ERROR, "200")})
    with hook() as web, mail() as post:
        urls = [
            f"json://sci:{SECRETS[0]}@127.0.0.1:{web.port}/json?+X-Token={SECRETS[1]}",
            f"form://127.0.0.1:{web.port}/form",
            f"mmost://doctor@127.0.0.1:{web.port}/{SECRETS[2]}",  # the form of Slack's own hooks
            f"mailto://127.0.0.1:{post.port}?from=doctor@example.org&to=sci@example.org&mode=insecure",
        ]
        body = 'body = "{summary}|{cause}|{run}|{incident}|{reason}"\n'
        with daemon(tmp_path, [flow.folder, lost.run], urls, body, healers=1):
            kinds = ("/json", "/form", "/hooks")
            flow.job(0, fails=True)  # while the run goes on: new
            assert until(lambda: all(len(web.texts(kind)) >= 3 for kind in kinds) and len(post.got) >= 3, 40), (web.got, post.got)
            flow.job(0, fails=False)  # its retry: recovered
            assert until(lambda: all(len(web.texts(kind)) >= 4 for kind in kinds) and len(post.got) >= 4, 40), (web.got, post.got)
            time.sleep(1.5)
            shown = cli("status", "--json", "--state", str(tmp_path / "state"))
            assert '"notifier"' in shown
            shown += cli("config", "show", "--config", str(tmp_path / "config.toml"))
            shown += cli("config", "show", "--json", "--config", str(tmp_path / "config.toml"))
    shown += (tmp_path / "daemon.log").read_text()
    assert "json://..." in shown and not any(secret in shown for secret in SECRETS)
    for texts in (*(web.texts(kind) for kind in kinds), ["|".join(one) for one in post.got]):
        assert len(texts) == 4, texts
        (new,) = [text for text in texts if "] new: demo" in text and "package_0" in text]
        assert "dependency/python-package-missing" in new and str(flow.folder) in new
        (recovered,) = [text for text in texts if "] recovered: demo" in text]
        assert "a later attempt of its jobs succeeded" in recovered
        (escalated,) = [text for text in texts if "] escalated: demo" in text]
        assert "resources/memory-exhausted" in escalated and "raise-memory" in escalated and str(lost.run) in escalated
    assert {authorization[:6] for path, authorization, _ in web.got if path == "/json"} == {"Basic "}, "the password did reach its server"


def test_nothing_is_lost_or_sent_twice_over_a_restart(tmp_path: Path) -> None:
    flows = [Flow(tmp_path / f"run{number}", 3) for number in range(3)]
    runs = [flow.folder for flow in flows]
    with hook() as web:
        urls = [f"json://127.0.0.1:{web.port}/"]
        with daemon(tmp_path, runs, urls) as process:
            flows[0].job(0, fails=True)
            assert until(lambda: len(web.got) == 1, 20)
            web.mode = "error"
            flows[1].job(0, fails=True)
            assert until(lambda: web.refused >= 1, 20)
            assert "status" not in (tmp_path / "daemon.log").read_text()
            process.kill()
            process.wait()
        web.mode = "ok"
        with daemon(tmp_path, runs, urls):
            assert until(lambda: len(web.got) == 2, 20), "what was refused before the kill"
            web.mode = "hang"
            flows[2].job(0, fails=True)
            assert until(lambda: web.hanging >= 1, 20)
        web.mode = "ok"
        with daemon(tmp_path, runs, urls):
            assert until(lambda: len(web.got) == 3, 20), "what was on its way at the end"
            time.sleep(1)
    places = [str(folder) for text in web.texts() for folder in runs if f"{folder}\n" in text]
    assert places == [str(folder) for folder in runs], "each once, in order"


def test_a_server_that_never_answers_blocks_nothing(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "run", 8)
    other = Flow(tmp_path / "other", 8)
    with hook() as deaf, hook() as good:
        deaf.mode = "hang"
        urls = [f"json://127.0.0.1:{deaf.port}/?rto=30", f"json://127.0.0.1:{good.port}/"]
        with daemon(tmp_path, [flow.folder, other.folder], urls):
            flow.job(0, fails=True)
            assert until(lambda: deaf.hanging == 1 and len(good.got) == 1, 20), "the other target has its own thread"
            other.job(1, fails=True)
            store = Store(tmp_path / "state", time.time)
            try:
                assert until(lambda: len(store.incidents()) == 2, 10), "diagnosis goes on"
            finally:
                store.close()
            assert until(lambda: len(good.got) == 2, 20)
            assert deaf.hanging == 1, "one message at a time"
        # the context manager asserts that SIGTERM ended it within five seconds


def test_more_than_the_hour_allows_is_summed_up(tmp_path: Path) -> None:
    flows = [Flow(tmp_path / f"run{number}", 2) for number in range(12)]
    with hook() as web, daemon(tmp_path, [flow.folder for flow in flows], [f"json://127.0.0.1:{web.port}/"], "per_hour = 3\n"):
        for flow in flows:
            flow.job(0, fails=True)
        assert until(lambda: len(web.got) == 3, 30), web.got
        time.sleep(2.5)  # more rounds of news
        assert len(web.got) == 3
    last = web.texts()[-1]
    assert "10 more events" in last and last.count("] new: demo") == 10


def test_a_failing_target_is_shown_and_costs_nothing_else(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "run", 3)
    with hook() as web:
        web.mode = "error"
        urls = [f"json://u:{SECRETS[0]}@127.0.0.1:{web.port}/", f"nonsense://{SECRETS[1]}@here"]
        with daemon(tmp_path, [flow.folder], urls):
            flow.job(0, fails=True)
            assert until(lambda: web.refused >= 1, 20)
            shown: list[str] = []

            def failing() -> bool:
                shown.append(cli("status", "--json", "--state", str(tmp_path / "state")))
                return "json (URL 1): not accepted" in shown[-1] and "nonsense (URL 2): not a URL" in shown[-1]

            assert until(failing, 20), shown[-1]
            check = cli("config", "check", str(tmp_path / "config.toml"))
            assert "URL 2 is none that apprise knows" in check
    assert not any(secret in shown[-1] + check + (tmp_path / "daemon.log").read_text() for secret in SECRETS)


def test_a_question_and_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matcher: Matcher) -> None:
    """The loop proposes a repair and waits, a person approves, the rescue helps: new, waiting, recovered."""
    world = World(tmp_path).build({"a1": (MEMORY_ERROR, "200")})
    whole = wiring.assemble

    def assemble(store: Store, *words: Any, **names: Any) -> Seams:
        seams, fake = whole(store, *words, **names), world.seams(store=store)
        return dataclasses.replace(seams, queue=FakeQueue(tmp_path), processes=FakeRun(world), host=fake.host, maps=fake.maps)

    monkeypatch.setattr(wiring, "assemble", assemble)
    policy = tmp_path / "ask.toml"
    policy.write_text('mode = "ask"\n[rescue]\nback_off_s = 0\n[verify]\npoll_s = 0.01\n')
    with hook() as web:
        (tmp_path / "config.toml").write_text(CONFIG.format(healers=1) + f'[notify]\nurls = ["json://127.0.0.1:{web.port}/"]\n')
        store = Store(tmp_path / "state", time.time)
        daemon = Daemon(
            store, load_config(tmp_path / "config.toml"), load_policy(policy), matcher, named=[str(world.run)], condor=object(), alone=True
        )
        daemon.start()
        keeper = threading.Thread(target=daemon._keep_time, daemon=True)
        keeper.start()
        try:
            assert until(lambda: any("] waiting" in text for text in web.texts()), 40), web.got
            (row,) = store.incidents()
            answered = CliRunner().invoke(main, ["approve", row.id, "--state", str(tmp_path / "state")])
            assert answered.exit_code == 0
            assert until(lambda: any("] recovered" in text for text in web.texts()), 60), (web.got, store.history(row.run))
        finally:
            daemon.stop()
            keeper.join(5)
            daemon.shut_down()
            store.close()
    events = [text.partition("]")[2].partition(":")[0].strip() for text in web.texts()]
    assert events == ["new", "waiting", "recovered"]


# -- the parts ------------------------------------------------------------------------------------------


class Memory:
    """A history without a database."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.cursors: dict[str, int] = {"notified": 0}

    def add(self, event: str = "opened", text: str = "broken", **more: Any) -> None:
        row = {"id": len(self.rows) + 1, "event": event, "text": text, "time": time.time(), "incident": f"i{len(self.rows)}"}
        self.rows.append({**row, "run": "r", "submit_dir": "/r", "label": "demo", "cause": "a/b", "summary": "s", **more})

    def history_after(self, after: int, limit: int = 200) -> list[dict[str, Any]]:
        return self.rows[after : after + limit]

    def cursor(self, name: str) -> int | None:
        return self.cursors.get(name)

    def last_history(self) -> int:
        return len(self.rows)


def settings(**changes: Any) -> Notify:
    return load_config().notify.model_copy(update=changes)


@contextmanager
def notifier(memory: Memory, wanted: Notify, send: Callable[[str, str, str], None]) -> Iterator[Notifier]:
    made = Notifier(wanted, memory, memory.cursors.__setitem__, send)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_a_target_that_is_new_is_told_nothing_of_before_and_one_that_stays_keeps_its_place() -> None:
    memory, sent = Memory(), []
    memory.add()
    memory.cursors["notified"] = 1
    with notifier(memory, settings(urls=["json://one"]), lambda url, title, body: sent.append((url, title))) as made:
        memory.add()
        made.wake()
        assert until(lambda: len(sent) == 1, 5)
        memory.cursors["notified"] = 2
        made.configure(settings(urls=["json://one", "json://two"]))
        memory.add()
        made.wake()
        assert until(lambda: len(sent) == 3, 5)
        made.configure(settings(urls=["json://two"]))
        memory.add()
        made.wake()
        assert until(lambda: len(sent) == 4, 5)
        time.sleep(0.2)
    assert [url for url, _ in sent].count("json://one") == 2 and len(sent) == 4 and made.sent == 4
    assert set(memory.cursors.values()) >= {4}, "where the target that is left has got to"


def test_old_news_is_no_news_and_a_dead_target_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, tries = Memory(), []

    def refuse(url: str, title: str, body: str) -> None:
        tries.append(title)
        raise ConnectionError(f"no route to {url}")

    monkeypatch.setattr("doctor.watch.notify._PAUSE_S", 0.01)
    monkeypatch.setattr("doctor.watch.notify._LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr("doctor.watch.notify._GIVE_UP_S", 0.3)
    memory.add(time=time.time() - 10 * 86_400, label="old")
    memory.add(label="young")
    with notifier(memory, settings(urls=["json://u:secret@one"]), refuse) as made:
        assert until(lambda: made.failed == 1, 10)
        assert 3 <= len(tries) <= 40 and all("young" in title for title in tries)
        assert made.problem == "json (URL 1): ConnectionError", "an error's text may hold the URL"
    assert max(memory.cursors.values()) == 2


def test_what_comes_back_is_new_and_other_moves_are_not_told() -> None:
    events = {
        "opened": ("opened", "x"),
        "back": ("state", "recovered -> open: the same failure again"),
        "plan": ("state", "open -> planned"),
    }
    found = {name: event_of({"event": event, "text": text}) for name, (event, text) in events.items()}
    assert found == {"opened": "new", "back": "new", "plan": ""}
    assert event_of({"event": "state", "text": "planned -> waiting: risk: costly -> ask"}) == "waiting"


def test_what_a_log_says_cannot_shape_the_message() -> None:
    row = {
        "event": "opened", "text": "t", "label": "a\nBcc: x@y\r\n@everyone", "summary": "<!channel> \x1b[31m <b>bold</b> @here",
        "cause": "c", "submit_dir": "/r", "incident": "i",
    }  # fmt: skip
    title, body = message(settings(title="{label} " * 50, body="{summary} " * 500), row)
    assert "\n" not in title and "\r" not in title and len(title) <= 200 and len(body) <= 4000
    assert "@everyone" not in title and "<!channel>" not in body and "@here" not in body and "\x1b" not in body


def test_mark_up_of_a_log_is_no_mark_up_of_a_mail() -> None:
    with mail() as post:
        through_apprise(f"mailto://127.0.0.1:{post.port}?from=a@example.org&to=b@example.org&mode=insecure", "t", "a <img src=x> b")
    assert len(post.got) == 1 and "<img" not in post.got[0][1].replace("a <img src=x> b", "", 1)


def test_urls_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "notify"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    wanted = settings(urls=["json://a"], urls_file="$CREDENTIALS_DIRECTORY/notify")
    found, problem = targets(wanted)
    assert found == ["json://a"] and "No such file" in problem
    file.write_text("# comment\n\njson://b\njson://a\n")
    assert targets(wanted) == (["json://a", "json://b"], "")
    file.write_bytes(b"\xff\xfe")
    assert targets(wanted) == (["json://a"], f"notify.urls_file: {file}: not UTF-8 text")
    assert masked("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ") == "slack://..." and masked("no url") == "unknown://..."


def test_hook_is_a_fair_witness() -> None:
    """The receiver itself: it refuses and hangs when told to, so that the tests above can fail."""
    with hook() as web:
        through_apprise(f"json://127.0.0.1:{web.port}/", "t", "b")
        web.mode = "error"
        with pytest.raises(RuntimeError, match="not accepted"):
            through_apprise(f"json://127.0.0.1:{web.port}/", "t", "b")
        assert (len(web.got), web.refused) == (1, 1)
    assert isinstance(web, Hook)
