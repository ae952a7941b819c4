"""Prometheus metrics on a loopback port. Off by default; needs the extra ``metrics``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from doctor import __version__
from doctor.errors import DoctorError
from doctor.loop.stages import Stage

if TYPE_CHECKING:
    from doctor.watch.daemon import Daemon

_AGAIN_S = 60.0  # a port that is taken is tried again so often
_JOB_STATES = ("done", "failed", "held", "running", "queued")


class Collector:
    """Reads the daemon's own counters, and how many incidents there are, when it is asked; keeps nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        daemon = self._daemon
        for name, text, value in (
            ("lines", "Log lines read", daemon.lines),
            ("diagnoses", "Attempts diagnosed", daemon.diagnosed),
            ("batches", "Transactions written", daemon.writer.batches),
            ("notifications", "Notifications sent", daemon.notifier.sent),
            ("notifications_failed", "Notifications that could not be sent", daemon.notifier.failed),
            ("loop_steps", "Steps of the loop", daemon.healer.steps),
        ):
            yield CounterMetricFamily(f"pegasus_doctor_{name}", text, value=value)
        for name, text, number in (
            ("runs", "Runs under watch", len(daemon.runs)),
            ("backlog", "Findings that wait to be written", daemon.writer.backlog),
            ("ready", "Runs that wait for a reader", len(daemon.ready)),
            ("healing", "Runs in the loop right now", daemon.healer.active),
            ("writing_paused", "1 while the state's file system is too full", int(daemon.writer.paused)),
            ("start_time_seconds", "When the daemon was started, since 1970", daemon.begun),
        ):
            yield GaugeMetricFamily(f"pegasus_doctor_{name}", text, value=number)
        yield InfoMetricFamily("pegasus_doctor", "Version and mode of the policy", {"version": __version__, "mode": daemon.policy.mode})
        yield self._jobs(GaugeMetricFamily("pegasus_doctor_jobs", "Jobs of the runs under watch by state", labels=["state"]))
        text = "Incidents in the store by state and category of the cause; all but recovered and escalated are open"
        yield self._incidents(GaugeMetricFamily("pegasus_doctor_incidents", text, labels=["state", "category"]))
        healthy = GaugeMetricFamily("pegasus_doctor_source_ok", "Whether a source of facts answers", labels=["source"])
        text = "When a source of facts last answered, since 1970; 0 for never"
        answered = GaugeMetricFamily("pegasus_doctor_source_last_good_timestamp_seconds", text, labels=["source"])
        for name, source in list(daemon.sources.items()):
            healthy.add_metric([name], int(source.ok))
            answered.add_metric([name], source.last_good)
        yield healthy
        yield answered

    def _jobs(self, family: Any) -> Any:
        tally = dict.fromkeys(_JOB_STATES, 0)
        for watched in list(self._daemon.runs.values()):
            if watched.picture is not None:
                for state in _JOB_STATES:
                    tally[state] += getattr(watched.picture, state)
        for state, number in tally.items():
            family.add_metric([state], number)
        return family

    def _incidents(self, family: Any) -> Any:
        """Every state is there for each category that was ever seen, so that an alert can compare with 0."""
        tally: Counter[tuple[str, str]] = Counter()
        try:
            for (state, cause), number in self._daemon.store.tally().items():
                tally[state, cause.partition("/")[0]] += number
        except DoctorError:  # locked or damaged: the other metrics tell
            return family
        for category in sorted({category for _, category in tally}):
            for stage in Stage:
                family.add_metric([stage.value, category], tally[stage.value, category])
        return family


class Server:
    """Serves the metrics to this host alone."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError as problem:
            raise DoctorError("needs the extra `metrics`: pip install 'pegasus-doctor[metrics]'") from problem
        registry = CollectorRegistry()
        registry.register(Collector(daemon))
        try:
            self._server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as problem:
            raise DoctorError(f"port {port} on 127.0.0.1: {problem.strerror}") from problem
        self.port = port

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Endpoint:
    """The server as the configuration wants it. A port that is taken, or a library that is missing, costs the metrics alone."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._server: Server | None = None
        self._again = 0.0

    def follow(self, at_once: bool = False) -> None:
        """Start, stop or move it. Called now and then: what did not work is tried again."""
        settings = self._daemon.config.metrics
        wanted = settings.port if settings.enabled else None
        if self._server is not None and self._server.port != wanted:
            self._server.stop()
            self._server = None
            at_once = True
        if wanted is None:
            self._daemon.sources.pop("metrics", None)
            return
        if self._server is None and (at_once or time.monotonic() >= self._again):
            self._again = time.monotonic() + _AGAIN_S
            try:
                self._server = Server(self._daemon, wanted)
            except DoctorError as problem:
                self._daemon.source("metrics", False, str(problem))
        if self._server is not None:
            self._daemon.source("metrics", True, f"http://127.0.0.1:{wanted}/metrics")
