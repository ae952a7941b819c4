"""One incident, one question: the conversation with the model, from the pack to a diagnosis or "no opinion".

The shape of the conversation is fixed: at most three requests to the menu, one answer, and one more when
the first was refused. Nothing that arrives is believed before :mod:`~doctor.llm.schema` has looked up
every name in it and :mod:`~doctor.llm.check` has held the cited lines against the rules.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from doctor.diagnose.matcher import Matcher
from doctor.llm import cache, prompt
from doctor.llm.budget import DAY, Spent, cost, estimate, exceeded, prices
from doctor.llm.check import Support, judge_support
from doctor.llm.client import Asker, NoReply, Reply
from doctor.llm.config import LlmSettings
from doctor.llm.menu import serve
from doctor.llm.pack import Pack
from doctor.llm.schema import ABSTAIN, ANSWER, MENU, ActionSpec, Checked, Refused, read, tools
from doctor.model import Candidate, Diagnosis, Evidence, Incident, Kind, Opinion, Remedy, Symptom
from doctor.run.reader import Run
from doctor.store import Store

_CEILING = {Support.BORNE: 0.85, Support.OPEN: 0.65}
HEALTHY = "none/none"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of asking: the diagnosis to use instead, or None; and the opinion to report either way.

    ``healthy``: the model says that nothing is wrong, which no failure is ever taken for.
    """

    diagnosis: Diagnosis | None
    opinion: Opinion
    healthy: bool = False


@dataclass(slots=True)
class Classifier:
    """Asks within the budget and keeps what was paid for. ``actions`` are the registered ones by name."""

    settings: LlmSettings
    asker: Asker
    store: Store
    matcher: Matcher
    actions: Mapping[str, ActionSpec]
    clock: Callable[[], float]
    _system: list[dict[str, Any]] = field(default_factory=list)
    _tools: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._system = prompt.system(self.matcher.library, self.actions.values())
        self._tools = tools(self.matcher.library, self.actions.values())

    def first_request(self, pack: Pack) -> dict[str, Any]:
        """Exactly what would be sent first (for ``--show-prompt``)."""
        return self.asker.request(self._system, self._tools, [{"role": "user", "content": prompt.question(pack)}], None)

    def known(self, incident: Incident, pack: Pack, run_key: str) -> Result | None:
        """The kept answer to this pack or failure, if there is one."""
        kept = cache.find(self.store, self.settings.model, pack.digest, run_key, incident.id)
        if kept is None:
            return None
        outcome = "answered" if kept.diagnosis else "abstained"
        return Result(kept.diagnosis, Opinion(incident.id, self.settings.model, outcome, kept.reason, kept=True))

    def classify(self, incident: Incident, pack: Pack, run: Run | None, run_key: str) -> Result:
        """Ask, unless the answer is known. Raises nothing for what provider or model do."""
        kept = self.known(incident, pack, run_key)
        if kept is not None:
            return kept
        digest = pack.digest  # before the menu adds to the pack
        talk = _Talk(self, incident, pack, run, run_key)
        result = talk.hold()
        if result.opinion.outcome != "none":
            cache.keep(self.store, self.settings.model, digest, run_key, incident, cache.Kept(result.diagnosis, result.opinion.reason))
        return result


@dataclass(slots=True)
class _Talk:
    """One conversation under way."""

    parent: Classifier
    incident: Incident
    pack: Pack
    run: Run | None
    run_key: str
    spent: Spent = field(default_factory=Spent)
    seconds: float = 0.0
    requests: int = 0
    refusals: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)

    def hold(self) -> Result:
        self.messages = [{"role": "user", "content": prompt.question(self.pack)}]
        for _ in range(prompt.MENU_REQUESTS + 2):
            reply = self._ask()
            if isinstance(reply, NoReply):
                return self._end("none", reply.reason)
            if reply.stop_reason == "refusal":
                return self._end("abstained", "the model declined to answer")
            if reply.stop_reason in ("max_tokens", "model_context_window_exceeded"):
                return self._end("none", f"the reply was cut off ({reply.stop_reason})")
            ended = self._react(reply)
            if ended is not None:
                return ended
        return self._end("abstained", "the conversation led to no answer")

    # -- sending --------------------------------------------------------------------------------------

    def _ask(self) -> Reply | NoReply:
        parent, settings = self.parent, self.parent.settings
        only = ANSWER if self.requests >= prompt.MENU_REQUESTS or self.refusals or self.run is None else None
        request = parent.asker.request(parent._system, parent._tools, self.messages, only)
        coming = estimate(json.dumps(request, ensure_ascii=False))
        price = prices(settings.model, settings.prices)
        most = Spent(1, coming, settings.output_tokens, dollars=cost(price, 0, settings.output_tokens, coming))
        run = Spent(**parent.store.llm_spent(run=self.run_key)) if self.run_key else Spent()  # a pasted message has no run
        day = Spent(**parent.store.llm_spent(since=parent.clock() - DAY))
        over = exceeded(settings.budget, self.spent, run, day, most)
        if over is not None:
            return NoReply(over)
        reply = parent.asker.ask(request)
        self.spent += reply.spent
        seconds = reply.seconds if isinstance(reply, Reply) else 0.0
        self.seconds += seconds
        self._note(reply, seconds)
        return reply

    def _note(self, reply: Reply | NoReply, seconds: float) -> None:
        spent = reply.spent
        self.parent.store.add_llm_usage(
            {
                "run": self.run_key, "incident": self.incident.id, "model": self.parent.settings.model, "calls": max(spent.calls, 1),
                "sent": spent.sent, "received": spent.received, "cache_written": spent.cache_written, "cache_read": spent.cache_read,
                "dollars": spent.dollars, "seconds": seconds, "outcome": _outcome(reply),
            }
        )  # fmt: skip

    # -- receiving ------------------------------------------------------------------------------------

    def _react(self, reply: Reply) -> Result | None:
        """What follows from a reply: the end, or one more message and None."""
        calls = reply.calls
        if reply.content:
            self.messages.append({"role": "assistant", "content": reply.content})
        call = next((one for one in calls if one.get("name") == ANSWER), calls[0] if calls else None)
        if call is None:
            return self._refused("no tool was called", None, calls)
        try:
            if call.get("name") == ANSWER:
                return self._accept(read(call.get("input"), self.pack, self.parent.matcher.library, self.parent.actions))
            if call.get("name") not in MENU:
                raise Refused("there is no such tool")
            if self.requests >= prompt.MENU_REQUESTS or self.refusals:
                raise Refused("there are no further requests")
        except Refused as refusal:
            return self._refused(str(refusal), call, calls)
        self.requests += 1
        try:
            rows = serve(str(call.get("name")), call.get("input"), self.pack, self.run)
        except Refused as refusal:
            rows = f"-| refused: {refusal}"
        left = prompt.MENU_REQUESTS - self.requests
        self._results(call, calls, prompt.more(self.pack.digest[:16], rows, left), wrong=False)
        return None

    def _refused(self, reason: str, call: dict[str, Any] | None, calls: list[dict[str, Any]]) -> Result | None:
        self.refusals += 1
        if self.refusals > 1:
            return self._end("abstained", f"its answer was refused twice: {reason}")
        if call is None:
            self.messages.append({"role": "user", "content": prompt.again(reason)})
        else:
            self._results(call, calls, prompt.again(reason), wrong=True)
        return None

    def _results(self, call: dict[str, Any], calls: list[dict[str, Any]], text: str, wrong: bool) -> None:
        blocks = [
            {"type": "tool_result", "tool_use_id": one.get("id"), "content": text if one is call else "not carried out: one call at a time",
             "is_error": wrong or one is not call}
            for one in calls
        ]  # fmt: skip
        self.messages.append({"role": "user", "content": blocks})

    # -- the end --------------------------------------------------------------------------------------

    def _accept(self, answer: Checked) -> Result:
        if answer.cause == ABSTAIN:
            return self._end("abstained", answer.explanation[:300] or "the model sees no proven cause")
        if answer.cause == HEALTHY:
            return replace(self._end("abstained", "the model sees nothing wrong"), healthy=True)
        judged = judge_support(answer.cause, self.pack.cited(answer.evidence), self.parent.matcher)
        if judged.support is Support.AGAINST:
            raise Refused(f"evidence: {judged.reason}")
        made = diagnosis(self.incident, answer, self.pack, self.parent, min(answer.confidence, _CEILING[judged.support]))
        if made.confidence < self.incident.diagnosis.confidence and made.cause != self.incident.diagnosis.cause:
            return self._end("abstained", f"it would say {made.cause}, and is less sure ({made.confidence:.0%}) than the rules")
        return self._end("answered", judged.reason, made)

    def _end(self, outcome: str, reason: str, made: Diagnosis | None = None) -> Result:
        spent = self.spent
        opinion = Opinion(
            self.incident.id, self.parent.settings.model, outcome, reason, False, spent.calls, spent.sent, spent.received,
            spent.cache_read, spent.dollars, self.seconds,
        )  # fmt: skip
        return Result(made, opinion)


def _outcome(reply: Reply | NoReply) -> str:
    if isinstance(reply, NoReply):
        return "failed"
    if reply.stop_reason in ("refusal", "max_tokens", "model_context_window_exceeded"):
        return "failed"
    answers = [call for call in reply.calls if call.get("name") == ANSWER and isinstance(call.get("input"), dict)]
    return "abstained" if not answers or answers[0]["input"].get("cause") == ABSTAIN else "answered"


def diagnosis(incident: Incident, answer: Checked, pack: Pack, parent: Classifier, confidence: float) -> Diagnosis:
    """A checked answer as a diagnosis; what the rules had thought stays visible under ``ruled_out``."""
    old, library = incident.diagnosis, parent.matcher.library
    info = library.causes[answer.cause]
    culprit = pack.jobs.get(answer.culprit, old.culprit)
    if (culprit.job, culprit.attempt) == (old.culprit.job, old.culprit.attempt):
        culprit = old.culprit  # which also knows the host
    evidence = tuple(pack.cited(answer.evidence))
    chain = " -> ".join(says for _, says in answer.chain)
    before = old.evidence[0] if old.evidence else Evidence("", None, "", Kind.RUN)
    ruled_out = old.ruled_out
    if old.cause != answer.cause:
        why = f"the rules were only {old.confidence:.0%} sure; the model reads the lines otherwise"
        ruled_out = (Candidate(old.cause, old.decided_by, before, why), *old.ruled_out)[:10]
    cited = {one.text for one in evidence}
    symptoms = (*old.symptoms, *(Symptom(culprit.job, one.text, one.file, one.line) for one in old.evidence[:2] if one.text not in cited))
    remedies: tuple[Remedy, ...] = ()
    if answer.action is not None:
        name, params = answer.action
        known = library.actions.get(name)
        if known is not None:
            remedies = (Remedy(name, {"job": culprit.job, **params}, known.risk, known.summary),)
    return replace(
        old,
        cause=answer.cause,
        confidence=round(max(0.05, confidence), 2),
        decided_by=f"llm:{parent.settings.model}",
        culprit=culprit,
        summary=info.definition.rstrip("."),
        explanation=answer.explanation + (f" Chain: {chain}." if chain else ""),
        evidence=evidence[:6],
        symptoms=symptoms[:12],
        remedies=remedies,
        ruled_out=ruled_out,
        advice=answer.advice or info.advice,
    )
