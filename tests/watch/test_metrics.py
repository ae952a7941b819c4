"""Prometheus metrics of a real daemon: over HTTP, read with Prometheus' own parser."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.watch.flows import CONFIG, ROOT, Flow, start_daemon, until

parser = pytest.importorskip("prometheus_client.parser")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def scrape(port: int) -> Samples:
    """Every sample by name and labels; empty when nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except (OSError, urllib.error.URLError):
        return {}
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"pegasus_doctor_{name}", tuple(sorted(labels.items()))))


def settings(port: int, enabled: bool = True) -> str:
    return f"[metrics]\nenabled = {str(enabled).lower()}\nport = {port}\n"


def sources(state: Path) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "doctor", "status", "--json", "--state", str(state)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return {one["name"]: one for one in json.loads(done.stdout)["sources"]}


@contextmanager
def daemon(folder: Path, flows: list[Flow], extra: str = "") -> Iterator[subprocess.Popen[bytes]]:
    process = start_daemon(folder / "state", folder, [flow.folder for flow in flows], extra=extra)
    try:
        assert until(lambda: "watching" in (folder / "daemon.log").read_text(), 30), (folder / "daemon.log").read_text()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def listening(process: subprocess.Popen[bytes]) -> set[tuple[str, int]]:
    return {tuple(one.laddr) for one in psutil.Process(process.pid).net_connections("inet") if one.status == psutil.CONN_LISTEN}


def test_the_numbers_are_right(tmp_path: Path) -> None:
    port = free_port()
    flows = [Flow(tmp_path / f"run{number}", 6) for number in range(2)]
    with daemon(tmp_path, flows, settings(port)) as process:
        assert listening(process) == {("127.0.0.1", port)}, "on the loopback address alone"
        assert until(lambda: value(scrape(port), "runs") == 2, 10)
        for number in (0, 1, 2):
            flows[0].job(number, fails=True)
        flows[1].job(3, fails=True)
        flows[1].job(4, fails=False)
        open_ = {"state": "open", "category": "dependency"}
        assert until(lambda: value(scrape(port), "incidents", **open_) == 2, 10), "one of each run"
        assert until(lambda: value(scrape(port), "lines_total") == 2 * 2 + 5 * 6, 10), "two lines of each run and six of each job"
        flows[1].job(3, fails=False)  # a retry succeeds
        assert until(lambda: value(scrape(port), "incidents", state="recovered", category="dependency") == 1, 10)
        assert until(lambda: value(scrape(port), "source_ok", source="writer") == 1, 10)
        assert until(lambda: value(scrape(port), "source_ok", source="queue") == 0, 10), "there is no schedd"
        samples = scrape(port)
        assert value(samples, "incidents", **open_) == 1 and value(samples, "incidents", state="escalated", category="dependency") == 0
        assert value(samples, "diagnoses_total") == 4
        assert value(samples, "source_ok", source="writer") == 1
        assert (
            value(samples, "source_ok", source="queue") == 0 and value(samples, "source_last_good_timestamp_seconds", source="queue") == 0
        )
        assert value(samples, "writing_paused") == 0 and value(samples, "backlog") is not None
        assert any(name == "pegasus_doctor_info" and ("mode", "ask") in labels for name, labels in samples)


def test_off_by_default(tmp_path: Path) -> None:
    with daemon(tmp_path, [Flow(tmp_path / "run", 2)]) as process:
        assert listening(process) == set()


def test_a_port_that_is_taken_costs_the_metrics_alone_and_a_reload_moves_them(tmp_path: Path) -> None:
    flow, config = Flow(tmp_path / "run", 3), tmp_path / "config.toml"
    first, second = free_port(), free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", first))
        holder.listen()
        with daemon(tmp_path, [flow], settings(first)) as process:
            state = tmp_path / "state"
            assert until(lambda: "metrics" in sources(state), 15)
            shown = sources(state)["metrics"]
            assert not shown["ok"] and str(first) in shown["text"] and "in use" in shown["text"]
            flow.job(0, fails=True)
            assert until(lambda: "opened" in (tmp_path / "daemon.log").read_text(), 15), "it diagnoses all the same"

            config.write_text(CONFIG.format(healers=0) + settings(second))
            process.send_signal(signal.SIGHUP)
            assert until(lambda: value(scrape(second), "runs") == 1, 10)
            assert until(lambda: sources(state)["metrics"]["ok"], 15)
            config.write_text(CONFIG.format(healers=0) + "[metrics]\nport = 'none'\n")
            process.send_signal(signal.SIGHUP)
            assert until(lambda: not sources(state).get("config", {"ok": True})["ok"], 15), "a mistake is shown ..."
            assert value(scrape(second), "runs") == 1, "... and changes nothing"
            config.write_text(CONFIG.format(healers=0) + settings(second, enabled=False))
            process.send_signal(signal.SIGHUP)
            assert until(lambda: not listening(process), 10)
            assert until(lambda: "metrics" not in sources(state), 15), "what is off is no source any more"
            config.write_text(CONFIG.format(healers=0) + settings(second))
            process.send_signal(signal.SIGHUP)
            assert until(lambda: value(scrape(second), "runs") == 1, 10)
