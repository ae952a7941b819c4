"""Prometheus metrics on a loopback port. Off by default; needs the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from doctor.errors import DoctorError

if TYPE_CHECKING:
    from doctor.watch.daemon import Daemon


class Collector:
    """Reads the daemon's own counters when it is asked; keeps nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

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
        ):
            yield GaugeMetricFamily(f"pegasus_doctor_{name}", text, value=number)
        jobs = GaugeMetricFamily("pegasus_doctor_jobs", "Jobs of the runs under watch by state", labels=["state"])
        tally: dict[str, int] = {}
        for watched in list(daemon.runs.values()):
            if watched.picture is not None:
                for state in ("done", "failed", "held", "running", "queued"):
                    tally[state] = tally.get(state, 0) + getattr(watched.picture, state)
        for state, n in tally.items():
            jobs.add_metric([state], n)
        yield jobs
        healthy = GaugeMetricFamily("pegasus_doctor_source_ok", "Whether a source of facts answers", labels=["source"])
        for name, source in list(daemon.sources.items()):
            healthy.add_metric([name], int(source.ok))
        yield healthy


class Server:
    """Serves the metrics to this host alone."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError as problem:
            raise DoctorError("metrics need the extra `metrics`: pip install 'pegasus-doctor[metrics]'") from problem
        registry = CollectorRegistry()
        registry.register(Collector(daemon))
        try:
            self._server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as problem:
            raise DoctorError(f"metrics: port {port} on 127.0.0.1: {problem.strerror}") from problem

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
