"""A machine that does anything to a processor, in any order, and compares what is stored with a simple model.

The comparison is made after every commit of a worker, not only at the end of a step: killed workers, outages of store
and source, resets, pauses and other workers come at any point between two transactions, and each commit must be one
that the model can follow.

``AXE_TEST_EXAMPLES=5000`` runs that many sequences on SQLite, and a tenth on PostgreSQL, instead of the few that fit
into a run of all tests. Hypothesis prints a sequence that fails as the calls of the rules, shortened, and runs it first
the next time.
"""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import axe.outage
import axe.runner
import axe.targets
import axe.trouble
import axe.upkeep
from axe import TopicPartition, operations
from axe.errors import ConfigError
from axe.sources.memory import MemorySource

from .drawing import EVENTS, PARTITIONS, PLANS, RESETS, SHAPES, WORKERS, Published, Shape, without_sql
from .judge import Judge
from .model import WANTED, At, Model, Policy
from .world import LOOP, Setup, Worker, World, interrupt, kill, lose_the_source, lose_the_store

EXAMPLES = int(os.environ.get("AXE_TEST_EXAMPLES", "0"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is waited for: what a worker looks at once a second it looks at always, or never."""
    monkeypatch.setattr(axe.runner, "LOOK_S", 0)
    monkeypatch.setattr(axe.trouble, "LOOK_S", 0)
    monkeypatch.setattr(axe.outage, "_LONGEST_PAUSE_S", 0)
    monkeypatch.setattr(axe.upkeep, "LOOK_S", 0)
    log = logging.getLogger("axe")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)


MENDED = Policy("reject", 0, None, mended=True)
SIMPLE: dict[str, Any] = {
    "kill": kill,
    "store": lose_the_store,
    "source": lose_the_source,
    "interrupt": interrupt,
}


class Machine(RuleBasedStateMachine):
    """One processor, its log, its workers and those who operate it."""

    numbers = itertools.count()

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__()
        self._root, self._url = folder, url

    @initialize(shape=SHAPES, events=EVENTS, worker=WORKERS)
    def begin(self, shape: Shape, events: Sequence[Published], worker: Any) -> None:
        axe.upkeep.LOOK_S = 0 if shape.looks else 1e6  # type: ignore[assignment] # without an end
        ats: list[At] = [("a", number) for number in range(shape.partitions)] + [("b", 0)] * shape.two_topics
        topics = ("a/wanted" if shape.filters else "a", "b")[: 1 + shape.two_topics]
        self.is_plain = shape.plain
        self.filtered = {"a"} if shape.filters else set()
        self.model = Model(ats)
        self._folder = tempfile.TemporaryDirectory(dir=self._root)
        name = f"p{next(self.numbers)}"
        self.world = World(Path(self._folder.name), self._url, name, topics, alone=shape.alone)
        for topic in {at[0] for at in ats}:
            self.world.memory.create_topic(topic, sum(at[0] == topic for at in ats))
        self.operator = self.world.store()
        self.judge = Judge(self.model, self.world)

        for at in ats:
            self._append(at, events)
        self.judge.watch(Worker(self.world, *worker))

    def _append(self, at: At, events: Sequence[Published]) -> None:
        for spec, times, kind, in_header in events:
            # What does not decode, and tombstones, are what they are.
            wished = without_sql(spec) if self.is_plain and "form" not in spec else spec
            by_header = in_header or "form" in spec
            said = wished if by_header else {**wished, "type": kind}
            for _ in range(times):
                entry = self.model.append(at, said, wanted=kind == WANTED or at[0] not in self.filtered)
                self.world.memory.append(at[0], entry.raw, partition=at[1], type=kind if by_header else None)

    def append(self, partition: int, events: Sequence[Published]) -> None:
        self._append(list(self.model.log)[partition % len(self.model.log)], events)

    # What each rule does is seen at once: a worker runs then. Hypothesis leaves out some of the rules at a time.

    @rule(partition=PARTITIONS, events=EVENTS, worker=WORKERS, plan=PLANS)
    def run(self, partition: int, events: Sequence[Published], worker: Any, plan: dict[int, Any]) -> None:
        self.append(partition, events)
        self.resume()
        actions = {point: self._action(*action) for point, action in plan.items()}
        self.judge.watch(Worker(self.world, *worker, actions))
        if self.model.failed or self.model.paused:
            # The next worker leaves alone what is held, however it is set up.
            self.judge.watch(Worker(self.world, MENDED, Setup(1000, 16, many=False, generous=False)))

    @rule(worker=WORKERS, plan=PLANS)
    def resume_and_run(self, worker: Any, plan: dict[int, Any]) -> None:
        self.resume()
        actions = {point: self._action(*action) for point, action in plan.items()}
        self.judge.watch(Worker(self.world, *worker, actions))

    @rule(reset=RESETS, worker=WORKERS, plan=PLANS)
    def reset_and_run(self, reset: tuple[Any, bool], worker: Any, plan: dict[int, Any]) -> None:
        self.reset(*reset)
        self.resume_and_run(worker, plan)

    @rule(worker=WORKERS)
    def pause_run_and_resume(self, worker: Any) -> None:
        self.pause()
        self.judge.watch(Worker(self.world, *worker))
        self.resume_and_run(worker, {})

    @rule(events=EVENTS, worker=WORKERS, point=st.integers(0, 20), other=WORKERS)
    def run_and_be_taken_over(self, events: Sequence[Published], worker: Any, point: int, other: Any) -> None:
        self.run(0, events, worker, {LOOP + point: ("takeover", *other, None)})

    @rule(worker=WORKERS)
    def run_again(self, worker: Any) -> None:
        self.judge.watch(Worker(self.world, *worker))

    @rule(worker=WORKERS)
    def resume_and_run_until_none_dies(self, worker: Any) -> None:
        """Events that kill are found, however often that takes: no worker in a row of five dies in vain."""
        self.resume()
        in_vain = 0
        for _ in range(12):
            before = dict(self.model.positions)
            self.judge.watch(last := Worker(self.world, *worker))
            if not last.is_dead:
                break
            in_vain = in_vain + 1 if self.model.positions == before else 0
            assert in_vain < 5, "workers die for ever"

    def pause(self) -> None:
        operations.pause(self.operator)
        self.model.paused = True
        self.judge.check()

    def resume(self) -> None:
        operations.resume(self.operator)
        self.model.resume()
        self.judge.check()

    def _action(self, kind: str, *given: Any) -> Any:
        if kind in SIMPLE:
            return SIMPLE[kind]
        do: Any = {
            "append": self.append,
            "reset": self.reset,
            "pause": self.pause,
            "resume": self.resume,
            "takeover": self._take_over,
        }[kind]

        def act(worker: Worker) -> None:
            try:
                do(*given)
            except AssertionError as error:
                self.world.faults.append(error)

        act.needs_the_database = True  # type: ignore[attr-defined] # a mark
        return act

    def _take_over(self, policy: Policy, setup: Setup, kill_at: int | None) -> None:
        if not self.world.alone:
            self.world.takeovers += 1
            self.judge.watch(Worker(self.world, policy, setup, {} if kill_at is None else {kill_at: kill}))

    def reset(self, target: Any, wipe: bool) -> None:
        """Move positions as an operator does; what that means is worked out here once more."""
        model, before = self.model, self.world.look()
        ends = {at: model.end(at) for at in model.log}
        to = target
        if target == "earliest":
            targets = dict.fromkeys(ends, 0)
        elif target == "latest":
            targets = ends
        else:
            chosen = zip(ends.items(), target, strict=False)
            targets = {at: number % (end + 1) for (at, end), number in chosen if number is not None}
            to = {TopicPartition(*at): number for at, number in targets.items()}
        leaves_some = bool(set(before.positions) - set(targets))
        try:
            stored = [TopicPartition(*at) for at in before.positions]
            planned = axe.targets.plan(
                MemorySource(self.world.memory), stored, sorted({at[0] for at in ends}), to, wipe=wipe
            )
            operations.reset(self.operator, planned, wipe=wipe)
        except ConfigError:
            assert not targets or (wipe and leaves_some), "a reset was refused"
        else:
            assert targets and not (wipe and leaves_some), "a reset was not refused"
            model.reset(targets, wipe=wipe)
            epochs = self.world.look().epochs
            raised = {at: epoch - before.epochs.get(at, 0) for at, epoch in epochs.items()}
            assert raised == {at: int(at in targets) for at in epochs}, "the epochs of what was moved go up"
        self.judge.check()

    def teardown(self) -> None:
        """Whatever happened: once all is mended and somebody says so, every event is done."""
        if not hasattr(self, "judge"):
            return
        try:
            if not self.world.faults:
                self.resume()
                self.run_again((MENDED, Setup(1000, 16, many=False, generous=False)))
                assert self.model.positions == {at: self.model.end(at) for at in self.model.log}
        finally:
            self.operator.close()
            self.world.close()
            self._folder.cleanup()


def _run(folder: Path, url: str, examples: int) -> None:
    run_state_machine_as_test(
        lambda: Machine(folder, url),
        settings=settings(
            max_examples=examples,
            stateful_step_count=8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_whatever_happens_what_is_stored_is_what_the_model_says(tmp_path: Path) -> None:
    _run(tmp_path, "sqlite:state", EXAMPLES or 40)


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_on_postgresql_it_is_the_same(tmp_path: Path, postgresql_url: str) -> None:
    _run(tmp_path, postgresql_url, EXAMPLES // 10 or 6)
