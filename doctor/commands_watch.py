"""The commands of the daemon: watch, status, top, config and service."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doctor.commands_repair import _folder, _json_option, _policy_option, _reading, _state_option
from doctor.errors import DoctorError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from doctor.store import Store
    from doctor.watch.config import Config

_config_option = click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="How to watch.")


def _config(file: Path | None) -> tuple[Config, Path | None]:
    """The configuration that is in force: the given file, else the user's own, else the default."""
    from doctor.settings import user_config
    from doctor.watch.config import load_config

    chosen = file or (user_config() if user_config().is_file() else None)
    return load_config(chosen), chosen


@click.command("watch")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@_policy_option
@_config_option
@_state_option
@click.option("--only", is_flag=True, help="Watch the named runs alone; look for no others.")
def watch_command(runs: tuple[Path, ...], policy_file: Path | None, config_file: Path | None, state: Path | None, only: bool) -> None:
    """Watch all of your runs (and the named ones) until told to stop; diagnose at once, repair as the policy lets.

    Runs are found in Pegasus' list of your workflows, in HTCondor's queue and in the folders of the
    configuration. This is what the service runs. Ctrl-C or SIGTERM ends it; it goes on where it was when
    it is started again.

    \b
    Examples:
      pegasus-doctor watch
      pegasus-doctor watch --only --policy careful.toml run0001
    """
    from doctor.diagnose.library import load
    from doctor.diagnose.matcher import Matcher
    from doctor.loop.policy import load_policy
    from doctor.run.files import Ledger
    from doctor.run.reader import open_run
    from doctor.watch import system
    from doctor.watch.daemon import Daemon
    from doctor.watch.opening import open_store

    config, used = _config(config_file)
    policy = load_policy(policy_file)
    for run in runs:
        open_run(run, Ledger())
    if only and not runs:
        raise click.UsageError("--only needs at least one RUN")
    system.start_log(config.log.level, config.log.file)
    store, harmed = open_store(_folder(state))
    try:
        with system.only_one(store.folder):
            Daemon(
                store, config, policy, Matcher(load()), named=[str(run) for run in runs], config_file=used, policy_file=policy_file,
                alone=only, heal=not harmed,
            ).run()  # fmt: skip
    finally:
        store.close()


def _facts(store: Store, folder: Path) -> dict[str, Any]:
    from doctor.watch.system import daemon_alive

    sources = {row["name"]: row for row in store.sources()}
    heart = json.loads(sources.pop("daemon")["text"]) if "daemon" in sources else {}
    now = time.time()
    incidents: dict[str, list[dict[str, Any]]] = {}
    for row in store.incidents():
        incidents.setdefault(row.run, []).append(
            {"id": row.id, "category": row.incident.category, "cause": row.incident.cause, "state": row.stage.value,
             "summary": row.incident.diagnosis.summary, "jobs": len(row.incident.jobs), "updated": row.updated}
        )  # fmt: skip
    runs = []
    for entry in store.watched():
        body = json.loads(entry["body"])
        mine = incidents.get(entry["run"], [])
        runs.append(
            {"run": entry["submit_dir"], "label": body["label"], "state": entry["state"], "jobs": body["jobs"], "source": body["source"],
             "how": body["how"], "problem": body["problem"], "moved": body["moved"], "incidents": mine,
             "open": sum(one["state"] not in ("recovered", "escalated") for one in mine)}
        )  # fmt: skip
    alive = daemon_alive(folder)
    return {
        "schema": 1,
        "running": alive is not None,
        "daemon": heart,
        "sources": [
            {
                "name": name,
                "ok": bool(row["ok"]),
                "text": row["text"],
                "age_s": round(now - row["last_good"], 1) if row["last_good"] else None,
            }
            for name, row in sorted(sources.items())
        ],
        "runs": runs,
    }


_COLOURS = {
    "failed": "red", "escalated": "red", "held": "yellow", "waiting": "yellow", "running": "cyan", "succeeded": "green",
    "recovered": "green", "finished": "green", "removed": "magenta",
}  # fmt: skip


def _age(seconds: float | None) -> str:
    if seconds is None or seconds > 10 * 365 * 86_400:
        return "never"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _screen(facts: dict[str, Any], rows: int, all_runs: bool = False) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    heart = facts["daemon"]
    if facts["running"]:
        head = Text.assemble(
            ("watching ", "bold green"), f"{heart.get('runs', 0)} runs, mode {heart.get('mode', '?')}, "
            f"pid {heart.get('pid', '?')}, up {_age(time.time() - heart.get('begun', time.time()))}, "
            f"{heart.get('lines', 0)} lines, {heart.get('diagnosed', 0)} diagnoses",
        )  # fmt: skip
    else:
        head = Text.assemble(("no daemon is running", "bold red"), "; what follows is how the last one left it")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, right in (
        ("run", False),
        ("state", False),
        ("done", True),
        ("failed", True),
        ("held", True),
        ("quiet", True),
        ("incidents", False),
    ):
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "incidents", overflow="ellipsis")
    shown = [run for run in facts["runs"] if all_runs or run["state"] not in ("finished", "vanished") or run["open"]]
    shown.sort(key=lambda run: (-run["open"], run["state"] != "failed", -(run["moved"] or 0)))
    for run in shown[:rows]:
        jobs = run["jobs"]
        current = [one for one in run["incidents"] if one["state"] != "recovered"][:3]
        words = Text("; ".join(f"{one['id'][:6]} {one['cause']} ({one['state']})" for one in current) or run["problem"])
        table.add_row(
            Text(f"{run['label'] or '?'}  {run['run']}"), Text(run["state"], style=_COLOURS.get(run["state"], "")),
            f"{jobs.get('succeeded', 0)}/{jobs.get('total', 0)}", str(jobs.get("failed", 0)), str(jobs.get("held", 0)),
            _age(time.time() - run["moved"]) if run["moved"] else "", words,
        )  # fmt: skip
    more = Text(f"... and {len(shown) - rows} more runs", style="dim") if len(shown) > rows else Text("")
    sources = Text("sources: ")
    for one in facts["sources"]:
        sources.append(one["name"], style="green" if one["ok"] else "bold red")
        if not one["ok"]:
            sources.append(f" {one['text'][:120]} (last good {_age(one['age_s'])} ago)", style="red")
        sources.append("  ")
    return Group(head, table, more, sources)


@click.command("status")
@_state_option
@_json_option
@click.option("--all", "all_runs", is_flag=True, help="Finished runs too.")
def status_command(state: Path | None, as_json: bool, all_runs: bool) -> None:
    """What is watched, how the runs stand, open incidents, and the health of every source.

    \b
    Exit code: 0 a daemon is running, 1 none is.
    """
    folder = _folder(state)
    with _reading(state) as store:
        facts = _facts(store, folder)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
    else:
        from rich.console import Console

        Console(highlight=False).print(_screen(facts, 1000, all_runs))
    sys.exit(0 if facts["running"] else 1)


@click.command("top")
@_state_option
@click.option("--every", "seconds", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Show it once and end.")
def top_command(state: Path | None, seconds: float, once: bool) -> None:
    """A live view of runs and incidents. Ctrl-C ends it."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)

    def look() -> RenderableType:
        with _reading(state) as store:
            return _screen(_facts(store, _folder(state)), max(3, console.height - 6))

    if once or not console.is_terminal:
        console.print(look())
        return
    try:
        with Live(look(), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(seconds)
                live.update(look(), refresh=True)
    except KeyboardInterrupt:
        return


@click.group("config")
def config_group() -> None:
    """The daemon's configuration: show what is in force, check a file."""


@config_group.command("show")
@_config_option
@_json_option
def config_show(config_file: Path | None, as_json: bool) -> None:
    """Print every value that is in force, and where it comes from."""
    config, used = _config(config_file)
    if as_json:
        click.echo(json.dumps({"schema": 1, "file": str(used) if used else None, "config": config.model_dump()}, indent=1))
        return
    click.echo(f"# {used or 'the defaults; your own file would be ' + str(_user_file())}")
    for section, values in config.model_dump().items():
        click.echo(f"[{section}]")
        for key, value in values.items():
            click.echo(f"{key} = {json.dumps(value)}")
        click.echo()


def _user_file() -> Path:
    from doctor.settings import user_config

    return user_config()


@config_group.command("check")
@click.argument("file", type=click.Path(path_type=Path), required=False)
def config_check(file: Path | None) -> None:
    """Check a configuration file (yours when none is named); every mistake with its line, exit 2 when there is one."""
    _, used = _config(file)
    click.echo(f"{used or 'the default configuration'}: well formed")


@click.group("service")
def service_group() -> None:
    """The daemon as a systemd service: install, uninstall, status."""


def _who_option(command: Any) -> Any:
    command = click.option("--system", "account", metavar="USER", help="As a system service that runs as USER (needs root).")(command)
    return click.option("--user", "own", is_flag=True, help="As a service of your own session (the default).")(command)


def _where(own: bool, account: str | None) -> str | None:
    if own and account:
        raise click.UsageError("--user and --system exclude each other")
    return account


@service_group.command("install")
@_who_option
@click.option("--no-start", is_flag=True, help="Only install; start nothing.")
def service_install(own: bool, account: str | None, no_start: bool) -> None:
    """Write the unit, then enable and start it."""
    from doctor.watch import service

    for line in service.install(_where(own, account), start=not no_start):
        click.echo(line)


@service_group.command("uninstall")
@_who_option
def service_uninstall(own: bool, account: str | None) -> None:
    """Stop and remove the unit. The doctor's memory and configuration stay."""
    from doctor.watch import service

    for line in service.uninstall(_where(own, account)):
        click.echo(line)


@service_group.command("status")
@_who_option
def service_status(own: bool, account: str | None) -> None:
    """Whether the service is installed and runs. Exit code as `systemctl is-active`."""
    from doctor.watch import service

    code, text = service.status(_where(own, account))
    click.echo(text)
    sys.exit(code)


COMMANDS: tuple[click.Command, ...] = (watch_command, status_command, top_command, config_group, service_group)

__all__ = ["COMMANDS", "DoctorError"]
