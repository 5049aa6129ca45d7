"""Turns: batches of one process come one after the other, and a long one is not waited for."""

from __future__ import annotations

import threading
import time

from axe.turns import LONGEST_S, Turn, Turns


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def together(*works: object) -> None:
    threads = [threading.Thread(target=work) for work in works]  # type: ignore[arg-type] # functions
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_short_batches_never_overlap_and_each_gets_its_turn() -> None:
    turns, within, most, done = Turns(), 0, 0, [0] * 5

    def work(number: int) -> None:
        nonlocal within, most
        turn = Turn(turns)
        for _ in range(40):
            with turn:
                within += 1
                most = max(most, within)
                busy(0.001)
                within -= 1
            done[number] += 1

    together(*(lambda number=number: work(number) for number in range(5)))

    assert done == [40] * 5
    # One that the machine itself held up for so long may have lost its turn.
    assert most <= 2


def test_they_come_in_the_order_in_which_they_asked() -> None:
    turns, order, first = Turns(), list[int](), Turn(Turns())
    first = Turn(turns)
    first.__enter__()

    def work(number: int) -> None:
        with Turn(turns):
            order.append(number)

    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        while len(turns._waiting) <= number:
            time.sleep(0.0001)
    first.__exit__(None, None, None)
    for thread in threads:
        thread.join(5)

    assert order == [0, 1, 2, 3]


def test_a_batch_that_hangs_holds_the_others_up_once() -> None:
    turns, let_go = Turns(), threading.Event()
    hanging = threading.Thread(target=lambda: _hang(turns, let_go))
    hanging.start()
    while turns._holder is None:
        time.sleep(0.0001)
    took = []

    def work() -> None:
        turn = Turn(turns)
        for _ in range(10):
            began = time.monotonic()
            with turn:
                busy(0.001)
            took.append(time.monotonic() - began)

    together(work)
    let_go.set()
    hanging.join(5)

    assert took[0] >= LONGEST_S / 2
    assert sorted(took)[-2] < LONGEST_S / 2


def _hang(turns: Turns, until: threading.Event) -> None:
    with Turn(turns):
        until.wait(10)


def test_one_that_waits_for_something_else_is_waited_for_once() -> None:
    turns, entered, over = Turns(), 0, threading.Event()

    def waits() -> None:
        nonlocal entered
        turn = Turn(turns)
        for _ in range(10):
            with turn:
                entered += turns._holder is turn
                over.wait(0.01)

    together(waits)

    assert entered == 1


def test_an_exception_gives_the_turn_back() -> None:
    turns = Turns()

    def fails() -> None:
        try:
            with Turn(turns):
                raise ValueError
        except ValueError:
            pass

    together(fails, fails, fails)

    assert turns._holder is None
