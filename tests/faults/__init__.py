"""Faults, and the oracle that judges what is left after them."""
