"""Brokers that want TLS and a password: who gets in, what is said to who does not, and that no password shows."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from ..services.secured import KEY_PASSWORD, PASSWORD, SecuredKafka
from .conftest import COUNTER, Project
from .forking import Forks

EVENTS = 10
WRONG_PASSWORD = "canary-wrong-password"
CANARIES = (PASSWORD, KEY_PASSWORD, WRONG_PASSWORD)


class Case(NamedTuple):
    """A listener, what is changed of the properties that get a client in, and the commands that are given."""

    listener: str
    changed: Mapping[str, str]
    run: tuple[str, ...] = ("console",)
    """The formats of the log; the other commands have another one."""
    others: bool = False
    """Whether `check` and `status` are asked as well."""
    gets_in: bool = False


BOTH = ("console", "json")
CASES = {
    "right": Case("SASL_TLS", {}, run=BOTH, others=True, gets_in=True),
    "mutual": Case("MUTUAL", {}, run=("json",), gets_in=True),
    "unverified": Case("EXPIRED", {"enable.ssl.certificate.verification": "false"}, others=True, gets_in=True),
    "wrong-password": Case("SASL_TLS", {"sasl.password": WRONG_PASSWORD, "sasl.mechanisms": "SCRAM-SHA-256"}, run=BOTH),
    "wrong-authority": Case("SASL_TLS", {"ssl.ca.location": "of another"}),
    "another-host": Case("ELSEWHERE", {}, run=("json",)),
    "expired": Case("EXPIRED", {}),
}
GET_IN = [name for name, case in CASES.items() if case.gets_in]


class Said(NamedTuple):
    """What came of the commands of one case, and the folder that it had."""

    run: list[subprocess.CompletedProcess[str]]
    check: subprocess.CompletedProcess[str] | None
    status: subprocess.CompletedProcess[str] | None
    folder: Path

    def everything(self) -> str:
        """What was said on the terminal and written into the folder of the state."""
        done = [one for one in (*self.run, self.check, self.status) if one is not None]
        files = [path.read_bytes().decode(errors="replace") for path in (self.folder / "state").iterdir()]
        return "\n".join([*(one.stdout + one.stderr for one in done), *files])


def ask(kafka: SecuredKafka, forks: Forks, folder: Path, case: Case) -> Said:
    folder.mkdir()
    project = Project(folder, forks)
    project.install("counter", COUNTER)
    properties = {**kafka.properties(case.listener), **case.changed}
    if properties["ssl.ca.location"] == "of another":
        properties["ssl.ca.location"] = str(kafka.other_ca)
    lines = "\n".join(f'"{key}" = "{value}"' for key, value in properties.items())
    for form in BOTH:
        (folder / f"{form}.toml").write_text(
            f'source = "kafka://{kafka.addresses[case.listener]}"\nstate = "sqlite:state"\n'
            f'[host]\nwait_s = 0.5\n[log]\nformat = "{form}"\nlevel = "debug"\n[kafka]\n{lines}\n'
        )
    runs = [project.axe("run", "--until-end", "--config", f"{form}.toml") for form in case.run]
    if not case.others:
        return Said(runs, None, None, folder)
    other = f"{BOTH[case.run[-1] == 'console']}.toml"
    check, status = project.axe("check", "--config", other), project.axe("status", "--json", "--config", other)
    return Said(runs, check, status, folder)


@pytest.fixture(scope="module")
def said(secured_kafka: SecuredKafka, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """Three cases at once: those that do not get in spend most of their time waiting."""
    secured_kafka.create_topic("studies")
    secured_kafka.produce("studies", *["{}"] * EVENTS)
    folder = tmp_path_factory.mktemp("secured")
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda name: ask(secured_kafka, forks, folder / name, CASES[name]), CASES)
        return dict(zip(CASES, found, strict=True))


@pytest.mark.timeout(200)
@pytest.mark.parametrize("case", CASES)
def test_no_password_is_seen(said: dict[str, Said], case: str) -> None:
    text = said[case].everything()

    assert [canary for canary in CANARIES if canary in text] == []


@pytest.mark.parametrize("case", GET_IN)
def test_who_gets_in_reads_to_the_end(said: dict[str, Said], case: str) -> None:
    found = said[case]

    assert [run.returncode for run in found.run] == [0] * len(found.run), found.run
    with closing(sqlite3.connect(found.folder / "state" / "counter.db")) as database:
        assert database.execute("SELECT position FROM axe_offsets").fetchall() == [(EVENTS,)]
    if found.check is not None and found.status is not None:
        assert found.check.returncode == 0, found.check.stdout
        (processor,) = json.loads(found.status.stdout)["processors"]
        assert (processor["status"], processor["lag"], processor["last_error"]) == ("stopped", 0, None)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("wrong-password", "refuses this client (topic studies): SASL authentication error: Authentication failed"),
        ("wrong-authority", "is refused (topic studies): certificate verify failed"),
        ("another-host", "is refused (topic studies): certificate verify failed"),
        ("expired", "is refused (topic studies): certificate verify failed"),
    ],
)
def test_who_does_not_is_told_once_why_and_what_to_do(said: dict[str, Said], case: str, reason: str) -> None:
    way_out = "correct `sasl.username`, `sasl.password`" if case == "wrong-password" else "`ssl.ca.location`"
    found = said[case]

    for run in found.run:
        lines = run.stderr.splitlines()
        (waiting,) = [line for line in lines if "] waiting  " in line or '"event": "waiting"' in line]
        assert reason in waiting and way_out in waiting
        assert [line for line in lines if "gave up waiting" in line]
        assert run.returncode == 1
        assert run.stdout.splitlines()[-1].split()[:2] == ["counter", "waiting"]
    if found.check is not None:
        assert found.check.returncode == 1
        assert reason.replace(" (topic studies)", "") in found.check.stdout
    assert "no answer" not in found.everything()
    with closing(sqlite3.connect(found.folder / "state" / "counter.db")) as database:
        assert database.execute("SELECT count(*) FROM axe_dead_letters").fetchone() == (0,)


def test_what_is_not_verified_is_said_at_every_start(said: dict[str, Said]) -> None:
    words = "certificates of the brokers are not verified"
    (run,) = said["unverified"].run

    assert len([line for line in run.stderr.splitlines() if words in line and "warning" in line]) >= 1
    for command in (said["unverified"].check, said["unverified"].status):
        assert command is not None
        assert words in command.stdout + command.stderr
    assert words not in said["right"].everything()
