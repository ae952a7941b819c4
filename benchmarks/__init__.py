"""Measurements of pegasus-doctor against pegasus-analyzer, both in the same run: ``python -m benchmarks``.

Run directories of any size are made from real failed jobs that lie under ``fixtures/``.
"""
