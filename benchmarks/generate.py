"""Run directories of any size in Pegasus' layout, made of recorded jobs.

The shape of the workflow: one create_dir job, one stage-in job, then groups of compute jobs, each
group with a job that merges it. Failed jobs are spread over the groups; a merge with a failed parent
is never submitted. Everything is written as a stream, so that a million jobs need little memory.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from benchmarks.recorded import CLUSTER, FAILED_RUNS, FOLDER, NAME, SEQ, SUBMIT_DIR, JobTemplate, RecordedRun, failures, recorded_runs

GROUP = 100  # jobs of one group, its merge included
PER_FOLDER = 50  # Pegasus' hashed mapper: 254 files per directory, 5 files per job
_AT_ONCE = 16  # jobs whose states and events are interleaved, as on a pool with that many slots


@dataclass(frozen=True, slots=True)
class Placed:
    """One job of the generated workflow. ``ran`` is False for a job that was never submitted."""

    number: int
    template: JobTemplate
    name: bytes
    folder: bytes
    ran: bool

    def fill(self, text: bytes) -> bytes:
        """The template's text with this job's name, folder and HTCondor id."""
        return (
            text.replace(FOLDER, self.folder)
            .replace(NAME, self.name)
            .replace(CLUSTER, b"%d" % (1000 + self.number))
            .replace(SEQ, b"%d" % (self.number + 1))
        )


class Plan:
    """Which job stands where: the same for the same arguments."""

    def __init__(self, jobs: int, failed: int, runs: list[RecordedRun]) -> None:
        self.base = runs[0]
        self.jobs = jobs
        templates = [self.base.job(name) for name in self.base.job_names()]
        self.create = next(job for job in templates if job.name.startswith("create_dir"))
        self.stage_in = next(job for job in templates if job.name.startswith("stage_in"))
        own = [job for job in templates if job.transformation and not job.transformation.startswith("pegasus::")]
        self.good = next(job for job in own if not job.failed)
        self.bad = failures(runs)
        workers = [number for number in range(2, jobs) if not self.is_merge(number)]
        chosen = sorted(random.Random(jobs).sample(workers, failed))
        self.failed = {number: self.bad[index % len(self.bad)] for index, number in enumerate(chosen)}
        self._stopped = {self.merge_of(number) for number in chosen}

    def is_merge(self, number: int) -> bool:
        return number >= 2 and (number - 2) % GROUP == GROUP - 1

    def merge_of(self, number: int) -> int:
        return number - (number - 2) % GROUP + GROUP - 1

    def place(self, number: int) -> Placed:
        """The job with this number, 0 to ``jobs`` - 1."""
        folder = number // PER_FOLDER
        path = b"%02X/%02X" % (folder // 256, folder % 256)
        if number == 0:
            return Placed(0, self.create, b"create_dir_bench_0_local", path, True)
        if number == 1:
            return Placed(1, self.stage_in, b"stage_in_local_local_0_0", path, True)
        template = self.failed.get(number, self.good)
        kind = b"merge" if self.is_merge(number) else template.transformation.rpartition("::")[2].encode()
        return Placed(number, template, b"%s_ID%07d" % (kind, number), path, number not in self._stopped)

    def all(self) -> Iterator[Placed]:
        return map(self.place, range(self.jobs))

    def waves(self) -> Iterator[list[Placed]]:
        """Jobs that ran, in portions that were in the queue together."""
        wave: list[Placed] = []
        for job in self.all():
            if job.ran:
                wave.append(job)
            if job.number < 2 or len(wave) == _AT_ONCE:
                yield wave
                wave = []
        yield wave


def generate(target: Path, jobs: int, failed: int, runs: list[RecordedRun], outputs: bool = True) -> None:
    """Write a run directory; ``outputs``: succeeded jobs have their ``.out``/``.err`` too (as hard links)."""
    target.mkdir(parents=True)
    plan = Plan(jobs, failed, runs)
    writer = _Writer(target, plan)
    writer.top_level()
    writer.dag()
    writer.logs()
    writer.job_files(outputs)


class _Writer:
    def __init__(self, target: Path, plan: Plan) -> None:
        self.target = target
        self.plan = plan
        self.base = plan.base
        self.dag_name = plan.base.dag_name
        self.stem = self.dag_name.removesuffix(".dag")

    def _here(self, text: bytes) -> bytes:
        own = os.fsencode(self.target)
        return text.replace(SUBMIT_DIR, own).replace(self.base.submit_dir.encode(), own)

    def _open(self, name: str) -> BinaryIO:
        return (self.target / name).open("wb", buffering=1 << 20)

    def top_level(self) -> None:
        """Files that exist once, as recorded."""
        names = ["braindump.yml", self.base.value("properties"), f"{self.dag_name}.condor.sub", f"{self.dag_name}.dagman.log"]
        names += ["monitord.done", "monitord.info", "monitord.started", "workflow.yml"]
        names += [str(path.relative_to(self.base.directory)) for path in self.base.directory.glob("catalogs/*.yml")]
        for name in names:
            if data := self.base.content(name):
                path = self.target / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(self._here(data))

    def dag(self) -> None:
        """The DAG: header, one block per job, edges, one per line as Pegasus writes them."""
        recorded = self.base.content(self.dag_name)
        with self._open(self.dag_name) as out:
            out.write(recorded[: recorded.find(b"\nJOB ") + 1])
            for job in self.plan.all():
                out.write(job.fill(job.template.dag))
            first, second = self.plan.place(0).name, self.plan.place(1).name
            out.write(b"PARENT  %s CHILD %s\n" % (first, second))
            merge = b""
            for number in range(2, self.plan.jobs):
                if (number - 2) % GROUP == 0:
                    last = self.plan.merge_of(number)
                    merge = self.plan.place(last).name if last < self.plan.jobs else b""
                name = self.plan.place(number).name
                if name != merge:
                    out.write(b"PARENT  %s CHILD %s\n" % (second, name))
                    if merge:
                        out.write(b"PARENT  %s CHILD %s\n" % (name, merge))
            out.write(recorded[recorded.rfind(b"###\n# End of DAG") - 67 :])

    def logs(self) -> None:
        """jobstate.log, event log, dagman.out, exitcode.log and the rescue DAG."""
        lines = self.base.dagman_lines
        begin = next(index for index, line in enumerate(lines) if b" Submitting HTCondor Node" in line)
        finish = next(index for index, line in enumerate(lines) if b"Aborting DAG..." in line)
        status = [line for line in lines[begin:finish] if line[18:].startswith((b"DAG status", b"Of ", b" Done", b"  ===", b"    "))][:5]
        time = self.base.started
        with (
            self._open("jobstate.log") as states,
            self._open(self.base.value("condor_log")) as events,
            self._open(f"{self.dag_name}.dagman.out") as dagman,
            self._open(f"{self.stem}.exitcode.log") as exits,
        ):
            states.write(b"%d INTERNAL *** MONITORD_STARTED ***\n%d INTERNAL *** DAGMAN_STARTED 999.0 ***\n" % (time, time))
            dagman.writelines(lines[:begin])
            for wave in self.plan.waves():
                states.writelines(_states(wave, time))
                events.writelines(_round_robin([job.fill(job.template.events).split(b"...\n")[:-1] for job in wave], b"...\n"))
                dagman.writelines(_round_robin([job.fill(job.template.dagman).splitlines(keepends=True) for job in wave]))
                dagman.writelines(status)
                exits.writelines(job.fill(job.template.exitcode) for job in wave)
                time += 3
            dagman.write(lines[finish][:18] + b"ERROR: the following job(s) failed:\n")
            for number in self.plan.failed:
                job = self.plan.place(number)
                dagman.write(job.fill(job.template.dagman_failure))
            dagman.writelines(lines[finish:])
            states.write(b"%d INTERNAL *** DAGMAN_FINISHED 1 ***\n%d INTERNAL *** MONITORD_FINISHED 0 ***\n" % (time, time))
        self._rescue()

    def _rescue(self) -> None:
        failed = [self.plan.place(number).name for number in self.plan.failed]
        with self._open(f"{self.dag_name}.rescue001") as out:
            out.write(b"# Rescue DAG file, created after running\n#   the %s DAG file\n" % self.dag_name.encode())
            out.write(b"# Rescue DAG version: 2.0.1 (partial)\n#\n# Total number of Nodes: %d\n" % self.plan.jobs)
            out.write(b"# Nodes that failed: %d\n#   %s,<ENDLIST>\n\n" % (len(failed), b",".join(failed)))
            for job in self.plan.all():
                if job.ran and job.number not in self.plan.failed:
                    out.write(b"DONE %s\n" % job.name)

    def job_files(self, outputs: bool) -> None:
        """Each job's own files. Those of succeeded jobs in one directory are links to one real set."""
        own = os.fsencode(self.target)
        folder, linked = b"", dict[str, bytes]()
        for job in self.plan.all():
            if job.folder != folder:
                folder, linked = job.folder, {}
                os.makedirs(self.target / os.fsdecode(folder), exist_ok=True)
            stem = own + b"/" + folder + b"/" + job.name
            shared = job.template is self.plan.good
            for suffix, text in job.template.files.items():
                made = suffix.startswith((".out.0", ".err.0"))
                if (made and not job.ran) or (shared and (suffix != ".sub") and not (made and outputs)):
                    continue
                path = stem + suffix.encode()
                if shared and suffix in linked:
                    os.link(linked[suffix], path)
                    continue
                with open(path, "wb") as out:
                    out.write(self._here(job.fill(text)))
                if shared:
                    linked[suffix] = path


def _states(wave: list[Placed], start: int) -> Iterator[bytes]:
    rows = [[(state.after, b"%s %s" % (job.name, job.fill(state.rest))) for state in job.template.states] for job in wave]
    for row in zip_longest(*rows):
        for item in row:
            if item is not None:
                yield b"%d %s\n" % (start + item[0], item[1])


def _round_robin(parts: list[list[bytes]], end: bytes = b"") -> Iterator[bytes]:
    for row in zip_longest(*parts):
        for item in row:
            if item is not None:
                yield item + end


def main() -> None:
    """``python -m benchmarks.generate DIRECTORY --jobs N``: a process of its own, so that its memory is nobody else's."""
    parser = argparse.ArgumentParser(description="Write a run directory of N jobs made from recorded ones.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--failed", type=int, help="failed jobs; by default 1 %%")
    parser.add_argument("--no-outputs", action="store_true", help="no .out/.err files of succeeded jobs")
    parser.add_argument("--fixtures", type=Path, default=FAILED_RUNS, help="where the recorded runs lie")
    arguments = parser.parse_args()
    failed = arguments.jobs // 100 if arguments.failed is None else arguments.failed
    generate(arguments.directory.resolve(), arguments.jobs, failed, recorded_runs(arguments.fixtures), not arguments.no_outputs)


if __name__ == "__main__":
    main()
