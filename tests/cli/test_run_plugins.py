"""``axe run`` beside packages of ``axe.plugins`` that are broken: one of them is left out, and said once."""

from __future__ import annotations

import pytest

from .conftest import Project

REPORTER = """
    import axe

    class Reporter:
        {mark}
        def {hook}(self, {argument}): pass
    """
SLIPS = [
    ({"mark": "", "hook": "on_error", "argument": "failure"}, "its on_error is not marked"),
    ({"mark": "@axe.hookimpl", "hook": "on_eror", "argument": "failure"}, "on_eror"),
    ({"mark": "@axe.hookimpl", "hook": "on_error", "argument": "mistake"}, "mistake"),
]


@pytest.mark.parametrize(("slip", "reason"), SLIPS)
def test_a_plugin_with_a_wrong_hook_takes_no_processor_down_and_is_to_blame_itself(
    project: Project, slip: dict[str, str], reason: str
) -> None:
    project.install("counter")
    project.install("reporter", REPORTER.format(**slip), attribute=":Reporter", group="axe.plugins")
    project.publish("studies", {}, {})

    done = project.axe("run", "--until-end")

    assert project.axe("state", "counter", "count").stdout.split()[-1:] == ["2"], done.stderr
    assert "plugin reporter (axe-reporter 1.0) is broken" in done.stderr
    assert reason in done.stderr


@pytest.mark.parametrize(("slip", "reason"), SLIPS)
def test_check_finds_a_wrong_hook_of_a_plugin(project: Project, slip: dict[str, str], reason: str) -> None:
    project.install("counter")
    project.install("reporter", REPORTER.format(**slip), attribute=":Reporter", group="axe.plugins")

    findings = project.json("check", code=1)["findings"]

    [found] = [finding for finding in findings if finding["subject"] == "plugin reporter"]
    assert (found["result"], reason in found["message"]) == ("problem", True)
