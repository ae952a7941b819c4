"""The command line: parse, wire, call, render. Everything heavy is imported where it is used."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doctor import __version__, commands_llm, commands_repair, commands_watch
from doctor.errors import DoctorError, RuleError

if TYPE_CHECKING:
    from doctor.commands_llm import Afterwards
    from doctor.diagnose.engine import SilentMode
    from doctor.diagnose.matcher import Matcher
    from doctor.model import Report

OK, INCIDENTS, USAGE, INTERNAL = 0, 1, 2, 3
_KINDS = ("job-stderr", "hold-reason", "pegasus-transfer", "pegasuslite-err", "dagman-out", "planner", "condor-daemon", "kickstart")


class Commands(click.Group):
    """Turns the program's own errors into one line, and anything unexpected into a request for a report."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RuleError as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            click.echo(f"{len(error.problems)} problem(s) in the rule library", err=True)
            ctx.exit(USAGE)
        except DoctorError as error:
            click.echo(f"pegasus-doctor: {error}", err=True)
            ctx.exit(USAGE)
        except BrokenPipeError:  # the reader of our output went away, as `| head` does
            sys.stderr.close()
            ctx.exit(OK)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as bug:
            if ctx.params.get("debug"):
                raise
            click.echo(f"pegasus-doctor: internal error: {type(bug).__name__}: {bug}", err=True)
            click.echo("This is a bug. Run again with `pegasus-doctor --debug ...` and report what it prints.", err=True)
            ctx.exit(INTERNAL)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pegasus-doctor")
@click.option("--debug", is_flag=True, help="Show the traceback of an internal error.")
def main(debug: bool) -> None:
    """Find out what really broke a Pegasus workflow, with the lines that prove it, and what to do.

    \b
    Examples:
      pegasus-doctor analyze /home/me/runs/me/pegasus/blast/run0001
      pegasus-doctor analyze --json RUN | jq '.incidents[0].cause'
      pegasus-doctor analyzer -q RUN
      pegasus-doctor heal --dry-run RUN
      grep Error job.err | pegasus-doctor explain --kind job-stderr -
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8, or a file name that is not, costs a letter at most
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _matcher() -> Matcher:
    from doctor.diagnose.library import load
    from doctor.diagnose.matcher import Matcher

    return Matcher(load())


def _report(
    directory: Path, maps: tuple[str, ...], silent: SilentMode = "auto", progress: bool = False, then: Afterwards | None = None
) -> Report:
    from doctor.diagnose.engine import Options, analyze
    from doctor.report.progress import progress_bar
    from doctor.run.files import Ledger
    from doctor.run.paths import PathMap
    from doctor.run.reader import open_run

    gc.set_threshold(200_000)  # records are made by the hundred thousand, and next to none is garbage
    run = open_run(directory, Ledger(), PathMap.parse(maps))
    with progress_bar(progress) as advance:
        matcher = _matcher()
        report = analyze(run, matcher, Options(silent), advance)
    return then(report, run, matcher) if then else report


_map_option = click.option(
    "--map", "maps", multiple=True, metavar="OLD=NEW",
    help="Where a recorded path lives now, for a run copied from another host. Repeatable.",
)  # fmt: skip


@main.command("analyze")
@click.argument("run", type=click.Path(path_type=Path))
@_map_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (schema 1).")
@click.option("-v", "--verbose", is_flag=True, help="Add the causes that were ruled out, recovered attempts and every unreadable file.")
@click.option(
    "--silent", "silent_all", is_flag=True, help="Look at every succeeded job for silent failures (by default only when they are few)."
)
@click.option("--no-silent", is_flag=True, help="Do not look at succeeded jobs at all.")
@commands_llm.llm_options
@click.pass_context
def analyze_command(
    ctx: click.Context, run: Path, maps: tuple[str, ...], as_json: bool, verbose: bool, silent_all: bool, no_silent: bool,
    llm: bool, show_prompt: bool, state: Path | None,
) -> None:  # fmt: skip
    """Diagnose a submit directory: finished, failed, held, running, removed or rescued.

    RUN is the directory with braindump.yml. Nothing in it is changed.

    \b
    Exit code: 0 nothing wrong, 1 incidents, 2 not a run or wrong usage, 3 internal error.

    \b
    Examples:
      pegasus-doctor analyze run0001
      pegasus-doctor analyze --map /home/alice/flows=/mnt/copy /mnt/copy/blast/run0001
    """
    if silent_all and no_silent:
        raise click.UsageError("--silent and --no-silent exclude each other")
    mode: SilentMode = "all" if silent_all else "off" if no_silent else "auto"
    report = _report(run, maps, mode, progress=not as_json, then=commands_llm.afterwards(llm, show_prompt, state))
    if show_prompt:
        return
    if as_json:
        from doctor.report.json import report_json

        click.echo(json.dumps(report_json(report), indent=1))
    else:
        from rich.console import Console

        from doctor.report.terminal import render

        render(report, Console(highlight=False), verbose=verbose)
    ctx.exit(INCIDENTS if report.incidents else OK)


@main.command("explain")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), default="-", required=False)
@click.option("--kind", type=click.Choice(_KINDS), help="What kind of text it is; without it all rules are asked.")
@click.option("--json", "as_json", is_flag=True, help="Print the matches as JSON (schema 1), best first.")
@commands_llm.llm_options
def explain_command(file: Path, kind: str | None, as_json: bool, llm: bool, show_prompt: bool, state: Path | None) -> None:
    """Explain a message: an error from a log, a hold reason, a mail. Reads FILE or standard input.

    \b
    Examples:
      pegasus-doctor explain --kind hold-reason reason.txt
      echo "ModuleNotFoundError: No module named 'numpy'" | pegasus-doctor explain
    """
    from doctor.diagnose.explain import MAX_BYTES, explain

    if str(file) == "-":
        if sys.stdin.isatty():
            click.echo("Paste the message, then press Ctrl-D:", err=True)
        data = sys.stdin.buffer.read(MAX_BYTES)
    else:
        try:
            if not file.is_file():
                raise DoctorError("not a regular file" if file.exists() else "no such file", file=str(file))
            with file.open("rb") as stream:
                data = stream.read(MAX_BYTES)
        except OSError as problem:
            raise DoctorError(problem.strerror or "cannot be read", file=str(file)) from problem
    matcher = _matcher()
    matches = explain(data, matcher, kind)
    if llm or show_prompt:
        matches = commands_llm.explain(data, kind, matches, matcher, show_prompt, state)
    if show_prompt:
        return
    if as_json:
        plain = [
            {
                "category": match.cause.split("/")[0],
                "cause": match.cause.split("/")[1],
                "confidence": match.confidence,
                "decided_by": match.decided_by,
                "advice": match.advice,
                "definition": match.definition,
                "line": match.line.number,
                "text": match.line.text,
            }
            for match in matches
        ]
        click.echo(json.dumps({"schema": 1, "matches": plain}, indent=1))
        return
    if not matches:
        click.echo("No rule knows this message as an error: it is harmless, or unknown to the rule library.")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for number, match in enumerate(matches[:5]):
        head = Text(match.cause, style="bold red" if number == 0 else "bold")
        head.append(f"  confidence {match.confidence:.0%}, decided by {match.decided_by}", style="dim")
        console.print(head, soft_wrap=True)
        for label, text in (("means", match.definition), ("line", f"{match.line.number}: {match.line.text[:400]}"), ("do", match.advice)):
            console.print(Text(f"  {label:<7}{text}"), soft_wrap=True)


@main.command("analyzer", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def analyzer_command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run the host's pegasus-analyzer and add the doctor's findings to its output.

    All options are pegasus-analyzer's own (`--map OLD=NEW` is taken out for the doctor). The exit code
    is pegasus-analyzer's. `pegasus-doctor analyzer --help` shows pegasus-analyzer's help.

    \b
    Example:
      pegasus-doctor analyzer -q -r RUN
    """
    from doctor.report.enrich import run_analyzer, run_argument

    maps, theirs = _split_maps(arguments)
    done = run_analyzer(theirs)
    if {"-h", "--help"} & set(theirs):
        click.echo(done.stdout + done.stderr, nl=False)
        ctx.exit(done.code)
    _print_enriched(done.stdout, run_argument(theirs), maps)
    click.echo(done.stderr, nl=False, err=True)
    ctx.exit(done.code)


def _split_maps(arguments: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    maps, theirs, words = [], [], iter(arguments)
    for word in words:
        if word == "--map":
            maps.append(next(words, ""))
        elif word.startswith("--map="):
            maps.append(word.partition("=")[2])
        else:
            theirs.append(word)
    return tuple(maps), theirs


@main.command("enrich")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), default="-", required=False)
@click.option(
    "--run", "run", type=click.Path(path_type=Path), help="The submit directory, when the text does not name it (or it was copied)."
)
@_map_option
def enrich_command(file: Path, run: Path | None, maps: tuple[str, ...]) -> None:
    """Add the doctor's findings to pegasus-analyzer's text that is already there (FILE or stdin).

    \b
    Example:
      pegasus-analyzer RUN | pegasus-doctor enrich
    """
    from doctor.report.enrich import submit_directory
    from doctor.run.paths import PathMap

    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as problem:
        raise DoctorError(problem.strerror or "cannot be read", file=str(file)) from problem
    text = data.decode("utf-8", "replace")
    named = str(run) if run else submit_directory(text)
    if named is None:
        click.echo(text, nl=False)
        raise DoctorError("this text names no submit directory; is it pegasus-analyzer's output? Otherwise give --run RUN")
    directory = named if run else str(PathMap.parse(maps).local(named))
    _print_enriched(text, directory, maps)


def _print_enriched(text: str, directory: str, maps: tuple[str, ...]) -> None:
    """The text with causes under its jobs, then the doctor's own section; the text alone where there is no run."""
    from rich.console import Console

    from doctor.report.enrich import enrich
    from doctor.report.terminal import render

    try:
        report = _report(Path(directory), maps)
    except DoctorError as error:
        click.echo(text, nl=False)
        click.echo(f"pegasus-doctor: {error}", err=True)
        return
    for line in enrich(text, report):
        click.echo(line, nl=False)
    click.echo(f"\n{'pegasus-doctor':*^80}\n")
    render(report, Console(highlight=False))


@main.group("rules")
def rules_group() -> None:
    """The rule library: list, show, check and test rules."""


@rules_group.command("list")
@click.option("--cause", help="Only rules of this cause or category, such as disk or disk/scratch-full.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def rules_list(cause: str | None, as_json: bool) -> None:
    """List all rules with their causes."""
    from doctor.diagnose.library import load

    library = load()
    chosen = [rule for rule in library.rules if not cause or rule.cause == cause or rule.cause.startswith(f"{cause}/")]
    if cause and not chosen:
        raise DoctorError(f"no rule has the cause {cause!r}; causes and categories stand in `pegasus-doctor rules list`")
    if as_json:
        plain = [
            {"id": rule.id, "title": rule.title, "cause": rule.cause, "status": rule.status, "strength": rule.strength.value}
            for rule in chosen
        ]
        click.echo(json.dumps({"schema": 1, "rules": plain}, indent=1))
        return
    for rule in chosen:
        click.echo(f"{rule.id:<44} {rule.cause:<44} {rule.status:<7} {rule.title}")
    click.echo(f"{len(chosen)} rules")


@rules_group.command("show")
@click.argument("rule_id")
def rules_show(rule_id: str) -> None:
    """Print one rule file."""
    from doctor.diagnose.library import patterns_dir, rule_files

    path = next((path for path in rule_files(patterns_dir()) if path.stem == rule_id), None)
    if path is None:
        raise DoctorError(f"no rule {rule_id!r}; `pegasus-doctor rules list` names them all")
    click.echo(f"# {path}")
    click.echo(path.read_text("utf-8"), nl=False)


_root_option = click.option(
    "--patterns", "root", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Another rule library's folder."
)


@rules_group.command("check")
@_root_option
def rules_check(root: Path | None) -> None:
    """Check the shape of all rule files; every problem with file and line, exit 2 when there is one."""
    from doctor.diagnose.library import compile_library

    library = compile_library(root)
    click.echo(f"{len(library.rules)} rules, {len(library.benign)} harmless patterns, {len(library.causes)} causes: all well formed")


@rules_group.command("test")
@_root_option
@click.pass_context
def rules_test(ctx: click.Context, root: Path | None) -> None:
    """Prove all rules on their samples and on the harmless lines; exit 1 when one fails."""
    from doctor.diagnose.ruletest import problems

    found = list(problems(root))
    for problem in found:
        click.echo(problem)
    click.echo(f"{len(found)} problem(s)" if found else "all samples behave")
    ctx.exit(1 if found else 0)


for _command in (*commands_repair.COMMANDS, *commands_watch.COMMANDS, commands_llm.llm_group):
    main.add_command(_command)
rules_group.add_command(commands_llm.draft_command)


if __name__ == "__main__":
    main()
