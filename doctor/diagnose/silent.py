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
from doctor.run.kickstart import Output, parse_output
from doctor.run.lite import parse_lite
from doctor.run.reader import Job, Run

FEW = 400  # succeeded jobs up to which the pass is on by default
_HEAD, _TAIL = 64 << 10, 128 << 10
_RECORDS = 20  # kickstart records of one job that are looked at


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
    files = job.outputs()
    if not files:
        return
    reader, newest = job.run.files, files[-1]
    text = reader.text(newest.out, _HEAD, _TAIL) if newest.out else None
    output = parse_output(text.lines) if text is not None else None
    channels: list[Channel] = []
    if text is not None and output is not None:
        for record in output.records[:_RECORDS]:
            channels.append(Channel(Kind.STDOUT, text.file, tuple(record.stdout)))
            channels.append(Channel(Kind.STDERR, text.file, tuple(record.stderr)))
        channels.append(Channel(Kind.STDOUT, text.file, tuple(output.stray)))
    if newest.err:
        words = reader.text(newest.err, _HEAD, _TAIL)
        lite = parse_lite(words.lines)
        channels.append(Channel(Kind.STDERR, words.file, (*lite.before, *lite.task)))
    found = _findings(channels, matcher)
    for cause, finding in found.items():
        yield cause, finding.evidence
    if text is not None and output is not None and "silent/empty-output" not in found:
        yield from _empty_output(job, text.file, output)


def _findings(channels: list[Channel], matcher: Matcher) -> dict[str, Finding]:
    """The strongest finding for each silent cause."""
    found: dict[str, Finding] = {}
    for channel in channels:
        for finding in matcher.match(channel):
            if finding.cause.startswith("silent/"):
                known = found.get(finding.cause)
                if known is None or finding.strength.order > known.strength.order:
                    found[finding.cause] = finding
    return found


def _empty_output(job: Job, file: str, output: Output) -> Iterator[tuple[str, Evidence]]:
    """The first declared output of size zero, as kickstart measured it."""
    declared = outputs(job)
    for record in output.records[:_RECORDS]:
        for fact in record.files.values():
            if fact.size == 0 and os.path.basename(fact.lfn) in declared:
                yield "silent/empty-output", Evidence(file, fact.line, f"{fact.lfn}: size 0 bytes", Kind.STATUS)
                return
