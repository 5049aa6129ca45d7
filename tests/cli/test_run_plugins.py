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


ENDLESS = "while True: pass"
SETTINGS = """
    import axe

    class Reporter:
        def __init__(self, settings):
            if "dsn" not in settings:
                raise axe.ConfigError("plugins.reporter.dsn: missing; set it")
    """


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os; os._exit(9)", "its import ended the process (exit code 9)"),
        (ENDLESS, "its import does not end: stopped after 4 s"),
        ("class Reporter:\n  def __init__(self): raise OSError('no')", "cannot be made: OSError: no"),
        ("Reporter = 'text'", "names a str"),
        (SETTINGS, "plugins.reporter.dsn: missing; set it; mend that, or add its name to `block`"),
    ],
)
def test_a_broken_plugin_is_said_once_and_the_processors_run_on(project: Project, code: str, reason: str) -> None:
    project.import_limit_s = 4
    project.install("counter")
    project.install("second")
    project.install("reporter", code, attribute=":Reporter", group="axe.plugins")
    project.publish("studies", {}, {})

    done = project.axe("run", "--until-end")

    assert done.returncode == 1
    for name in ("counter", "second"):
        assert project.axe("state", name, "count").stdout.split()[-1:] == ["2"], done.stderr
    [line] = [line for line in done.stderr.splitlines() if "plugin is broken" in line]
    assert "axe-reporter 1.0" in line
    assert reason in line
    assert done.stderr.count(reason) == 1


def test_a_broken_plugin_stands_in_the_result_and_in_the_closing_summary(project: Project) -> None:
    project.install("counter")
    project.install("reporter", "1 / 0", attribute=":Reporter", group="axe.plugins")
    project.publish("studies", {})

    document, shown = project.json("run", "--until-end", code=1), project.axe("run", "--until-end").stdout

    [row] = document["plugins"]
    reason = row.pop("reason")
    assert row == {"name": "reporter", "distribution": "axe-reporter", "version": "1.0", "status": "broken"}
    assert reason.startswith("plugin reporter (axe-reporter 1.0) cannot be imported: ZeroDivisionError")
    [line] = [line for line in shown.splitlines() if line.startswith("reporter ")]
    assert "broken" in line
    assert reason in line


def test_where_no_plugin_is_broken_the_summary_has_none(project: Project) -> None:
    project.install("counter")
    project.install("beside", SERVICE, attribute=":Service", group="axe.plugins")
    project.publish("studies", {})

    assert project.json("run", "--until-end")["plugins"] == []
    assert "\nplugin" not in project.axe("run", "--until-end").stdout


# --- services

SERVICE = """
    from pathlib import Path

    import axe

    print("noise on stdout")

    class Service:
        @axe.hookimpl
        def services(self):
            with open("served", "a") as file: file.write("yes")
    """


@pytest.mark.parametrize("more", ["", "[processors.counter]\nplugins = []\n"])
def test_services_start_once_whether_a_processor_uses_the_package_or_not(project: Project, more: str) -> None:
    project.configure(more)
    project.install("counter")
    project.install("beside", SERVICE, attribute=":Service", group="axe.plugins")
    project.publish("studies", {})

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    assert (project.folder / "served").read_text() == "yes"


@pytest.mark.parametrize(("code", "reason"), [("import os; os._exit(9)", "exit code 9"), (ENDLESS, "does not end")])
def test_a_package_that_no_processor_uses_cannot_end_or_hold_the_host(project: Project, code: str, reason: str) -> None:
    project.import_limit_s = 4
    project.configure("[processors.counter]\nplugins = []\n")
    project.install("counter")
    project.install("beside", code, attribute=":Service", group="axe.plugins")
    project.publish("studies", {})

    done = project.axe("run", "--until-end")

    assert done.returncode == 1
    assert reason in done.stderr
    assert project.axe("state", "counter", "count").stdout.split()[-1:] == ["1"], done.stderr
