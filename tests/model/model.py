"""The model: what a log of events has to come to, in plain Python that knows nothing of axe.

An event is a dict that says what to do and how it ends; ``OPS`` and ``fates`` are the whole meaning of it. The model
follows the stored positions: what is behind one took effect, in order, once; what is not, did not.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

At = tuple[str, int]
Spec = dict[str, Any]

ALWAYS = 99
WORKERS_UNTIL_FAILURE = 3
WANTED = "wanted"


class Entry(NamedTuple):
    """One record of the log, and what it stands for."""

    offset: int
    spec: Spec
    raw: bytes | None
    wanted: bool


class Policy(NamedTuple):
    """How a worker is set up, as far as it matters for what becomes of events."""

    on_failure: str
    retries: int
    flood: int | None
    mended: bool


class Fate(NamedTuple):
    """What becomes of an event: applied, refused, or the worker stops or pauses at it; after how many attempts."""

    end: str
    attempts: int = 1
    failures: int = 0


def fails(spec: Spec, policy: Policy) -> int:
    return 0 if policy.mended else int(spec.get("fails", 0))


def kills(spec: Spec, policy: Policy) -> int:
    return 0 if policy.mended else int(spec.get("kills", 0))


def in_peace(spec: Spec, policy: Policy) -> Fate:
    """Tell what becomes of an event that is tried until it is settled, with nobody in between."""
    if spec.get("form") == "junk":
        return Fate("refused")
    asked_at, answer = spec.get("answer", (0, "retry"))
    failures = fails(spec, policy)
    for attempt in range(1, failures + 1):
        default = "retry" if attempt <= policy.retries else policy.on_failure
        decision = answer if attempt == asked_at else default
        if decision != "retry":
            return Fate("refused" if decision == "reject" else decision, attempt, attempt)
    return Fate("refused" if spec.get("end") == "reject" else "applied", failures + 1, failures)


def in_unrest(spec: Spec, policy: Policy, deaths: int) -> set[str]:
    """Tell what may become of an event whose attempts anybody may have cut short."""
    possible = {in_peace(spec, policy).end}
    if (failures := fails(spec, policy)) or deaths >= WORKERS_UNTIL_FAILURE:
        if failures < ALWAYS:
            possible.add("refused" if spec.get("end") == "reject" else "applied")
        for decision in (policy.on_failure, spec.get("answer", (0, "retry"))[1]):
            possible.add("refused" if decision == "reject" else decision)
    return possible - {"retry"}


def first_flood(fates: Iterable[Fate], policy: Policy) -> int | None:
    """Find the refusal at which more than half of the latest events were refused."""
    latest: deque[bool] = deque(maxlen=policy.flood or 1)
    for index, fate in enumerate(fates):
        latest.append(fate.end == "refused")
        if policy.flood and latest[-1] and len(latest) == policy.flood and sum(latest) > policy.flood / 2:
            return index
    return None


# --- effects

Effect = Callable[["Model", At, int, Spec], None]


def _count(model: Model, at: At, offset: int, spec: Spec) -> None:
    model.values["n"] = model.values.get("n", 0) + 1


def _chain(model: Model, at: At, offset: int, spec: Spec) -> None:
    key = f"chain {name(at)}"
    model.values[key] = [*model.values.get(key, []), offset]


def _nest(model: Model, at: At, offset: int, spec: Spec) -> None:
    model.values.setdefault("nest", {}).setdefault(name(at), []).append(offset)


def _set(model: Model, at: At, offset: int, spec: Spec) -> None:
    model.values[f"last {name(at)}"] = offset


def _remove(model: Model, at: At, offset: int, spec: Spec) -> None:
    model.values.pop(f"last {name(at)}", None)


def _keep(model: Model, at: At, offset: int, spec: Spec) -> None:
    model.values[f"kept {name(at)}"] = [offset]


def _own(model: Model, at: At, offset: int, spec: Spec) -> None:
    model.values[f"own {name(at)}"] = [*spec["do"], "count"]


def _tmp(model: Model, at: At, offset: int, spec: Spec) -> None:
    model.values[f"tmp {name(at)} {offset % 3}"] = True


def _sweep(model: Model, at: At, offset: int, spec: Spec) -> None:
    for number in range(3):
        model.values.pop(f"tmp {name(at)} {number}", None)


def _row(model: Model, at: At, offset: int, spec: Spec) -> None:
    model.rows.setdefault(at, []).append(offset)


def _nothing(model: Model, at: At, offset: int, spec: Spec) -> None:
    pass


OPS: dict[str, Effect] = {
    "count": _count,
    "chain": _chain,
    "nest": _nest,
    "set": _set,
    "remove": _remove,
    "keep": _keep,
    "own": _own,
    "tmp": _tmp,
    "sweep": _sweep,
    # In the table, by each of the three ways there.
    "cursor": _row,
    "connection": _row,
    "session": _row,
    # A row, undone again by the handler itself.
    "undone": _nothing,
}
TOMBSTONE: Spec = {"do": ["count", "chain"], "form": "tombstone"}


def name(at: At) -> str:
    return f"{at[0]}/{at[1]}"


class Letter(NamedTuple):
    """A dead letter, as far as the model says it."""

    value: bytes | None
    attempts: int


class Model:
    """The state that the events behind the positions come to."""

    def __init__(self, partitions: Iterable[At]) -> None:
        self.log: dict[At, list[Entry]] = {at: [] for at in partitions}
        self.positions = dict.fromkeys(self.log, 0)
        self.values: dict[str, Any] = {}
        self.rows: dict[At, list[int]] = {}
        self.letters: dict[tuple[str, int, int], Letter] = {}
        self.deaths: dict[tuple[At, int], int] = {}
        self.paused = self.failed = self.pending = False

    def append(self, at: At, spec: Spec, *, wanted: bool) -> Entry:
        form = spec.get("form")
        raw = {"junk": b"{junk", "tombstone": None}.get(form, json.dumps(spec).encode())
        entry = Entry(len(self.log[at]), spec, raw, wanted)
        self.log[at].append(entry)
        return entry

    def end(self, at: At) -> int:
        return len(self.log[at])

    def ahead(self, at: At) -> list[Entry]:
        """Return the events that are still to come, without those of other types."""
        return [entry for entry in self.log[at][self.positions[at] :] if entry.wanted]

    def at_hand(self, at: At) -> Entry | None:
        """Return the event that the position stands at."""
        position = self.positions[at]
        return self.log[at][position] if position < self.end(at) else None

    def apply(self, at: At, entry: Entry) -> None:
        for op in entry.spec["do"]:
            OPS[op](self, at, entry.offset, entry.spec)

    def refuse(self, at: At, entry: Entry, attempts: int) -> None:
        place = (*at, entry.offset)
        before = self.letters[place].attempts if place in self.letters else 0
        self.letters[place] = Letter(entry.raw, before + attempts)

    def die(self) -> None:
        """Note that a worker died: at any of the events that came next."""
        for at, position in self.positions.items():
            self.deaths[at, position] = self.deaths.get((at, position), 0) + 1

    def reset(self, targets: dict[At, int], *, wipe: bool) -> None:
        self.positions.update(targets)
        for at, position in list(self.deaths):
            if at in targets:
                del self.deaths[at, position]
        self.pending, self.failed = True, False
        if wipe:
            self.values.clear()
            self.rows.clear()

    def adopted(self) -> None:
        """Carry out what a reset left to the next worker: ``on_reset`` counts itself."""
        self.pending = False
        self.values["resets"] = self.values.get("resets", 0) + 1

    def resume(self) -> None:
        self.paused = self.failed = False
