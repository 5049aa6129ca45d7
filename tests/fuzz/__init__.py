"""Inputs that nobody would write: for an hour by hand, ``python -m tests.fuzz --minutes 60``, a minute in the tests."""
