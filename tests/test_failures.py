"""What a failure means by its kind: ``failures`` of the configuration, the nearest name that it inherits from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from axe import Decision

from .site import Keeping, Site, at


@pytest.fixture
def site(tmp_path: Path, topic: str) -> Site:
    return Site(tmp_path, topic)


def run(site: Site, *offsets: int, error: type[Exception], failures: dict[str, Any]) -> None:
    for n in range(5):
        site.log.append(site.topic, {"n": n})
    site.settings["failures"] = failures
    site.run(Keeping(at(*offsets, error=error)))


def decisions(site: Site) -> list[tuple[int, Decision]]:
    return [(failure.attempt, failure.decision) for failure in site.failures]


class Odd(Exception):
    class Inner(Exception):
        pass


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (KeyError, "KeyError"),
        (KeyError, "builtins.KeyError"),
        (KeyError, "LookupError"),
        (KeyError, "Exception"),
        (Odd, "Odd"),
        (Odd, "tests.test_failures.Odd"),
        (Odd.Inner, "tests.test_failures.Odd.Inner"),
    ],
)
def test_a_kind_is_named_by_itself_or_what_it_inherits_from(site: Site, error: type[Exception], name: str) -> None:
    run(site, 2, error=error, failures={name: {"on_failure": "reject", "retries": 0}})

    assert site.seen == [0, 1, 3, 4]
    assert decisions(site) == [(1, Decision.REJECT)]


def test_other_kinds_are_left_to_the_settings_of_the_processor(site: Site) -> None:
    run(site, 2, error=RuntimeError, failures={"KeyError": {"on_failure": "reject", "retries": 0}})

    assert site.status == "failed"
    assert decisions(site) == [(1, Decision.RETRY), (3, Decision.STOP)]


def test_the_nearest_kind_counts(site: Site) -> None:
    failures = {"Exception": {"on_failure": "pause"}, "LookupError": {"on_failure": "reject"}}

    run(site, 2, error=KeyError, failures=failures)

    assert site.seen == [0, 1, 3, 4]
    assert site.dead_letters == [(2, "KeyError: 'sick at 2'")]


def test_what_a_kind_does_not_say_the_processor_says(site: Site) -> None:
    run(site, 2, error=KeyError, failures={"KeyError": {"on_failure": "reject"}})

    assert decisions(site) == [(1, Decision.RETRY), (3, Decision.REJECT)]


def test_a_kind_may_be_tried_more_often_than_others(site: Site) -> None:
    run(site, 2, error=TimeoutError, failures={"OSError": {"retries": 5, "backoff_s": [0, 0.001]}})

    assert decisions(site) == [(1, Decision.RETRY), (6, Decision.STOP)]
