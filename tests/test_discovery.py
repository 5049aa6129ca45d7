"""What is installed, and what of it may run; every distribution here is a real folder on the path."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axe.config import Config, load
from axe.discovery import PLUGINS, PROCESSORS, Discovered, Found, FoundStatus, discover, instantiate
from axe.discovery import load as load_plugin
from axe.errors import PluginError

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lay a distribution into a folder of its own (or ``into`` one) and put that on the path."""

    def lay(
        distribution: str,
        entry_points: str,
        *,
        version: str = "1.0",
        code: dict[str, str] | None = None,
        into: str | None = None,
    ) -> Path:
        site = tmp_path / (into or f"{distribution}-{version}")
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        for module, source in (code or {}).items():
            (site / f"{module}.py").write_text(textwrap.dedent(source))
            monkeypatch.delitem(sys.modules, module, raising=False)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
        return info

    return lay


def config(**settings: Any) -> Config:
    return load({"source": "memory:", "state": "memory:", **settings})


def named(name: str, found: Discovered | None = None) -> Found:
    discovered = found or discover(config())
    (one,) = [one for one in discovered.processors + discovered.plugins if one.name == name]
    return one


def a_processor(name: str, value: str) -> str:
    return f"[{PROCESSORS}]\n{name} = {value}\n"


# --- names first


def test_an_installed_processor_is_found_with_its_distribution_and_version(install: Install) -> None:
    install("axe-tiny", a_processor("tiny", "tiny_plugin:Tiny"), version="2.5")

    found = named("tiny")

    assert found == Found(
        name="tiny", value="tiny_plugin:Tiny", distribution="axe-tiny", version="2.5", group=PROCESSORS
    )
    assert found.status is FoundStatus.FOUND


def test_processors_and_plugins_are_listed_apart(install: Install) -> None:
    install("axe-both", f"[{PROCESSORS}]\nboth-p = a:b\n[{PLUGINS}]\nboth-x = a:c\n")

    found = discover(config())

    assert "both-p" in [one.name for one in found.processors]
    assert "both-x" in [one.name for one in found.plugins]
    assert "both-x" not in [one.name for one in found.processors]


def test_discovering_imports_nothing(install: Install) -> None:
    install(
        "axe-loud",
        a_processor("loud", "axe_test_loud:Loud"),
        code={"axe_test_loud": "raise AssertionError('imported')"},
    )

    found = named("loud")

    assert found.status is FoundStatus.FOUND
    assert "axe_test_loud" not in sys.modules


def test_a_package_installed_a_moment_ago_is_found(install: Install) -> None:
    """No cache decides what runs: neither stevedore's on disk nor the import system's."""
    into = "site"
    install("axe-first", a_processor("first-one", "a:b"), into=into)
    assert named("first-one")

    info = install("axe-second", a_processor("second-one", "a:b"), into=into)
    assert named("second-one")

    (info / "entry_points.txt").write_text(a_processor("renamed-one", "a:b"))
    names = [one.name for one in discover(config()).processors]
    assert "renamed-one" in names
    assert "second-one" not in names


@pytest.mark.parametrize("name", ["Upper", "1st", "with space", "a/b", "../up", "ümlaut", "x" * 64, "a.b"])
def test_an_impossible_name_is_broken_and_says_why(install: Install, name: str) -> None:
    install("axe-odd", a_processor(name, "a:b"))

    found = named(name)

    assert found.status is FoundStatus.BROKEN
    assert found.reason is not None
    assert "rename the entry point" in found.reason


@pytest.mark.parametrize("value", ["not a reference", "a:b:c", ":x", ""])
def test_a_reference_that_is_none_is_broken(install: Install, value: str) -> None:
    install("axe-odd", a_processor("odd-value", value))

    found = named("odd-value")

    assert found.status is FoundStatus.BROKEN
    assert "module:object" in str(found.reason)


def test_a_name_that_two_distributions_claim_is_broken_for_both(install: Install) -> None:
    install("axe-one", a_processor("claimed", "one:One"))
    install("axe-two", a_processor("claimed", "two:Two"), version="3.1")

    found = [one for one in discover(config()).processors if one.name == "claimed"]

    assert [one.status for one in found] == [FoundStatus.BROKEN] * 2
    assert {one.distribution for one in found} == {"axe-one", "axe-two"}
    for one in found:
        assert "axe-one 1.0" in str(one.reason)
        assert "axe-two 3.1" in str(one.reason)


def test_a_processor_and_a_plugin_may_share_a_name(install: Install) -> None:
    install("axe-one", f"[{PROCESSORS}]\nshared = a:b\n[{PLUGINS}]\nshared = a:c\n")

    found = discover(config())

    assert named("shared", Discovered(found.processors, ())).status is FoundStatus.FOUND
    assert named("shared", Discovered((), found.plugins)).status is FoundStatus.FOUND


def test_one_distribution_that_declares_a_name_twice_is_broken(install: Install) -> None:
    install("axe-twice", f"[{PROCESSORS}]\ntwice = a:b\ntwice = a:c\n")

    found = [one for one in discover(config()).processors if one.name == "twice"]

    assert [one.status for one in found] == [FoundStatus.BROKEN] * 2
    assert "declares the name twice twice" in str(found[0].reason)


@pytest.mark.parametrize("second_spelling", ["axe-dup", "Axe.Dup", "axe_dup"])
def test_the_same_distribution_twice_on_the_path_is_one_and_the_first_counts(
    install: Install, second_spelling: str
) -> None:
    install(second_spelling, a_processor("dup", "old:Old"), version="1.0", into="behind")
    install("axe-dup", a_processor("dup", "new:New"), version="2.0", into="before")

    found = named("dup")

    assert (found.status, found.version, found.value) == (FoundStatus.FOUND, "2.0", "new:New")


def test_an_entry_point_of_an_older_copy_behind_a_newer_one_is_not_seen(install: Install) -> None:
    install("axe-dup", a_processor("gone", "old:Old"), version="1.0")
    install("axe-dup", "", version="2.0")

    assert "gone" not in [one.name for one in discover(config()).processors]


def test_damaged_metadata_breaks_its_own_distribution_only(install: Install) -> None:
    install("axe-damaged", f"[{PROCESSORS}]\nno line of an entry point\n")
    (install("axe-nameless", a_processor("nameless", "a:b")) / "METADATA").unlink()
    (install("axe-binary", "") / "entry_points.txt").write_bytes(b"\xff\xfe axe.processors")
    install("axe-well", a_processor("well", "a:b"))

    assert named("well").status is FoundStatus.FOUND
    assert named("nameless").distribution == "unknown"
    for name in ("axe-damaged", "axe-binary"):
        assert named(name).status is FoundStatus.BROKEN
        assert "install it again" in str(named(name).reason)


# --- blocked


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"block": ["study-counter"]}, "`block` has study-counter"),
        ({"block": ["other", "study-*"]}, "`block` has study-*"),
        ({"allow": ["axe-else"]}, "axe-studies is not in `allow`"),
        ({"allow": []}, "axe-studies is not in `allow`"),
        ({"processors": {"study-counter": {"enabled": False}}}, "`enabled = false` in [processors.study-counter]"),
    ],
)
def test_what_the_configuration_keeps_out_is_blocked_and_says_by_what(
    install: Install, settings: dict[str, Any], reason: str
) -> None:
    install("axe-studies", a_processor("study-counter", "a:b"), into="studies")

    found = named("study-counter", discover(config(**settings)))

    assert found.status is FoundStatus.BLOCKED
    assert reason in str(found.reason)


def test_allow_compares_normalized_names_of_distributions(install: Install) -> None:
    install("Axe.Some_Thing", a_processor("some-thing", "a:b"))

    assert named("some-thing", discover(config(allow=["axe-some-thing"]))).status is FoundStatus.FOUND


def test_a_distribution_that_is_not_allowed_takes_no_name_away(install: Install) -> None:
    install("axe-good", a_processor("wanted", "a:b"))
    install("axe-squatter", a_processor("wanted", "a:b"))

    found = [one for one in discover(config(allow=["axe-good"])).processors if one.name == "wanted"]

    assert {one.distribution: one.status for one in found} == {
        "axe-good": FoundStatus.FOUND,
        "axe-squatter": FoundStatus.BLOCKED,
    }


def test_a_blocked_name_blocks_plugins_too_but_enabled_is_for_processors(install: Install) -> None:
    install("axe-x", f"[{PLUGINS}]\nreporter = a:b\n")

    off = {"processors": {"reporter": {"enabled": False}}}
    assert named("reporter", discover(config(**off))).status is FoundStatus.FOUND
    assert named("reporter", discover(config(block=["report*"]))).status is FoundStatus.BLOCKED


# --- imports later, one by one


def test_loading_imports_what_the_entry_point_names(install: Install) -> None:
    install(
        "axe-fine",
        a_processor("fine", "axe_test_fine:Outer.Inner"),
        code={"axe_test_fine": "class Outer:\n    class Inner: pass"},
    )

    loaded = load_plugin(named("fine"))

    assert loaded is sys.modules["axe_test_fine"].Outer.Inner


def test_loading_one_imports_no_other_of_the_same_distribution(install: Install) -> None:
    install(
        "axe-pair",
        f"[{PROCESSORS}]\npair-one = axe_test_pair_one\npair-two = axe_test_pair_two\n",
        code={"axe_test_pair_one": "", "axe_test_pair_two": "raise SystemExit"},
    )

    load_plugin(named("pair-one"))

    assert "axe_test_pair_two" not in sys.modules


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_of_axe", "ModuleNotFoundError: No module named 'no_such_module_of_axe'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise BaseException('bare')", "BaseException: bare"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("assert False, 'no'", "AssertionError: no"),
        ("def broken(:", "SyntaxError: "),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
        ("class E(Exception):\n    def __str__(self): raise TypeError\nraise E", "E: a E whose text cannot be shown"),
    ],
)
def test_a_plugin_that_fails_to_import_is_named_with_the_reason_and_the_line(
    install: Install, code: str, reason: str
) -> None:
    install("axe-bad", a_processor("bad", "axe_test_bad:Bad"), code={"axe_test_bad": f"import json\n{code}"})

    with pytest.raises(PluginError) as caught:
        load_plugin(named("bad"))

    message = str(caught.value)
    assert message.startswith("processor bad (axe-bad 1.0) cannot be imported: ")
    assert reason in message
    assert "axe_test_bad.py:" in message
    assert "\n" not in message
    assert caught.value.__cause__ is not None


def test_the_line_is_the_plugins_own_when_a_library_fails_under_it(install: Install) -> None:
    install(
        "axe-bad",
        a_processor("bad", "axe_test_bad:Bad"),
        code={"axe_test_bad": "import json\n\njson.loads('{')"},
    )

    with pytest.raises(PluginError, match=r"axe_test_bad\.py:3\)"):
        load_plugin(named("bad"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("axe_test_missing:X", "No module named 'axe_test_missing'"),
        ("axe_test_there:Missing", "has no attribute 'Missing'"),
    ],
)
def test_an_entry_point_that_names_nothing_says_what_is_missing(install: Install, value: str, reason: str) -> None:
    install("axe-bad", a_processor("bad", value), code={"axe_test_there": ""})

    with pytest.raises(PluginError, match=reason):
        load_plugin(named("bad"))


def test_an_interrupt_at_the_keyboard_is_no_fault_of_the_plugin(install: Install) -> None:
    install("axe-bad", a_processor("bad", "axe_test_bad"), code={"axe_test_bad": "raise KeyboardInterrupt"})

    with pytest.raises(KeyboardInterrupt):
        load_plugin(named("bad"))


@pytest.mark.parametrize("status", [FoundStatus.BLOCKED, FoundStatus.BROKEN])
def test_what_may_not_run_is_not_imported(status: FoundStatus) -> None:
    found = Found(
        name="n", value="json", distribution="d", version="1", group=PROCESSORS, status=status, reason="because"
    )

    with pytest.raises(PluginError, match="does not run: because"):
        load_plugin(found)


def test_looking_for_plugins_needs_no_cache_folder(install: Install, tmp_path: Path) -> None:
    """stevedore would write its listing under the home folder."""
    install("axe-fine", a_processor("fine", "json:dumps"))
    code = (
        "from axe.config import load; from axe import discovery as d;"
        "d.load(next(f for f in d.discover(load(dict(source='memory:', state='memory:'))).processors))"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "HOME": str(home), "PATH": ""}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert not list(home.rglob("*"))


# --- from what was loaded to what has hooks


class WithSettings:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings


class WithPositionalSettings:
    def __init__(self, settings: dict[str, Any], /) -> None:
        self.settings = settings


class WithoutSettings:
    pass


@pytest.mark.parametrize("cls", [WithSettings, WithPositionalSettings])
def test_a_class_is_made_with_its_settings_when_it_takes_them(cls: type) -> None:
    made = instantiate(cls, {"a": 1})

    assert isinstance(made, cls)
    assert made.settings == {"a": 1}


def test_a_class_is_made_without_settings_when_it_takes_none() -> None:
    assert isinstance(instantiate(WithoutSettings, {"a": 1}), WithoutSettings)


@pytest.mark.parametrize("obj", [WithoutSettings(), sys, len, lambda event: None])
def test_instances_modules_and_functions_are_taken_as_they_are(obj: object) -> None:
    assert instantiate(obj, {}) is obj


@pytest.mark.parametrize("obj", [None, 3, "text", b"", [], {}, ()])
def test_an_object_that_can_have_no_hooks_is_refused(obj: object) -> None:
    with pytest.raises(PluginError, match="class, an instance, a module or a function"):
        instantiate(obj, {})


def test_an_entry_point_of_the_wrong_type_is_named_with_its_distribution() -> None:
    found = Found(name="n", value="m:C", distribution="axe-n", version="1.5", group=PLUGINS)

    with pytest.raises(PluginError, match=r"\Aplugin n \(axe-n 1\.5\) names a int: "):
        instantiate(3, {}, found)


class Exits:
    def __init__(self) -> None:
        sys.exit(4)


class WantsMore:
    def __init__(self, settings: dict[str, Any], more: int) -> None: ...


@pytest.mark.parametrize(("cls", "reason"), [(Exits, "SystemExit: 4"), (WantsMore, "TypeError: .*'more'")])
def test_a_constructor_that_fails_names_the_plugin_and_the_reason(cls: type, reason: str) -> None:
    found = Found(name="n", value="m:C", distribution="axe-d", version="1.2", group=PLUGINS)

    with pytest.raises(PluginError, match=rf"plugin n \(axe-d 1\.2\) cannot be made: {reason}"):
        instantiate(cls, {}, found)
