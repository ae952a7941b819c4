"""What of an incident goes into its pack, in which order, and how much of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from doctor.diagnose.evidence import Facts, describe, gather, post_script, run_logs
from doctor.diagnose.verdict import culprit_of
from doctor.llm.lines import choose
from doctor.llm.pack import Pack, Piece
from doctor.llm.redact import Redactor
from doctor.model import Culprit, Incident, JobState, Kind, Line
from doctor.run.dataflow import inputs, is_auxiliary, outputs
from doctor.run.reader import Job, Run

_ORDER = (Kind.STDERR, Kind.STDOUT, Kind.TRANSFER, Kind.INTEGRITY, Kind.LITE, Kind.STATUS, Kind.HOLD, Kind.EVENT, Kind.PLANNER,
          Kind.EXITCODE, Kind.DAGMAN)  # fmt: skip
_TITLES = {
    Kind.STDERR: "standard error of the program", Kind.STDOUT: "standard output of the program",
    Kind.TRANSFER: "file transfers (pegasus-transfer)", Kind.INTEGRITY: "integrity checks", Kind.LITE: "the wrapper (PegasusLite)",
    Kind.STATUS: "how the program ended", Kind.HOLD: "why HTCondor held the job", Kind.EVENT: "other events of the job",
    Kind.PLANNER: "the planner's log", Kind.EXITCODE: "pegasus-exitcode's verdict", Kind.DAGMAN: "DAGMan and monitord",
}  # fmt: skip
#: kind -> head, tail, complaints, bytes
_SHARES = {
    Kind.STDERR: (8, 30, 8, 4200), Kind.STDOUT: (5, 12, 5, 2000), Kind.TRANSFER: (3, 10, 6, 2200), Kind.INTEGRITY: (2, 6, 4, 900),
    Kind.LITE: (0, 8, 4, 900), Kind.PLANNER: (3, 16, 8, 2400), Kind.DAGMAN: (2, 14, 6, 1800),
}  # fmt: skip
_COMMANDS = ("universe", "executable", "arguments", "request_cpus", "request_memory", "request_disk", "request_gpus", "requirements",
             "transfer_input_files", "transfer_output_files", "+maxwalltime", "+pegasus_wf_xformation")  # fmt: skip
_FEW = 8


def find_job(run: Run, name: str, workflow: str = "") -> Job | None:
    """The job of that name in the tree of workflows, the one of the named workflow first."""
    parts = [part for part in run.tree() if part.dag.nodes([name]).get(name)]
    best = [part for part in parts if workflow in (part.name, part.identity.dax_label)] or parts
    return best[0].job(name) if name and best else None


def incident_pack(incident: Incident, run: Run, redactor: Redactor, limit: int, *, rules: bool = True) -> Pack:
    """The pack of one incident: of its culprit's latest attempt, or of the run where no job is to blame.

    ``rules`` False leaves out what the rules thought (for evaluating the model alone).
    """
    pack = Pack(redactor, limit)
    diagnosis = incident.diagnosis
    victim = find_job(run, incident.jobs[0], diagnosis.culprit.workflow) if incident.jobs else None
    culprit = find_job(run, diagnosis.culprit.job, diagnosis.culprit.workflow) if diagnosis.culprit.job else None
    job = culprit or victim
    if job is None or not job.attempts:
        _of_run(pack, run)
    else:
        job_pack(pack, job)
        if victim is not None and victim.name != job.name and victim.attempts:
            pack.job(_culprit(victim), "failed too, it seems because of the first job")
            _channels(pack, gather(victim, victim.attempts[-1]), share=0.35, title="of the job that failed because of it: ")
    if rules:
        _what_the_rules_thought(pack, incident)
    if len(incident.jobs) > 1:
        pack.aside(f"{len(incident.jobs)} jobs have failed in this way so far")
    return pack


def job_pack(pack: Pack, job: Job) -> None:
    """Everything about one attempt of one job."""
    facts = gather(job, job.attempts[-1])
    if not any(channel.lines for channel in facts.channels):
        facts.channels += [*post_script(facts), *run_logs(job.run)]
    pack.heading("The job")
    number = pack.job(_culprit(job), f"transformation {job.submit.transformation or 'unknown'}, {job.state.value}")
    pack.fact(f"{number}: attempt {facts.attempt.index}, site {job.submit.site or 'unknown'}, data staged by "
              f"{'PegasusLite' if facts.lite.present else 'other jobs'}")  # fmt: skip
    _channels(pack, facts)
    _record(pack, facts)
    _submit(pack, job)
    _dataflow(pack, job, number)


def _culprit(job: Job) -> Culprit:
    return culprit_of(job, job.attempts[-1].index if job.attempts else 0, "")


def _channels(pack: Pack, facts: Facts, share: float = 1.0, title: str = "") -> None:
    for kind in _ORDER:
        head, tail, loud, room = _SHARES.get(kind, (2, 6, 3, 900))
        for channel in [one for one in facts.channels if one.kind is kind and one.lines][:3]:
            pack.add(Piece(title + _TITLES[kind], channel.file, kind, tuple(choose(channel.lines, head, tail, loud)), int(room * share)))


def _record(pack: Pack, facts: Facts) -> None:
    record = facts.record
    if record is None:
        return
    rows: list[Line] = []
    if facts.step.failed:
        rows.append(Line(f"the program ended with {describe(facts.step)}", facts.step.line))
    else:
        rows.append(Line("the program ended with exit code 0", facts.step.line))
    rows += [Line(f"after the program had ended, {fact.lfn} was not there", fact.line) for fact in record.missing()[:_FEW]]
    if record.executable:
        rows.append(
            Line(
                f"executable: {record.executable}" + (f" (error {record.executable_error})" if record.executable_error else ""), record.line
            )
        )
    if record.maxrss_kb:
        rows.append(
            Line(f"memory used at most {record.maxrss_kb // 1024} MB, the machine has {record.ram_total_kb // 1024} MB", record.line)
        )
    pack.add(Piece("what kickstart recorded", facts.out_name, Kind.STATUS, tuple(rows), 1200, tail=False))


def _submit(pack: Pack, job: Job) -> None:
    submit = job.submit
    rows = [Line(f"{key} = {submit.get(key)[:240]}", submit.line_of.get(key)) for key in _COMMANDS if submit.get(key)]
    pack.add(Piece("what the job asked for (submit file)", submit.file, Kind.SUBMIT, tuple(rows), 1500, tail=False))


def _dataflow(pack: Pack, job: Job, number: str) -> None:
    pack.heading("Its place in the dataflow")
    for word, names in (("reads", sorted(inputs(job))), ("is to write", sorted(outputs(job)))):
        if names:
            pack.fact(f"{number} {word} {_list(names)}")
    around: list[tuple[str, Sequence[str]]] = [("runs before", job.node.parents), ("runs after", job.node.children)]
    for word, others in around:
        chosen = job.run.jobs(list(others)[: _FEW * 3])
        for other in sorted(chosen, key=lambda one: (is_auxiliary(one), one.state is JobState.SUCCEEDED, one.name))[: _FEW // 2]:
            files = sorted(outputs(other)) if word == "runs before" else []
            made = f", writes {_list(files)}" if files else ""
            pack.job(_culprit(other), f"{word} {number}, {other.state.value}{made}")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")


def _of_run(pack: Pack, run: Run) -> None:
    pack.heading("The run as a whole; no job is to blame so far")
    for channel in run_logs(run):
        pack.add(Piece(_TITLES.get(channel.kind, "log"), channel.file, channel.kind, tuple(choose(channel.lines, 4, 30, 8)), 3000))
    log = run.dagman
    pack.add(Piece("DAGMan's log", log.file, Kind.DAGMAN, tuple(choose(log.lines, 4, 30, 8)), 4000))


def _what_the_rules_thought(pack: Pack, incident: Incident) -> None:
    diagnosis = incident.diagnosis
    pack.heading("What the rules thought (not evidence)")
    pack.fact(f"{diagnosis.cause}, confidence {diagnosis.confidence:.2f}, by {diagnosis.decided_by}")
    for candidate in diagnosis.ruled_out[:4]:
        pack.fact(f"considered {candidate.cause} for: {candidate.evidence.text}")
    for file, lines in _by_file(incident):  # what they found and the pack lacks so far
        pack.add(Piece("found by the rules", file, lines[0][1], tuple(line for line, _ in lines), 1200))


def _by_file(incident: Incident) -> Iterator[tuple[str, list[tuple[Line, Kind]]]]:
    groups: dict[tuple[str, Kind], list[tuple[Line, Kind]]] = {}
    for one in incident.diagnosis.evidence:
        groups.setdefault((one.file, one.kind), []).append((Line(one.text, one.line), one.kind))
    yield from ((file, lines) for (file, _), lines in groups.items())


def add_history(pack: Pack, past: Iterable[str]) -> None:
    """How similar incidents of this site ended; told after the pack."""
    for text in past:
        pack.aside(f"earlier, on this site: {text}")


def run_names(run: Run, local: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """User and host names that the run and this machine tell."""
    names = list(local)
    for part in run.tree():
        names += [("USER", part.identity.user), *host_names(part.identity.submit_hostname)]
    return list(dict.fromkeys(names))


def host_names(name: str) -> list[tuple[str, str]]:
    """A host name with and without its domain."""
    return [("HOST", name), ("HOST", name.split(".", maxsplit=1)[0])] if name else []
