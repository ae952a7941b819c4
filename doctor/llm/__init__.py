"""The language model's opinion on what no rule explains: grounded, private, bounded, and never in command.

Nothing in this package acts. What it returns are records (:class:`doctor.model.Diagnosis`, an
:class:`~doctor.model.Opinion`) that the same guards judge as everything else, and a decision of
``llm:<model>`` is never above "ask" (:mod:`doctor.loop.guards`).
"""
