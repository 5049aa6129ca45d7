"""A secret that stands everywhere a secret may stand is seen nowhere else: no output, no database, no title."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import Project, wait_for, workers

# One for each place, so that a leak names where it came from.
SASL, KEYFILE, STATE, DSN, SETTING = (f"canary-{place}" for place in ("sasl", "keyfile", "state", "dsn", "setting"))

TALKATIVE = """
    import axe

    class Talkative:
        topics = ("studies",)

        def __init__(self, settings):
            self.settings = settings

        @axe.hookimpl
        def on_start(self, state, settings):
            if self.settings.get("start") == "raise":
                raise RuntimeError(f"cannot start with {self.settings}")

        @axe.hookimpl
        def on_event(self, event, state):
            token = self.settings["api_token"]
            if event.offset == 0:
                raise axe.Reject(f"nobody takes {token}")
            raise ConnectionError(f"https://user:{token}@service.invalid refused {token}")
    """

REPORTER = """
    import axe

    class Reporter:
        def __init__(self, settings):
            self.dsn = settings["dsn"]

        @axe.hookimpl
        def on_error(self, failure):
            raise RuntimeError(f"cannot reach {self.dsn}")
    """


@pytest.fixture
def guarded(project: Project) -> Project:
    """A project with a secret in each place, for a folder source: what the others make of it is told too."""
    (project.folder / "key").write_text(f"{KEYFILE}\n")
    project.configure(
        """
        [kafka]
        "sasl.username" = "axe"
        "sasl.password" = { env = "SASL" }
        "ssl.key.password" = { file = "key" }

        [processors.talkative]
        retries = 1
        backoff_s = [0, 0]
        settings = { api_token = { env = "SETTING" } }

        [processors.remote]
        state = { env = "STATE_URL" }
        settings = { api_token = "x" }

        [plugins.reporter]
        dsn = { env = "DSN" }

        [host]
        wait_s = 0.5
        """
    )
    project.install("talkative", TALKATIVE, attribute=":Talkative")
    project.install("remote", TALKATIVE, attribute=":Talkative")
    project.install("reporter", REPORTER, attribute=":Reporter", group="axe.plugins")
    project.publish("studies", {}, {})
    return project


ENVIRONMENT = {
    "SASL": SASL,
    "SETTING": SETTING,
    "DSN": f"https://{DSN}@sentry.invalid/1",
    "STATE_URL": f"postgresql+psycopg://axe:{STATE}@127.0.0.1:1/none?sslpassword={STATE}",
}
ALL = (SASL, KEYFILE, STATE, DSN, SETTING)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """What axe has written, wherever below the folder of its state."""
    for path in (folder / "state").rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


@pytest.mark.parametrize(("source", "form"), [("file:data", "console"), ("kafka://127.0.0.1:1", "json")])
def test_no_command_shows_a_secret(guarded: Project, source: str, form: str) -> None:
    config = guarded.folder / "axe.toml"
    config.write_text(
        config.read_text().replace("file:data", source) + f'\n[log]\nformat = "{form}"\nlevel = "debug"\n'
    )

    commands = [
        ("run", "--until-end", "--debug"),
        ("run", "--until-end", "--json"),
        ("check", "--debug"),
        ("check", "--json"),
        ("processors",),
        ("status", "--json"),
        ("status",),
        ("rejections", "list", "talkative"),
        ("rejections", "show", "talkative", "1"),
        ("state", "remote", "--debug"),
        ("reset", "remote", "--to", "earliest", "--yes", "--debug"),
    ]
    done = {words: said(guarded.axe(*words, env=ENVIRONMENT)) for words in commands}

    assert {words: secret for words, text in done.items() for secret in ALL if secret in text} == {}
    assert "refused" in done["run", "--until-end", "--debug"] or source != "file:data"


def test_no_database_keeps_a_secret(guarded: Project) -> None:
    guarded.axe("run", "--until-end", "--only", "talkative", env=ENVIRONMENT)

    found = {
        (path.name, secret) for path, content in written(guarded.folder) for secret in ALL if secret.encode() in content
    }

    [letter] = json.loads(guarded.axe("rejections", "list", "talkative", "--json", env=ENVIRONMENT).stdout)[
        "rejections"
    ]
    assert letter["offset"] == 0
    assert found == set()


def test_no_process_shows_a_secret_on_its_command_line(guarded: Project) -> None:
    with guarded.running("run", env=ENVIRONMENT) as host:
        parent = psutil.Process(host.pid)
        wait_for(lambda: workers(parent), "no worker came up")
        titles = [" ".join(one.cmdline()) for one in [parent, *parent.children(recursive=True)]]

    assert titles
    assert [title for title in titles for secret in ALL if secret in title] == []
