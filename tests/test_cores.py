"""Cores: who waits for a turn waits on the core of the one whose turn it is, and is bound to none after that."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from axe.cores import Cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,  # no choice
    reason="needs Linux and two cores",
)

ALL = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()


def in_a_thread(work: Callable[[], None]) -> None:
    errors = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def a_turn(cores: Cores, began_on: int, *, moved_to: int | None = None) -> None:
    """One turn of another thread, which the system moves perhaps."""

    def turn() -> None:
        os.sched_setaffinity(0, {began_on})
        cores.begin()
        if moved_to is not None:
            os.sched_setaffinity(0, {moved_to})
        cores.end()

    in_a_thread(turn)


def waited_on(cores: Cores) -> set[int]:
    """Where a thread that waits now may run."""
    where = set()

    def wait() -> None:
        with cores.bound():
            where.update(os.sched_getaffinity(0))

    in_a_thread(wait)
    return where


@pytest.mark.parametrize("core", sorted(ALL)[:2])
def test_who_waits_waits_where_the_turn_is(core: int) -> None:
    cores = Cores()
    a_turn(cores, core)

    assert waited_on(cores) == {core}


def test_who_has_waited_may_run_where_it_might_before() -> None:
    cores = Cores()
    a_turn(cores, min(ALL))

    def wait() -> None:
        with cores.bound():
            pass
        assert os.sched_getaffinity(0) == ALL
        with pytest.raises(KeyError), cores.bound():
            raise KeyError
        assert os.sched_getaffinity(0) == ALL

    in_a_thread(wait)


def test_they_follow_a_turn_that_the_system_has_moved_and_no_other() -> None:
    one, other = sorted(ALL)[:2]
    cores = Cores()
    a_turn(cores, one)

    a_turn(cores, other)
    assert waited_on(cores) == {one}

    a_turn(cores, one, moved_to=other)
    assert waited_on(cores) == {other}


def test_who_is_bound_by_somebody_else_stays_so() -> None:
    one, other = sorted(ALL)[:2]
    cores = Cores()
    a_turn(cores, one)

    def wait() -> None:
        with cores.bound():
            os.sched_setaffinity(0, {other})
        assert os.sched_getaffinity(0) == {other}
        with cores.bound():
            assert os.sched_getaffinity(0) == {other}

    in_a_thread(wait)


def test_a_core_that_may_not_be_used_is_none_to_wait_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = Cores()
    a_turn(cores, min(ALL))

    def refuse(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_setaffinity", refuse)
        assert waited_on(cores) == ALL

    assert waited_on(cores) == ALL
    a_turn(cores, max(ALL))
    assert waited_on(cores) == {max(ALL)}


def test_where_the_system_tells_no_cores_nothing_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axe.cores._core_of_this_thread", None)
    cores = Cores()
    a_turn(cores, min(ALL))

    assert waited_on(cores) == ALL
