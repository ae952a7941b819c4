"""The commands of the daemon: watch, status, top, config and service."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doctor.commands_repair import _folder, _json_option, _policy_option, _reading, _state_option
from doctor.errors import DoctorError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from doctor.watch.config import Config

_config_option = click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="How to watch.")
_LINES = 45  # of `status`


def _config(file: Path | None) -> tuple[Config, Path | None]:
    """The configuration that is in force: the given file, else the user's own, else the default."""
    from doctor.settings import in_force
    from doctor.watch.config import load_config

    chosen = in_force(file, "config.toml")
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
    from doctor.settings import in_force
    from doctor.watch import system
    from doctor.watch.daemon import Daemon
    from doctor.watch.opening import open_store

    config, _ = _config(config_file)
    policy = load_policy(in_force(policy_file, "policy.toml"))
    for run in runs:
        open_run(run, Ledger())
    if only and not runs:
        raise click.UsageError("--only needs at least one RUN")
    system.start_log(config.log.level, config.log.file)
    folder = _folder(state)
    with system.only_one(folder) as say:
        store, harmed = open_store(folder)
        daemon = Daemon(
            store, config, policy, Matcher(load()), named=[str(run) for run in runs], config_file=config_file, policy_file=policy_file,
            alone=only, heal=not harmed, say=say,
        )  # fmt: skip
        try:
            daemon.run()
        finally:
            store.close()
    if daemon.damaged:
        system.begin_again()
        raise DoctorError(daemon.damaged)


@click.command("status")
@_state_option
@_json_option
@click.option("--all", "everything", is_flag=True, help="All runs, finished ones too, and all incidents.")
def status_command(state: Path | None, as_json: bool, everything: bool) -> None:
    """What is watched, how the runs stand, open incidents, and the health of every source.

    Trouble comes first, and at most 45 lines are shown; JSON always has all.

    \b
    Exit code: 0 a daemon is running, 1 none is, 2 the state cannot be read.

    \b
    Examples:
      pegasus-doctor status
      pegasus-doctor status --json | jq '.runs[] | select(.open > 0) | .run'
    """
    from doctor.watch.facts import facts

    folder = _folder(state)
    with _reading(state) as store:
        found = facts(store, folder)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        from rich.console import Console

        from doctor.report.watching import screen

        console = Console(highlight=False)
        console.print(screen(found, console.width, sys.maxsize if everything else _LINES, everything))
    sys.exit(0 if found["running"] else 1)


@click.command("top")
@_state_option
@click.option("--every", "seconds", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Show it once and end.")
def top_command(state: Path | None, seconds: float, once: bool) -> None:
    """A live view of runs and incidents, trouble first. q or Ctrl-C ends it.

    It works in tmux and over ssh, and follows the size of the window. Where the output is no terminal (or one that
    cannot move its cursor) it is shown once. NO_COLOR is respected.

    \b
    Examples:
      pegasus-doctor top
      ssh submit.example.org -t pegasus-doctor top --every 10
    """
    from rich.console import Console
    from rich.text import Text

    from doctor.report.top import top
    from doctor.report.watching import screen
    from doctor.watch.facts import facts

    console = Console(highlight=False)
    folder = _folder(state)
    seen = False

    def look() -> RenderableType:
        nonlocal seen
        try:
            with _reading(state) as store:
                found = facts(store, folder)
        except DoctorError as problem:
            if not seen:
                raise
            return Text(f"{problem}; tried again every {seconds:g} s", style="bold red")  # locked for a while, or moved away
        seen = True
        return screen(found, console.width, console.height)

    if once:
        console.print(look())
    else:
        top(look, console, seconds)


@click.group("config")
def config_group() -> None:
    """The daemon's configuration: show what is in force, check a file."""


@config_group.command("show", short_help="Print every value that is in force.")
@_config_option
@_json_option
def config_show(config_file: Path | None, as_json: bool) -> None:
    """Print every value that is in force, as a file that --config takes; those that are not the default are marked.

    Of notification URLs, which contain passwords and tokens, only the kind is shown.

    \b
    Examples:
      pegasus-doctor config show
      pegasus-doctor config show --json | jq .config.notify
    """
    from doctor.report.settings import shown, toml
    from doctor.settings import user_config
    from doctor.watch.config import load_config

    config, used = _config(config_file)
    if as_json:
        click.echo(json.dumps({"schema": 1, "file": str(used) if used else None, "config": shown(config)}, indent=1))
        return
    click.echo(f"# {used or f'the defaults; your own file would be {user_config()}'}")
    for line in toml(shown(config), shown(load_config())):
        click.echo(line)


@config_group.command("check", short_help="Check a configuration file.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
def config_check(file: Path | None) -> None:
    """Check a configuration file (yours when none is named): every mistake with its line, and what this host lacks for it.

    \b
    Exit code: 0 well formed, 2 with a mistake.

    \b
    Examples:
      pegasus-doctor config check
      pegasus-doctor config check new.toml && cp new.toml ~/.config/pegasus-doctor/config.toml
    """
    from doctor.watch.config import lacking

    config, used = _config(file)
    missing = lacking(config)
    if missing:
        raise DoctorError("\n".join(missing), file=str(used) if used else "")
    click.echo(f"{used or 'the default configuration'}: well formed")


@click.group("service")
def service_group() -> None:
    """The daemon as a systemd service: install, uninstall, status.

    \b
    Examples:
      pegasus-doctor service install
      sudo pegasus-doctor service install --system alice
      pegasus-doctor service status
    """


def _who_option(command: Any) -> Any:
    command = click.option("--system", "account", metavar="USER", help="As a system service that runs as USER (needs root).")(command)
    return click.option("--user", "own", is_flag=True, help="As a service of your own session (the default).")(command)


def _where(own: bool, account: str | None) -> str | None:
    if own and account:
        raise click.UsageError("--user and --system exclude each other")
    return account


@service_group.command("install", short_help="Write the unit, enable and start it.")
@_who_option
@click.option("--no-start", is_flag=True, help="Only install; start nothing.")
def service_install(own: bool, account: str | None, no_start: bool) -> None:
    """Write the unit, then enable and start it. Done again it takes over a newer program and its environment.

    It starts this very installation, and keeps the PATH, CONDOR_CONFIG and PEGASUS_HOME of the moment: HTCondor's and
    Pegasus' commands have to be on the PATH. With --system the configuration is the user's own,
    ~USER/.config/pegasus-doctor, and URLs for messages may stand in /etc/pegasus-doctor/notify.USER.

    \b
    Examples:
      pegasus-doctor service install && loginctl enable-linger
      sudo pegasus-doctor service install --system alice
      pegasus-doctor service install --no-start
    """
    from doctor.watch import service

    for line in service.install(_where(own, account), start=not no_start):
        click.echo(line)


@service_group.command("uninstall", short_help="Stop and remove the unit.")
@_who_option
def service_uninstall(own: bool, account: str | None) -> None:
    """Stop and remove the unit. The doctor's memory and configuration stay.

    \b
    Example:
      sudo pegasus-doctor service uninstall --system alice
    """
    from doctor.watch import service

    for line in service.uninstall(_where(own, account)):
        click.echo(line)


@service_group.command("status", short_help="Whether it is installed and runs.")
@_who_option
def service_status(own: bool, account: str | None) -> None:
    """Whether the service is installed and runs.

    \b
    Exit code: 0 active, 3 not active, 4 not installed, as `systemctl is-active`.
    """
    from doctor.watch import service

    code, text = service.status(_where(own, account))
    click.echo(text)
    sys.exit(code)


COMMANDS: tuple[click.Command, ...] = (watch_command, status_command, top_command, config_group, service_group)

__all__ = ["COMMANDS", "DoctorError"]
