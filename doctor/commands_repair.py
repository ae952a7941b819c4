"""The commands that repair: heal, and what reads or answers the incidents in the store."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doctor.errors import DoctorError

if TYPE_CHECKING:
    from rich.text import Text

    from doctor.loop.seams import Event, Seams
    from doctor.store import Store

_json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON (schema 1).")
_state_option = click.option(
    "--state", "state", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Where the doctor keeps its memory. Default: $XDG_STATE_HOME/pegasus-doctor.",
)  # fmt: skip
_policy_option = click.option("--policy", "policy_file", type=click.Path(path_type=Path), metavar="FILE", help="What the doctor may do.")
_map_option = click.option(
    "--map", "maps", multiple=True, metavar="OLD=NEW", help="Where a recorded path lives now, for a run that was copied. Repeatable."
)


def _folder(state: Path | None) -> Path:
    from doctor.statedir import default_state_dir

    return state.absolute() if state else default_state_dir()


@contextmanager
def _store(state: Path | None) -> Iterator[Store]:
    """The store, for commands that answer or undo; reading commands see an empty copy where there is none."""
    from doctor.store import Store

    store = Store(_folder(state), time.time)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _reading(state: Path | None) -> Iterator[Store]:
    """The store for reading; nothing is created where there is none."""
    from doctor.store import scratch_copy

    folder = _folder(state)
    if (folder / "doctor.db").exists():
        with _store(state) as store:
            yield store
    else:
        with scratch_copy(folder, time.time) as store:
            yield store


def _seams(store: Store, policy_file: Path | None, maps: tuple[str, ...] = (), yes: bool = False, tell: Any = None) -> Seams:
    from doctor.diagnose.library import load
    from doctor.diagnose.matcher import Matcher
    from doctor.loop.policy import load_policy
    from doctor.loop.wiring import assemble
    from doctor.run.paths import PathMap

    policy = load_policy(policy_file)
    quiet: Callable[[Event], None] = lambda event: None  # noqa: E731
    return assemble(store, policy, Matcher(load()), yes=yes, maps=PathMap.parse(maps), tell=tell or quiet)


def _print(rows: Iterator[Text]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for row in rows:
        console.print(row, soft_wrap=True)


def _dump(data: dict[str, Any]) -> None:
    click.echo(json.dumps(data, indent=1))


@click.command("heal")
@click.argument("run", type=click.Path(path_type=Path))
@_policy_option
@_state_option
@_map_option
@click.option("--yes", is_flag=True, help="Answer yes to whatever would be asked. It never lifts a denial.")
@click.option("--dry-run", is_flag=True, help="Show the diagnosis, the plans and the guards' answers; change nothing, start nothing.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="S", help="Stop watching after S seconds; a later heal goes on from there."
)
@_json_option
@click.pass_context
def heal_command(
    ctx: click.Context, run: Path, policy_file: Path | None, state: Path | None, maps: tuple[str, ...], yes: bool, dry_run: bool,
    timeout: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Repair a failed or held run: diagnose, plan, guard, apply, submit the rescue DAG, and see that it helped.

    By default every repair is proposed and waits for `approve`; a policy file lets the doctor act.

    \b
    Exit code: 0 recovered or nothing to do, 1 handed to a person, 2 wrong usage, 3 waiting for approval
    (or still running when the time was up).

    \b
    Examples:
      pegasus-doctor heal --dry-run run0001
      pegasus-doctor heal --policy policy.toml run0001
      pegasus-doctor heal --yes run0001
    """
    from doctor.loop.heal import heal, rehearse
    from doctor.report.heal import Live, healed_json, render
    from doctor.store import scratch_copy

    folder = _folder(state)
    tell = None
    if not as_json and not dry_run:
        from rich.console import Console

        tell = Live(Console(file=sys.stderr, highlight=False))
    if dry_run:
        with scratch_copy(folder, time.time) as store:
            healed = rehearse(_seams(store, policy_file, maps, yes), run)
    else:
        _refuse_inside(folder, run)
        with _store(state) as store:
            healed = heal(_seams(store, policy_file, maps, yes, tell), run, timeout)
    if as_json:
        _dump(healed_json(healed))
    else:
        from rich.console import Console

        render(healed, Console(highlight=False))
    ctx.exit(healed.exit_code)


def _refuse_inside(folder: Path, run: Path) -> None:
    if run.is_dir() and folder.resolve().is_relative_to(run.resolve()):
        raise DoctorError(f"{folder}: the state lies inside the run; give another folder with --state")


@click.command("incidents")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@_state_option
@_json_option
def incidents_command(run: Path | None, state: Path | None, as_json: bool) -> None:
    """List the incidents that the doctor knows: of all runs, or of RUN.

    \b
    Example:
      pegasus-doctor incidents --json | jq '.incidents[] | select(.state == "waiting")'
    """
    from doctor.report.heal import incident_rows, row_json
    from doctor.statedir import run_key

    with _reading(state) as store:
        found = store.incidents(run_key(str(run)) if run else None)
    if as_json:
        _dump({"schema": 1, "incidents": [row_json(row) for row in found]})
    else:
        _print(incident_rows(found))


@click.command("show")
@click.argument("incident")
@_state_option
@_json_option
def show_command(incident: str, state: Path | None, as_json: bool) -> None:
    """Show one incident: diagnosis, plans, the guards' answers, journal and outcomes.

    \b
    Example:
      pegasus-doctor show 3f2a9c01be
    """
    from actions import diff
    from doctor.loop.heal import treated
    from doctor.report.heal import shown_json, shown_rows

    with _reading(state) as store:
        row = store.incident(incident)
        whole = treated(store, diff, row)
        if as_json:
            _dump(shown_json(row, whole, store))
        else:
            _print(shown_rows(whole, store))


def _answer(incident: str, state: Path | None, as_json: bool, verdict: str) -> None:
    from doctor.loop.stages import Stage

    with _reading(state) as store:
        row = store.incident(incident)
        waiting = store.plans(row.id, states=("proposed",))[-1:] if row.stage is Stage.WAITING else []
        if not waiting:
            raise DoctorError(f"incident {row.id} is {row.stage.value}; it waits for no answer")
        with store.batch():
            store.plan_state(waiting[0].id, verdict, f"{verdict} by a person")
            store.note(row.run, row.id, verdict, waiting[0].plan.summary)
            if verdict == "denied":
                store.move(row.id, Stage.ESCALATED, "denied by a person")
        row = store.incident(row.id)
    if as_json:
        _dump({"schema": 1, "id": row.id, "state": row.stage.value, "answer": verdict, "run": row.submit_dir})
    elif verdict == "approved":
        click.echo(
            f"approved: {waiting[0].plan.summary}\nNow run: pegasus-doctor heal {row.submit_dir}   (a running daemon goes on by itself)"
        )
    else:
        click.echo(f"denied: {waiting[0].plan.summary}")


@click.command("approve")
@click.argument("incident")
@_state_option
@_json_option
def approve_command(incident: str, state: Path | None, as_json: bool) -> None:
    """Say yes to the repair that an incident waits for. The next `heal` (or the daemon) carries it out.

    \b
    Example:
      pegasus-doctor approve 3f2a9c01be && pegasus-doctor heal run0001
    """
    _answer(incident, state, as_json, "approved")


@click.command("deny")
@click.argument("incident")
@_state_option
@_json_option
def deny_command(incident: str, state: Path | None, as_json: bool) -> None:
    """Say no to the repair that an incident waits for; the incident is yours then."""
    _answer(incident, state, as_json, "denied")


@click.command("undo")
@click.argument("incident")
@_policy_option
@_state_option
@_map_option
@_json_option
@click.pass_context
def undo_command(
    ctx: click.Context, incident: str, policy_file: Path | None, state: Path | None, maps: tuple[str, ...], as_json: bool
) -> None:
    """Take back what was changed for an incident, byte for byte; refused where somebody changed a file since.

    \b
    Exit code: 0 all taken back, 1 something could not be, 2 wrong usage.
    """
    from doctor.loop.heal import undo
    from doctor.report.heal import undone_json

    with _reading(state) as store:
        row = store.incident(incident)
        undone = undo(_seams(store, policy_file, maps), row)
    if as_json:
        _dump(undone_json(row, undone))
    else:
        for one in undone:
            click.echo(f"{'undone' if one.done else 'not undone'}: {one.plan.summary}" + (f" ({one.reason})" if one.reason else ""))
        if not undone:
            click.echo("Nothing was changed for this incident.")
    ctx.exit(0 if all(one.done for one in undone) else 1)


@click.command("history")
@click.argument("run", type=click.Path(path_type=Path))
@_state_option
@_json_option
def history_command(run: Path, state: Path | None, as_json: bool) -> None:
    """Everything the doctor did about a run, oldest first.

    \b
    Example:
      pegasus-doctor history run0001
    """
    from doctor.statedir import run_key

    with _reading(state) as store:
        found = store.history(run_key(str(run)))
    if as_json:
        _dump({"schema": 1, "run": str(run), "history": found})
        return
    for entry in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["time"]))
        click.echo(f"{when}  {entry['incident'] or 'run':<10}  {entry['event']:<9} {entry['text']}")
    if not found:
        click.echo("The doctor has done nothing about this run.")


COMMANDS: tuple[click.Command, ...] = (
    heal_command, incidents_command, show_command, approve_command, deny_command, undo_command, history_command,
)  # fmt: skip
