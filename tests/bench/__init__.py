"""Measurements, run by hand: ``python -m tests.bench count`` from the top of the repository."""
