"""From the facts of one failed attempt to a verdict."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.diagnose.choose import Scored, context, last_words, rank_findings
from doctor.diagnose.evidence import Facts, describe, post_script, run_logs
from doctor.diagnose.matcher import Matcher
from doctor.diagnose.structure import refine
from doctor.diagnose.verdict import Verdict, normalise
from doctor.model import Candidate, Evidence, Kind, Strength
from doctor.run.dataflow import inputs, outputs
from doctor.run.nearby import Nearby

OUTPUT_MISSING = "user-code/declared-output-not-produced"
APPLICATION_ERROR = "user-code/application-error"
_CONFIDENCE = {Strength.SPECIFIC: 0.9, Strength.GENERAL: 0.65, Strength.WEAK: 0.4}
_PROGRAM = (Kind.STDERR, Kind.STDOUT, Kind.STATUS)
_WRAPPER = (Kind.TRANSFER, Kind.LITE, Kind.INTEGRITY)


def judge(facts: Facts, matcher: Matcher, nearby: Nearby) -> Verdict:
    """The cause of this attempt's failure; ``user-code/application-error`` with low confidence at worst."""
    ranked = [one for one in rank_findings(facts, matcher) if not _is_symptom(one, facts)]
    if not ranked and not last_words(facts):  # the attempt left nothing: what do the POST script and DAGMan say?
        facts.channels += post_script(facts)
        facts.channels += run_logs(facts.job.run)
        ranked = rank_findings(facts, matcher)
    verdict = _silent_output(facts, ranked) or _best(facts, ranked) or _fallback(facts)
    _missing_inputs(verdict)
    if verdict.finding is not None:
        verdict.ruled_out.extend(_others(verdict, ranked))
    refine(verdict, nearby)
    return verdict


def _is_symptom(one: Scored, facts: Facts) -> bool:
    """Findings that only show the consequences of a failure that the same attempt explains better."""
    finding, task = one.finding, facts.task_exit
    kind, cause = finding.evidence.kind, finding.cause
    if task and kind in (Kind.HOLD, Kind.EVENT) and cause in (OUTPUT_MISSING, "staging/input-missing", "staging/transfer-failed"):
        return True
    staging_out = facts.lite.stage_lines.get("stage-out")
    if task and not facts.transfer_job and kind in _WRAPPER and staging_out is not None and (finding.evidence.line or 0) > staging_out:
        return True  # stage-out after a failed task: its outputs are missing
    return task == 0 and kind in _PROGRAM and not facts.transfer_job and facts.lite.step_failed


def _silent_output(facts: Facts, ranked: list[Scored]) -> Verdict | None:
    """The program ended with 0 and a declared output is not there: that is the cause itself."""
    if facts.task_exit != 0 or facts.transfer_job:
        return None
    record = facts.record
    declared = outputs(facts.job)
    missing = [fact for fact in record.missing() if fact.lfn in declared] if record else []
    held = facts.hold is not None and facts.hold.code == 12 and facts.hold.subcode == 2
    staged = [one for one in ranked if facts.lite.stage == "stage-out" and one.finding.cause == "staging/input-missing"]
    if not (missing or held or staged):
        return None
    verdict = Verdict(facts, OUTPUT_MISSING, 0.93 if missing else 0.85, "structure:output-missing")
    if missing:
        verdict.evidence += [
            Evidence(facts.out_name, fact.line, f"{fact.lfn}: error 2 (no such file) after exit code 0", Kind.STATUS)
            for fact in missing[:5]
        ]
        verdict.subject = ", ".join(fact.lfn for fact in missing[:5])
    verdict.evidence += [one.finding.evidence for one in staged[:2]]
    if held and facts.hold is not None and not missing:
        run = facts.job.run
        verdict.evidence.append(
            Evidence(run.files.name(run.directory / run.identity.condor_log), facts.hold.line or None, facts.hold.text, Kind.HOLD)
        )
    verdict.reasons.append("The program ended with exit code 0, but an output that the workflow declares is not there.")
    return verdict


def _missing_inputs(verdict: Verdict) -> None:
    """Kickstart saw that a declared input was not there: that explains what only a general rule explains."""
    facts = verdict.facts
    record = facts.record
    sure = verdict.confidence >= 0.7 or verdict.cause == OUTPUT_MISSING
    if sure or record is None or facts.transfer_job or not record.missing():
        return
    declared, made = inputs(facts.job), outputs(facts.job)
    lost = [fact for fact in record.missing() if fact.lfn in declared and fact.lfn not in made]
    if not lost:
        return
    verdict.evidence += [
        Evidence(facts.out_name, fact.line, f"{fact.lfn}: error 2 (no such file): a declared input", Kind.STATUS) for fact in lost[:3]
    ]
    verdict.change(
        "staging/input-missing", "structure:input-missing", 0.8, f"The declared input {lost[0].lfn} was not there when the job ran."
    )
    verdict.subject = lost[0].lfn
    verdict.finding = None


def _best(facts: Facts, ranked: list[Scored]) -> Verdict | None:
    if not ranked or ranked[0].score < 20:
        return None
    best = ranked[0].finding
    verdict = Verdict(facts, best.cause, _confidence(ranked), f"rule:{best.rule}", finding=best, captures=dict(best.captures))
    verdict.evidence = [best.evidence, *_supporting(best.cause, best.evidence, ranked)]
    if best.cause == APPLICATION_ERROR:  # the last exception says more than the line that told that there was one
        verdict.evidence = last_words(facts) + verdict.evidence
    verdict.subject = _subject(facts, best.rule, best.captures)
    words = last_words(facts) if best.evidence.kind is Kind.STATUS or ranked[0].score < 60 else []
    verdict.evidence += words or context(facts, best.evidence)
    if facts.step.failed and best.evidence.kind is not Kind.STATUS:
        verdict.evidence.append(Evidence(facts.out_name, facts.step.line, describe(facts.step), Kind.STATUS))
        if not facts.transfer_job:
            verdict.reasons.append(f"The program ended with {describe(facts.step)} and left this line.")
    return verdict


def _subject(facts: Facts, rule: str, captures: dict[str, str]) -> str:
    for name in ("module", "path", "file", "lfn", "command", "library", "host", "url", "image", "package"):
        if captures.get(name):
            return captures[name].strip("'\"")
    return next(iter(captures.values()), "").strip("'\"") if captures else ""


def _confidence(ranked: list[Scored]) -> float:
    """From the strength of the best finding, lowered when another cause is nearly as good."""
    best = ranked[0]
    confidence = _CONFIDENCE[best.finding.strength]
    rival = next((one for one in ranked[1:] if one.finding.cause != best.finding.cause), None)
    if rival is not None and best.score - rival.score < 6:
        confidence -= 0.1
    if best.score < 60:
        confidence = min(confidence, 0.45)
    return confidence


def _supporting(cause: str, first: Evidence, ranked: list[Scored]) -> Iterator[Evidence]:
    seen = {normalise(first.text.strip())}
    for one in ranked[1:]:
        text = normalise(one.finding.evidence.text.strip())
        if one.finding.cause == cause and text not in seen and len(seen) < 3:
            seen.add(text)
            yield one.finding.evidence


def _others(verdict: Verdict, ranked: list[Scored]) -> Iterator[Candidate]:
    seen = {verdict.cause}
    for one in ranked:
        if one.finding.cause not in seen:
            seen.add(one.finding.cause)
            yield Candidate(one.finding.cause, f"rule:{one.finding.rule}", one.finding.evidence, "another line explains the failure better")


def _fallback(facts: Facts) -> Verdict:
    """No rule matched: the best lines of the program, and low confidence; never silence."""
    words = last_words(facts)
    if (facts.lite.step_failed and not facts.task_exit) or facts.transfer_job:
        cause = {"integrity": "integrity/checksum-mismatch", "worker-package": "dependency/worker-package-mismatch"}.get(
            facts.lite.stage, "staging/transfer-failed"
        )
        where = f"PegasusLite failed in its stage {facts.lite.stage!r}" if facts.lite.step_failed else "The transfer job failed"
        verdict = Verdict(facts, cause, 0.4, "structure:failed-stage")
        verdict.reasons.append(f"{where}; no rule knows the message.")
    else:
        verdict = Verdict(facts, APPLICATION_ERROR, 0.35, "structure:last-words")
        ended = (
            describe(facts.step)
            if facts.step.failed
            else (f"exit code {facts.task_exit}" if facts.task_exit is not None else "no recorded status")
        )
        verdict.reasons.append(
            f"No rule matches; the program ended with {ended}." + (" These are its last words." if words else " It left no message.")
        )
    verdict.evidence += words
    if facts.step.failed:
        verdict.evidence.append(Evidence(facts.out_name, facts.step.line, describe(facts.step), Kind.STATUS))
    if not verdict.evidence:
        verdict.evidence += _last_state(facts)
    return verdict


def _last_state(facts: Facts) -> list[Evidence]:
    if facts.hold is not None and facts.hold.text:
        run = facts.job.run
        return [Evidence(run.files.name(run.directory / run.identity.condor_log), facts.hold.line or None, facts.hold.text, Kind.HOLD)]
    line = facts.attempt.last("POST_SCRIPT_FAILURE", "JOB_FAILURE", "PRE_SCRIPT_FAILURE", "JOB_ABORTED", "SUBMIT_FAILED", "JOB_HELD")
    if line is None:
        return []
    return [Evidence(facts.log_name(), line.number, f"{facts.job.name} {line.state} {line.value}", Kind.EXITCODE)]
