"""The judge: what is stored against the model, after each commit and at the end of each run."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from .model import WORKERS_UNTIL_FAILURE, At, Entry, Fate, Model, Policy, first_flood, in_peace, in_unrest, kills
from .world import Stored, Worker, World


class _Run:
    """A run of a worker: how it may go, and what was settled in it."""

    def __init__(self, policy: Policy, *, peaceful: bool) -> None:
        self.policy, self.peaceful = policy, peaceful
        self.overtaken = False
        self.settled: list[tuple[At, Entry]] = []
        self.refused: list[tuple[str, int, int]] = []


class _Start(NamedTuple):
    is_held: bool
    stored: Stored
    ahead: dict[At, list[Entry]]


class Judge:
    """Follows the stored positions with the model; what does not fit is a fault of the world's."""

    def __init__(self, model: Model, world: World) -> None:
        self._model, self._world = model, world
        # Of workers, the last of which began while the others were under way.
        self._runs: list[_Run] = []
        self._before: Stored | None = None
        world.check, world.died = self.check, model.die
        world.deaths_at = lambda at, offset: model.deaths.get((at, offset), 0)

    def check(self) -> None:
        """Compare; never raises where workers are under way, who would take it for a failure of theirs."""
        try:
            self._compare(self._world.look())
        except AssertionError as error:
            self._world.faults.append(error)
            if not self._runs:
                raise

    def watch(self, worker: Worker) -> None:
        """Run a worker to its end."""
        model = self._model
        ahead = {at: model.ahead(at) for at in model.log}
        start = _Start(model.paused or model.failed, self._world.look(), ahead)
        run = _Run(worker.policy, peaceful=self._is_peaceful(worker))
        for other in self._runs:
            other.peaceful, other.overtaken = False, True
        self._runs.append(run)
        try:
            worker.run()
        finally:
            self._runs.pop()
        if not self._world.faults and run.peaceful:
            self._compare(self._world.look())
            self._end(start, run, worker)
        if self._world.faults and not self._runs:
            raise self._world.faults[0]

    def _is_peaceful(self, worker: Worker) -> bool:
        if worker.plan or self._runs:
            return False
        for at, log in self._model.log.items():
            for entry in log[self._model.positions[at] :]:
                suspect = self._model.deaths.get((at, entry.offset), 0) >= WORKERS_UNTIL_FAILURE
                if suspect or (entry.wanted and kills(entry.spec, worker.policy)):
                    return False
        return True

    # --- after each commit

    def _compare(self, stored: Stored) -> None:
        model = self._model
        is_held, before = model.paused or model.pending, dict(model.positions)
        if model.pending and stored.pending is None:
            model.adopted()
        assert (stored.pending is not None) == model.pending, f"pending is {stored.pending}"
        self._compare_epochs(stored)
        for at in model.log:
            self._follow(at, stored.positions.get(at, 0), stored)
        assert model.positions == before or not is_held, "a batch was committed though the processor is held"
        self._compare_hold(stored)
        assert stored.values == model.values
        assert stored.rows == {at: rows for at, rows in model.rows.items() if rows}
        assert stored.letters == model.letters

    def _compare_epochs(self, stored: Stored) -> None:
        before, self._before = self._before or stored, stored
        for at, epoch in before.epochs.items():
            is_taken_over = stored.owners[at] != before.owners[at]
            assert stored.epochs[at] >= epoch + is_taken_over, f"{at}: epoch {epoch}, then {stored.epochs[at]}"

    def _follow(self, at: At, position: int, stored: Stored) -> None:
        model = self._model
        known = model.positions[at]
        assert known <= position <= model.end(at), f"{at} went from {known} to {position}"
        for entry in model.log[at][known:position]:
            self._settle(at, entry, stored)
        model.positions[at] = position

    def _settle(self, at: At, entry: Entry, stored: Stored) -> None:
        """Find out what became of an event that the position has passed, and let the model do it."""
        model, place = self._model, (*at, entry.offset)
        before = model.letters[place].attempts if place in model.letters else 0
        attempts = stored.letters[place].attempts - before if place in stored.letters else 0
        end = "refused" if attempts else "applied" if entry.wanted else "passed"
        possible = self._possible(at, entry)
        assert end in possible, f"{at}@{entry.offset} was {end}, not {possible}"
        for run in self._runs:
            if end != "passed":
                run.settled.append((at, entry))
            if end == "refused":
                run.refused.append(place)
        if end == "refused":
            run = self._runs[-1]
            if run.peaceful:
                assert attempts == in_peace(entry.spec, run.policy).attempts, f"{at}@{entry.offset}: {attempts} tries"
            model.refuse(at, entry, attempts)
        elif end == "applied":
            model.apply(at, entry)

    def _possible(self, at: At, entry: Entry) -> set[str]:
        deaths = self._model.deaths.get((at, entry.offset), 0)
        possible = set() if entry.wanted else {"passed"}
        for run in self._runs:
            if entry.wanted and run.peaceful:
                possible.add(in_peace(entry.spec, run.policy).end)
            elif entry.wanted or deaths >= WORKERS_UNTIL_FAILURE:
                possible |= in_unrest(entry.spec, run.policy, deaths)
        return possible

    def _compare_hold(self, stored: Stored) -> None:
        """A worker may pause or stop where an event gives reason to; only people take that back."""
        model = self._model
        if stored.paused and not model.paused:
            assert "pause" in self._reasons() or self._may_be_flooded(), f"paused without a reason: {stored.last_error}"
        assert stored.paused or not model.paused, "a pause was forgotten"
        failed = stored.status == "failed"
        if failed and not model.failed:
            # It may have failed before another one took over, did that event and left, and say so only now.
            is_late = any(run.overtaken for run in self._runs)
            assert is_late or "stop" in self._reasons(), f"failed without a reason: {stored.last_error}"
        # Of two workers one may begin to run while the other fails. And a pause is what is said of who is paused, too.
        may_change = stored.paused or any(not run.peaceful for run in self._runs)
        assert failed or not model.failed or may_change, "a failure was forgotten"
        model.paused, model.failed = stored.paused, failed

    def _reasons(self) -> set[str]:
        """Tell what the events that come next may lead to."""
        found: set[str] = set()
        for at, log in self._model.log.items():
            for entry in log[self._model.positions[at] :]:
                found |= self._possible(at, entry)
                if entry.wanted:
                    break
        return found

    def _may_be_flooded(self) -> bool:
        return any(run.policy.flood and len(run.refused) > run.policy.flood / 2 for run in self._runs)

    # --- after a run that nothing disturbed

    def _end(self, start: _Start, run: _Run, worker: Worker) -> None:
        model, stored = self._model, self._world.look()
        if start.is_held:
            before = start.stored
            assert (stored.positions, stored.pending) == (before.positions, before.pending), "it ran though it is held"
            assert worker.handler.calls == 0, "it handled events though it is held"
            return
        fates = {at: [in_peace(entry.spec, run.policy) for entry in ahead] for at, ahead in start.ahead.items()}
        blocked = {at: _first_block(start.ahead[at], fates[at]) for at in fates}
        if self._is_flooded(start, run, fates, stored):
            assert stored.status == "paused"
        elif any(blocked.values()):
            held_at = {at for at, entry in blocked.items() if entry is not None and model.ahead(at)[0] is entry}
            assert held_at, "it ended before an event that stops it"
            ends = {in_peace(_first(model.ahead(at)).spec, run.policy).end for at in held_at}
            assert stored.status in {"failed" if end == "stop" else "paused" for end in ends}, stored.status
        else:
            assert model.positions == {at: model.end(at) for at in model.log}, "it ended before the end"
            assert stored.status == "stopped", stored.last_error
            assert worker.is_done
        self._compare_handler(run, worker)

    def _is_flooded(self, start: _Start, run: _Run, fates: dict[At, list[Fate]], stored: Stored) -> bool:
        flooded = stored.paused and "events were rejected" in str(stored.last_error)
        if len(fates) == 1:
            # With more partitions their order is anybody's.
            [(at, ones)] = fates.items()
            block = _first_block(start.ahead[at], ones)
            seen = ones if block is None else ones[: start.ahead[at].index(block)]
            found = first_flood(seen, run.policy)
            assert flooded == (found is not None), f"flooded: {flooded}, with {found}"
            if found is not None:
                assert self._model.positions[at] > start.ahead[at][found].offset, "a flood was seen before it was there"
        return flooded

    def _compare_handler(self, run: _Run, worker: Worker) -> None:
        """What hooks were told of is what was settled."""
        handler = worker.handler
        assert Counter(handler.rejections) == Counter(run.refused)
        assert handler.events == len(run.settled), "the reports count other events"
        at_hand = [(at, ahead[0]) for at in self._model.log if (ahead := self._model.ahead(at))]
        for at, entry in run.settled:
            failures = in_peace(entry.spec, run.policy).failures
            assert handler.judged.get((at, entry.offset), 0) == failures, f"{at}@{entry.offset} was judged otherwise"
        for at, entry in at_hand:
            judged = handler.judged.get((at, entry.offset), 0)
            assert judged in (0, in_peace(entry.spec, run.policy).failures), f"{at}@{entry.offset}: {judged} times"


def _first(entries: list[Entry]) -> Entry:
    return entries[0]


def _first_block(ahead: list[Entry], fates: list[Fate]) -> Entry | None:
    return next((entry for entry, fate in zip(ahead, fates, strict=True) if fate.end in ("stop", "pause")), None)
