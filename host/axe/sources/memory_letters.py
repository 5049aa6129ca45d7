"""Dead letters in a topic in memory: for tests."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..errors import SourceError
from . import Outgoing, Report
from .memory import MemoryLog, MemorySource


class MemoryLetters:
    """A topic of a log in memory; see the protocol ``LetterTopic``. The topic has to be there."""

    def __init__(self, log: MemoryLog, name: str) -> None:
        self._log = log
        self._name = name
        self._reports: list[Report] = []

    def send(self, letters: Iterable[Outgoing]) -> None:
        """Append letters at once, where that is possible."""
        for letter in letters:
            problem = self._problem()
            if problem is None:
                self._log.append(self._name, letter.value, letter.key, letter.headers)
            self._reports.append(Report(letter.number, problem))

    def _problem(self) -> str | None:
        try:
            MemorySource(self._log).partitions(self._name)
        except SourceError as error:
            return str(error)
        return None

    def reports(self, timeout_s: float = 0) -> list[Report]:
        """Tell what became of what was sent."""
        found, self._reports = self._reports, []
        if not found:
            time.sleep(timeout_s)
        return found

    def close(self) -> None:
        """Forget what was not asked for."""
        self._reports = []
