"""Jobs that succeeded with results that nobody should trust: a cheap, bounded second look.

Only texts that rules of the category ``silent`` name count, and declared outputs of size zero. The
outcome is a warning, never an incident.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from doctor.diagnose.matcher import Matcher
from doctor.model import Channel, Evidence, Finding, JobState, Kind, RunWarning
from doctor.run.dataflow import is_auxiliary, outputs
from doctor.run.kickstart import parse_output
from doctor.run.lite import parse_lite
from doctor.run.reader import Job, Run

FEW = 400  # succeeded jobs up to which the pass is on by default
_HEAD, _TAIL = 64 << 10, 128 << 10


def scan(run: Run, matcher: Matcher, mode: str) -> list[RunWarning]:
    """Warnings, those with most jobs first. ``mode``: auto (when the jobs are few), all, off."""
    if mode == "off":
        return []
    parts = list(run.tree())
    total = sum(part.counts.succeeded for part in parts)
    if mode == "auto" and total > FEW:
        return []
    groups: dict[tuple[str, str], tuple[list[str], list[Evidence]]] = {}
    sizes: dict[str, int] = {}
    for part in parts:
        for job in part.jobs(part.history.names(JobState.SUCCEEDED)):
            if is_auxiliary(job) or job.name in part.dag.sub_workflows:
                continue
            transformation = job.submit.transformation
            sizes[transformation] = sizes.get(transformation, 0) + 1
            for cause, evidence in _look(job, matcher):
                names, lines = groups.setdefault((cause, transformation), ([], []))
                if job.name not in names:
                    names.append(job.name)
                lines.append(evidence)
    made = [
        _warning(cause, transformation, names, lines, sizes[transformation], matcher)
        for (cause, transformation), (names, lines) in groups.items()
    ]
    return sorted(made, key=lambda one: (-len(one.jobs), one.cause))


def _warning(cause: str, transformation: str, names: list[str], lines: list[Evidence], total: int, matcher: Matcher) -> RunWarning:
    info = matcher.library.causes[cause]
    what = info.definition.rstrip(".").replace("The job succeeded", "succeeded")
    summary = f"{len(names):,} of {total:,} {transformation or 'compute'} job{'s' if total != 1 else ''} {what}"
    return RunWarning(cause, summary, tuple(names), tuple(lines[:5]), info.advice)


def _look(job: Job, matcher: Matcher) -> Iterator[tuple[str, Evidence]]:
    found: dict[str, Finding] = {}
    for channel in _channels(job):
        for finding in matcher.match(channel):
            if finding.cause.startswith("silent/"):
                known = found.get(finding.cause)
                if known is None or finding.strength.order > known.strength.order:
                    found[finding.cause] = finding
    for cause, finding in found.items():
        yield cause, finding.evidence
    if "silent/empty-output" not in found:
        yield from _empty_outputs(job)


def _channels(job: Job) -> Iterator[Channel]:
    files = job.outputs()
    if not files:
        return
    reader, newest = job.run.files, files[-1]
    if newest.out:
        text = reader.text(newest.out, _HEAD, _TAIL)
        output = parse_output(text.lines)
        for record in output.records[:20]:
            yield Channel(Kind.STDOUT, text.file, tuple(record.stdout))
            yield Channel(Kind.STDERR, text.file, tuple(record.stderr))
        yield Channel(Kind.STDOUT, text.file, tuple(output.stray))
    if newest.err:
        text = reader.text(newest.err, _HEAD, _TAIL)
        lite = parse_lite(text.lines)
        yield Channel(Kind.STDERR, text.file, (*lite.before, *lite.task))


def _empty_outputs(job: Job) -> Iterator[tuple[str, Evidence]]:
    files = job.outputs()
    if not files or not files[-1].out:
        return
    text = job.run.files.text(files[-1].out, _HEAD, _TAIL)
    declared = outputs(job)
    for record in parse_output(text.lines).records[:20]:
        for fact in record.files.values():
            if fact.size == 0 and os.path.basename(fact.lfn) in declared:
                yield "silent/empty-output", Evidence(text.file, fact.line, f"{fact.lfn}: size 0 bytes", Kind.STATUS)
                return
