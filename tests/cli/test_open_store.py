"""A ``state`` URL that only the ``open_store`` hook of an installed package knows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .conftest import COUNTER, Project
from .test_run_imports import FAULTS
from .test_run_plugins import SERVICE

# Keeps state in a SQLite folder of its own, and lets through what the protocol names and nothing else:
# what axe calls beside it would be missing in a store of somebody else.
VAULT = """
    from collections.abc import MutableMapping
    from pathlib import Path

    import axe
    from axe.store import SqlStore, open_place, protocol

    print("noise on stdout")


    class Only:
        def __init__(self, inner, kind):
            self._inner = inner
            self._names = {*vars(kind), *vars(kind).get("__annotations__", ())}

        def __getattr__(self, name):
            if name.startswith("_") or name not in self._names:
                raise AttributeError(f"the protocol has no {name}")
            return getattr(self._inner, name)


    class Values(Only, MutableMapping):
        def __getitem__(self, key): return self._inner[key]
        def __setitem__(self, key, value): self._inner[key] = value
        def __delitem__(self, key): del self._inner[key]
        def __iter__(self): return iter(self._inner)
        def __len__(self): return len(self._inner)


    class Transaction(Only):
        @property
        def state(self): return Values(self._inner.state, protocol.HandlerState)
        def __enter__(self): return self
        def __exit__(self, *_): self.rollback()


    class Store(Only):
        def begin(self): return Transaction(self._inner.begin(), protocol.Transaction)


    class Vault:
        def __init__(self, settings):
            self.folder = Path(settings.get("folder", "vault")).absolute()

        @axe.hookimpl
        def open_store(self, url, processor):
            if not url.startswith("vault:"):
                return None
            database = open_place(f"sqlite:{self.folder}", Path()).database(processor)
            return Store(SqlStore(database, processor), protocol.Store)
    """

REJECTION = 'raise axe.Reject("it is bad")'
SICK_COUNTER = COUNTER.replace(REJECTION, f'{REJECTION} if event.value["bad"] == 1 else OSError("it is sick")')


def in_vault(project: Project, more: str = "", **settings: str) -> None:
    sick = '[processors.counter]\nretries = 1\nbackoff_s = [0, 0]\non_failure = "reject"\n'
    project.configure(sick + more, **{"state": "vault:", **settings})
    project.install("vault", VAULT, attribute=":Vault", group="axe.plugins")
    project.install("counter", SICK_COUNTER)
    project.publish("studies", {}, {}, {"bad": 1}, {"bad": 2}, {})


def test_a_processor_runs_in_it_and_every_command_knows_it(project: Project) -> None:
    in_vault(project)

    project.json("run", "--until-end")

    (row,) = project.json("status")["processors"]
    assert (row["status"], row["version"], row["lag"], row["rejections"]) == ("stopped", 2, 0, 2)
    assert row["database"] == str(project.folder / "vault" / "counter.db")
    assert project.json("state", "counter") == {"count": 3}
    assert [one["offset"] for one in project.json("rejections", "list")["rejections"]] == [2, 3]
    assert project.json("rejections", "show", "counter", "1")["value"] == '{"bad": 1}'
    assert project.json("check")["ok"]
    assert not (project.folder / "state").exists()


def test_a_reset_moves_and_wipes_and_the_next_run_begins_anew(project: Project) -> None:
    in_vault(project)
    project.json("run", "--until-end")

    project.json("reset", "counter", "--to", "4", "--wipe", "--yes")

    assert project.json("state", "counter") == {}
    project.json("run", "--until-end")
    assert project.json("state", "counter") == {"count": 1}


def test_dead_letters_are_retried_in_it(project: Project) -> None:
    in_vault(project)
    project.json("run", "--until-end")

    assert project.json("rejections", "retry", "counter", "--all")["rejections"] == [1, 2]
    project.json("run", "--until-end")

    listed = project.json("rejections", "list")["rejections"]
    assert [(row["status"], row["attempts"]) for row in listed] == [("rejected", 2), ("rejected", 3)]
    assert project.json("state", "counter") == {"count": 3}


def test_before_the_first_start_there_is_no_store_and_a_pause_makes_one(project: Project) -> None:
    in_vault(project)
    assert project.json("check")["ok"]
    assert project.json("status")["processors"][0]["database"] is None
    assert not (project.folder / "vault").exists()

    project.json("pause", "counter")

    project.json("run", "--until-end")
    assert project.json("status")["processors"][0]["status"] == "paused"
    assert project.json("state", "counter") == {}


def test_one_processor_may_have_it_for_itself(project: Project) -> None:
    in_vault(project, 'state = "vault:"\n[plugins.vault]\nfolder = "cellar"\n', state="sqlite:state")
    project.install("other", COUNTER)

    project.json("run", "--until-end")

    assert (project.folder / "cellar" / "counter.db").exists()
    assert (project.folder / "state" / "other.db").exists()
    assert [row["name"] for row in project.json("status")["processors"]] == ["counter", "other"]


def test_an_app_opens_it_for_a_handler_that_was_added(project: Project) -> None:
    in_vault(project)
    script = (
        "import axe; app = axe.App('axe.toml')\n"
        "last = lambda event, state: state.update(last=event.offset)\n"
        "added = app.processors.add(id='added', topic='studies', handler=last)\n"
        "app.start(until_end=True); added.offset = 2; app.start(until_end=True)\n"
        "assert (dict(added.state), added.offset) == ({'last': 4}, 5)"
    )

    subprocess.run([sys.executable, "-c", script], cwd=project.folder, env=project.environment, check=True)

    assert (project.folder / "vault" / "added.db").exists()


@pytest.mark.parametrize("command", ["run", "status", "check"])
def test_a_url_that_nobody_knows_is_refused_with_the_known_kinds(project: Project, command: str) -> None:
    in_vault(project, state="fault://name:canary@host")

    done = project.axe(command)

    assert done.returncode == 2, done.stderr
    assert '`state` is of the unknown kind "fault"; known are sqlite:FOLDER, postgresql' in done.stderr
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stderr


def test_without_any_plugin_it_is_refused_likewise(project: Project) -> None:
    project.configure(state="vault:")
    project.install("counter")

    assert "known are sqlite:FOLDER" in project.axe("status").stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("return Store(", "raise OSError('no key'); (", "open_store of the plugin vault failed: OSError: no key"),
        ("@axe.hookimpl", "", "plugin vault (axe-vault 1.0) is broken: its open_store is not marked"),
    ],
)
def test_a_plugin_that_cannot_is_named(project: Project, old: str, new: str, said: str) -> None:
    in_vault(project)
    (module,) = (path for path in project.site.glob("m_*.py") if "class Vault" in path.read_text())
    module.write_text(module.read_text().replace(old, new))

    done = project.axe("status")

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# --- packages that must not be imported into the host unseen


@pytest.mark.parametrize(("code", "reason"), FAULTS)
def test_a_package_whose_import_takes_its_process_with_it_is_left_out_and_the_processors_run(
    project: Project, code: str, reason: str
) -> None:
    project.import_limit_s = 4
    in_vault(project)
    project.install("bad", code, attribute=":Bad", group="axe.plugins")

    done = project.axe("run", "--until-end", "--json")

    assert done.returncode == 1, done.stderr
    [row] = json.loads(done.stdout)["plugins"]
    assert (row["name"], row["reason"]) == ("bad", f"axe-bad 1.0: {reason}")
    assert done.stderr.count(reason) == 1
    assert project.json("state", "counter") == {"count": 3}


@pytest.mark.parametrize(("code", "reason"), FAULTS)
@pytest.mark.parametrize("command", ["run", "status"])
def test_where_the_only_one_that_may_know_the_url_does_so_it_is_named(
    project: Project, command: str, code: str, reason: str
) -> None:
    project.import_limit_s = 4
    in_vault(project)
    (module,) = (path for path in project.site.glob("m_*.py") if "class Vault" in path.read_text())
    module.write_text(code)

    done = project.axe(command)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f'axe: no plugin that works knows the `state` "vault:"; broken: plugin vault (axe-vault 1.0): {reason}'
    )
    assert "Traceback" not in done.stderr


def test_packages_without_the_hook_are_not_imported_into_a_command(project: Project) -> None:
    in_vault(project)
    project.install(
        "beside",
        "import sys\nprint('imported by', sys.argv[0], file=open('imported', 'a'))\nclass Beside: pass",
        attribute=":Beside",
        group="axe.plugins",
    )

    project.json("status")

    assert {line.split("/")[-1] for line in (project.folder / "imported").read_text().splitlines()} == {"probe.py"}


def test_services_of_a_package_that_no_processor_uses_start_there_too(project: Project) -> None:
    in_vault(project, "plugins = []\n")
    project.install("beside", SERVICE, attribute=":Service", group="axe.plugins")

    project.json("run", "--until-end")

    assert (project.folder / "served").read_text() == "yes"


# --- what a broken package keeps nobody from seeing

BROKEN = "plugin vault (axe-vault 1.0) cannot be imported: ZeroDivisionError"


def test_a_state_that_a_broken_package_knows_hides_no_other_processor(project: Project) -> None:
    project.configure('[processors.apart]\nstate = "vault:"\n')
    project.install("vault", "1 / 0", group="axe.plugins")
    for name in ("apart", "counter"):
        project.install(name)
    project.publish("studies", {})
    project.work("counter")

    rows = {row["name"]: row for row in project.json("status")["processors"]}
    findings = {one["subject"]: one for one in project.json("check", code=1)["findings"]}

    assert (rows["counter"]["status"], rows["counter"]["lag"]) == ("stopped", 0)
    assert (rows["apart"]["status"], BROKEN in rows["apart"]["last_error"]) == ("failed", True)
    assert findings["database of counter"]["result"] == "ok"
    assert BROKEN in findings["database of apart"]["message"]


def test_a_common_state_that_a_broken_package_knows_is_a_finding_of_check(project: Project) -> None:
    project.configure(state="vault:")
    project.install("vault", "1 / 0", group="axe.plugins")
    project.install("counter")
    project.publish("studies", {})

    findings = {one["subject"]: one for one in project.json("check", code=1)["findings"]}

    assert findings["topic studies"]["result"] == "ok"
    assert findings["plugin vault"]["result"] == "problem"
    assert BROKEN in findings["database of counter"]["message"]


def test_a_store_that_keeps_nothing_says_so_before_a_wipe_and_its_resets_stay(project: Project) -> None:
    in_vault(project)
    project.json("run", "--until-end")

    done = project.axe("reset", "counter", "--to", "earliest", "--wipe", "--yes")
    refused = project.axe("undo", "counter:1", "--yes")

    reason = "where its state lies nothing is kept of it"
    assert done.stderr == f"axe: counter: `axe undo` will not take this wipe back, because {reason}\n"
    assert refused.returncode == 1
    assert refused.stderr == (
        "axe: counter:1 (reset and wipe) cannot be taken back where its state lies: that kind of store knows no undo\n"
    )
    project.json("pause", "counter")
    assert project.json("undo", "counter:2", "--yes")["changes"] == [{"what": "paused", "from": True, "to": False}]
