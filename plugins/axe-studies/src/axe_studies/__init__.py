"""Two processors to copy from: one keeps values, one keeps a table of its own."""

from __future__ import annotations

from .counter import StudyCounter
from .create import CreateStudy

__all__ = ["CreateStudy", "StudyCounter"]
