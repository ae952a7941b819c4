"""``python -m benchmarks``: generate, measure side by side, print the table."""

from __future__ import annotations

import compileall
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from benchmarks.measure import ToolError, alternate, analyzer, doctor, sample
from benchmarks.recorded import FAILED_RUNS, run_directory
from benchmarks.report import Case, show, targets

_SMALL = FAILED_RUNS / "scratch-full-no-cleanup-sharedfs"  # recorded with its database
_LARGE = 200_000  # jobs above which one measured run of each has to do, after the one that warms the caches
_SMALL_COUNTS = (11, 1)  # its jobs, and how many of them failed
_PACKAGE = Path(__file__).resolve().parent.parent / "doctor"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--jobs", default="1000,100000,1000000", show_default=True, help="Sizes of the generated runs, separated by commas.")
@click.option("--times", default=5, show_default=True, help="Runs of each tool, in turn (a million jobs: one).")
@click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), help="Where the runs are made; by default a temporary place."
)
@click.option("--keep", is_flag=True, help="Keep the generated runs, and use those that are there.")
@click.option("--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file too.")
def main(jobs: str, times: int, directory: Path | None, keep: bool, target: Path | None) -> None:
    """Measure pegasus-doctor against pegasus-analyzer on the same directories, in the same run.

    A small real run is compared with pegasus-analyzer's default (database) mode and with --files, the
    generated ones (1 % of the jobs failed) with --files. Exit code 0, whatever the figures say; 1 when a
    tool failed.
    """
    sizes = [int(word) for word in jobs.replace("_", "").split(",") if word.strip()]
    console = Console(highlight=False, width=120)
    compileall.compile_dir(_PACKAGE, quiet=2)
    place = directory or Path(tempfile.mkdtemp(prefix="pegasus-doctor-bench-"))
    try:
        cases = [*_small(times), *(_generated(size, times, place, keep, console) for size in sizes)]
    except ToolError as problem:
        click.echo(f"benchmarks: {problem}", err=True)
        sys.exit(1)
    finally:
        if not keep and directory is None:
            shutil.rmtree(place, ignore_errors=True)
    met = targets(cases)
    show(cases, met, console)
    if target is not None:
        plain = {"cases": [asdict(case) for case in cases], "targets": [{**asdict(one), "met": one.met} for one in met]}
        target.write_text(json.dumps(plain, indent=1) + "\n", "utf-8")


def _small(times: int) -> list[Case]:
    run = run_directory(_SMALL)
    return [
        Case(f"{run.parent.name}, {name}", *alternate(doctor(run, *_SMALL_COUNTS), analyzer(run, *_SMALL_COUNTS, *options), max(times, 5)))
        for name, options in (("database mode", ()), ("--files", ("--files",)))
    ]


def _generated(size: int, times: int, place: Path, keep: bool, console: Console) -> Case:
    run = place / f"jobs-{size}"
    if not (keep and (run / "braindump.yml").is_file()):
        console.print(f"generating {size:,} jobs, {size // 100:,} of them failed ...", style="dim")
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.generate", str(run), "--jobs", str(size)]
        sample(command + (["--no-outputs"] if size > _LARGE else []), (0,))
    try:
        ours, theirs = doctor(run, size, size // 100), analyzer(run, size, size // 100, "--files")
        return Case(f"{size:,} jobs, --files", *alternate(ours, theirs, 1 if size > _LARGE else times), size)
    finally:
        if not keep:
            shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["watch"]:  # the daemon's figures have options of their own
        from benchmarks.watch import main as watch

        watch(sys.argv[2:])
    if sys.argv[1:2] == ["heal"]:  # needs a pool
        from benchmarks.heal import heal

        heal(sys.argv[2:])
    main()
