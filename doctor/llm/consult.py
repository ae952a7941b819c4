"""The model's place beside the rules: it is asked about what they left uncertain, one question per failure.

A :class:`Consultant` is a function from a report to a report. ``analyze --llm`` calls it, and the loop
and the daemon can call the very same (:mod:`doctor.llm.wiring`). Whatever goes wrong, the report that
comes back is at least the one that went in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from doctor.errors import DoctorError
from doctor.llm.classify import Classifier, Result
from doctor.llm.pack import Pack
from doctor.llm.redact import Redactor
from doctor.llm.sections import add_history, incident_pack, run_names
from doctor.model import Incident, Opinion, Report
from doctor.run.reader import Run
from doctor.statedir import run_key


@dataclass(slots=True)
class Consultant:
    """``local``: user and host names of this machine. ``floor``: incidents below this confidence are asked about."""

    classifier: Classifier
    local: Sequence[tuple[str, str]] = ()
    floor: float | None = None
    _told: dict[tuple[str, str], Result] = field(default_factory=dict)

    def __call__(self, report: Report, run: Run) -> Report:
        """The report with the model's diagnoses in place of uncertain ones, and its opinions beside them."""
        key = run_key(report.run.submit_dir)
        incidents, opinions = list(report.incidents), list(report.opinions)
        for place, incident in enumerate(incidents):
            if not self.uncertain(incident):
                continue
            result = self._one(incident, run, key)
            opinions.append(result.opinion)
            if result.diagnosis is not None:
                incidents[place] = replace(incident, diagnosis=result.diagnosis)
        return replace(report, incidents=tuple(incidents), opinions=tuple(opinions))

    def uncertain(self, incident: Incident) -> bool:
        """Whether the rules left it below the configured floor."""
        floor = self.classifier.settings.confidence if self.floor is None else self.floor
        return incident.diagnosis.confidence < floor and not incident.diagnosis.by_model

    def _one(self, incident: Incident, run: Run, key: str) -> Result:
        told = self._told.get((key, incident.id))
        if told is not None:
            return replace(
                told, opinion=replace(told.opinion, kept=True, calls=0, sent=0, received=0, cache_read=0, dollars=0.0, seconds=0.0)
            )
        try:
            result = self.classifier.classify(incident, self.pack(incident, run, key), run, key)
        except DoctorError as problem:
            result = self._nothing(incident, str(problem))
        except Exception as bug:  # noqa: BLE001 - an opinion that fails must never cost the analysis
            result = self._nothing(incident, f"internal error: {type(bug).__name__}")
        if result.opinion.outcome != "none":
            self._told[key, incident.id] = result
        return result

    def _nothing(self, incident: Incident, reason: str) -> Result:
        return Result(None, Opinion(incident.id, self.classifier.settings.model, "none", reason))

    def pack(self, incident: Incident, run: Run, key: str) -> Pack:
        """What the model is shown of an incident."""
        redactor = Redactor(run_names(run, [*self.local, ("HOST", incident.diagnosis.culprit.host)]))
        pack = incident_pack(incident, run, redactor, self.classifier.settings.pack_tokens)
        add_history(pack, self._history(incident, key))
        return pack

    def _history(self, incident: Incident, key: str) -> Iterator[str]:
        store = self.classifier.store
        for row in store.past_incidents(incident.id, incident.diagnosis.cause, key):
            known = row.incident.diagnosis
            yield (
                f"{row.incident.category}/{row.incident.cause} of {known.culprit.transformation or 'a job'}"
                f" ({known.evidence[0].text[:120] if known.evidence else known.summary[:120]}), {row.stage.value}"
                + (f": {row.reason[:120]}" if row.reason else "")
                + (f"; tried {', '.join(store.tried_actions(row.id))}" if store.tried_actions(row.id) else "")
            )

    def requests(self, report: Report, run: Run) -> Iterator[tuple[Incident, dict[str, Any]]]:
        """For every uncertain incident the request that would be sent first."""
        key = run_key(report.run.submit_dir)
        for incident in report.incidents:
            if self.uncertain(incident):
                yield incident, self.classifier.first_request(self.pack(incident, run, key))
