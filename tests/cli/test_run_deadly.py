"""Events that end the worker: ``axe run`` finds them, and makes failures of them like any other."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import COUNTING, Project

DEADLY = (
    COUNTING
    + """\
            state["sum"] = state.get("sum", 0) + event.value["n"]
            if event.value.get("deadly"):
                {die}
"""
)
WAYS = {
    "exit": "os._exit(3)",
    "signal": "os.kill(os.getpid(), signal.SIGKILL)",
    "endless": "time.sleep(3600)",
}
COUNTER = DEADLY.format(die="pass")


def events(count: int, *deadly: int) -> list[dict[str, Any]]:
    return [{"n": n, "deadly": n in deadly} for n in range(count)]


def letters(project: Project) -> list[tuple[str, int, int]]:
    found = project.json("rejections", "list")["rejections"]
    return [(row["processor"], row["offset"], row["attempts"]) for row in found]


@pytest.mark.parametrize("way", WAYS)
def test_an_event_that_ends_its_worker_three_times_is_set_aside_alone(project: Project, way: str) -> None:
    project.configure('[processors.counter]\non_failure = "reject"\nhandler_timeout_s = 0.5\n')
    project.install("counter", DEADLY.format(die=WAYS[way]))
    project.publish("studies", *events(60, 23))

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    assert project.json("state", "counter") == {"count": 59, "sum": sum(range(60)) - 23}
    assert letters(project) == [("counter", 23, 3)]
    [row] = project.json("rejections", "list")["rejections"]
    assert row["reason"].startswith("WorkerDied: its worker died 3 times while this event was handled")
    # In a batch, and then three times alone.
    assert done.stderr.count("worker died, starting it again") == 4


def test_neighbours_in_other_processes_notice_nothing(project: Project) -> None:
    project.configure('[processors.counter]\non_failure = "reject"\n')
    project.install("counter", DEADLY.format(die=WAYS["exit"]))
    project.install("other", COUNTER)
    project.publish("studies", *events(30, 0, 29))

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    assert letters(project) == [("counter", 0, 3), ("counter", 29, 3)]
    assert project.json("state", "counter") == {"count": 28, "sum": sum(range(29))}
    assert project.json("state", "other") == {"count": 30, "sum": sum(range(30))}
    assert not [line for line in done.stderr.splitlines() if "died" in line and "other" in line]


SLOW = COUNTER.replace('state["count"] =', 'time.sleep(0.4)\n            state["count"] =')
SLOWLY_DEADLY = DEADLY.format(die="time.sleep(0.1); os._exit(3)")


@pytest.mark.parametrize("deadly", [(0, 3), (5,)], ids=str)
def test_neighbours_in_the_same_process_are_not_blamed(project: Project, deadly: tuple[int, ...]) -> None:
    """Who takes longer about an event than the other about dying would be in the middle of the same one each time."""
    project.configure('[host]\nworkers = "threads"\n[processors.counter]\non_failure = "reject"\n')
    project.install("another", SLOW)
    project.install("counter", SLOWLY_DEADLY)
    project.publish("studies", *events(6, *deadly))

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    assert letters(project) == [("counter", offset, 3) for offset in deadly]
    assert project.json("state", "another") == {"count": 6, "sum": sum(range(6))}
    assert done.stderr.count("worker died, starting it again") <= 4 * len(deadly)


def test_what_is_no_event_of_the_processor_is_not_counted_in_the_place_of_the_deadly_one(project: Project) -> None:
    project.configure('[processors.counter]\non_failure = "reject"\ntopics = ["studies/wanted"]\n')
    project.install("counter", DEADLY.format(die=WAYS["exit"]))
    others = [{"type": "other"}] * 10
    wanted = [{**event, "type": "wanted"} for event in events(3, 1)]
    project.publish("studies", *others, wanted[0], *others, wanted[1], *others, wanted[2])

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    assert project.json("state", "counter") == {"count": 2, "sum": 2}
    assert letters(project) == [("counter", 21, 3)]
    assert done.stderr.count("worker died, starting it again") <= 5


def test_a_deadly_event_is_found_where_a_batch_is_meant_to_take_no_time(project: Project) -> None:
    project.configure('[processors.counter]\non_failure = "reject"\nbatch = { time_s = 0 }\n')
    project.install("counter", DEADLY.format(die=WAYS["exit"]))
    project.publish("studies", *events(10, 7))

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    assert letters(project) == [("counter", 7, 3)]


def test_a_processor_stops_at_a_deadly_event_and_goes_on_there_once_it_is_mended(project: Project) -> None:
    project.install("counter", DEADLY.format(die=WAYS["exit"]))
    project.publish("studies", *events(10, 4))

    done = project.axe("run", "--until-end")
    assert done.returncode == 1
    [row] = project.json("status")["processors"]
    assert (row["status"], row["positions"][0]["position"]) == ("failed", 4)
    assert row["last_error"].startswith("studies[0]@4: WorkerDied: its worker died 3 times")

    for module in project.site.glob("m_*.py"):
        module.write_text(module.read_text().replace(WAYS["exit"], "pass"))
    assert project.axe("resume", "counter").returncode == 0
    done = project.axe("run", "--until-end")
    assert done.returncode == 0, done.stderr
    assert project.json("state", "counter") == {"count": 10, "sum": sum(range(10))}


DEADLY_DECODER = """
    import os

    import axe

    class Counter:
        topics = ("studies",)

        @axe.hookimpl
        def deserializer(self, topic):
            return self.decoded

        def decoded(self, record):
            if b"deadly" in record.value:
                os._exit(4)
            return record.value

        @axe.hookimpl
        def on_event(self, event, state):
            state["count"] = state.get("count", 0) + 1
    """


def test_an_event_that_kills_while_it_is_decoded_is_set_aside_without_decoding_it(project: Project) -> None:
    project.configure('[processors.counter]\non_failure = "reject"\n')
    project.install("counter", DEADLY_DECODER)
    project.publish("studies", 1, "deadly", 3)

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    assert project.json("state", "counter") == {"count": 2}
    assert letters(project) == [("counter", 1, 3)]


BATCHES = """
    import os

    import axe

    class Counter:
        topics = ("studies",)

        @axe.hookimpl
        def on_batch(self, events, state):
            state["count"] = state.get("count", 0) + len(events)
            if any(event.value["deadly"] for event in events):
                os._exit(5)
    """


def test_a_deadly_event_among_those_of_a_batch_handler_is_found(project: Project) -> None:
    project.configure('[processors.counter]\non_failure = "reject"\n')
    project.install("counter", BATCHES)
    project.publish("studies", *events(40, 11))

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    assert project.json("state", "counter") == {"count": 39}
    assert letters(project) == [("counter", 11, 3)]


DECIDES = """

        @axe.hookimpl
        def decide(self, failure):
            print("asked", failure.attempt, type(failure.exception).__name__, failure.decision.name, flush=True)
            return axe.Decision.REJECT
    """


def test_the_plugin_may_decide_about_it(project: Project) -> None:
    project.install("counter", DEADLY.format(die=WAYS["exit"]) + DECIDES)
    project.publish("studies", *events(3, 1))

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    assert "asked 3 WorkerDied STOP" in done.stdout + done.stderr
    assert letters(project) == [("counter", 1, 3)]
