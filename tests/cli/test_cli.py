"""The command ``axe`` as a person or a script meets it: a process with arguments, streams and an exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import timedelta
from fnmatch import fnmatchcase

import pytest

import axe
from axe.cli import hoisted
from axe.cli.reset import parse_target
from axe.errors import ConfigError

from .conftest import COUNTER, Project, wait_for


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and "Traceback" not in text


# --- the command itself


def test_help_names_every_command_and_imports_nothing_heavy(project: Project) -> None:
    script = (
        "import sys\nfrom axe.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: code = e.code\n"
        "heavy = {'sqlalchemy', 'structlog', 'confluent_kafka', 'rich', 'stevedore'} & set(sys.modules)\n"
        "assert (code, heavy) == (0, set()), (code, heavy)"
    )

    done = subprocess.run([sys.executable, "-c", script], env=project.environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    for command in ("run", "processors", "check", "status", "reset", "pause", "resume", "rejections", "state"):
        assert f"\n  {command} " in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("command", ["run", "status", "reset", "rejections list", "rejections show"])
def test_every_command_has_its_own_help_which_names_the_options_of_all(project: Project, command: str) -> None:
    done = project.started(*command.split(), "--help")

    assert done.returncode == 0
    assert f"Usage: axe {command} " in done.stdout
    assert "--config FILE, --json, --debug" in done.stdout


@pytest.mark.parametrize("words", [["nonsense"], ["status", "--nonsense"], ["reset", "counter"], ["--config"]])
def test_wrong_usage_is_one_line_and_exit_code_2(project: Project, words: list[str]) -> None:
    done = project.started(*words)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("axe: ")
    assert one_line(done.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--only"], "axe: option '--only' * argument; see axe run --help"),
        (["rejections", "list", "--limit"], "axe: option '--limit' * argument; see axe rejections list --help"),
        (["--json", "--config", "run", "status", "--watc"], "axe: no such option: --watc*ee axe status --help"),
        (["status", "--config"], "axe: option '--config' * argument; see axe --help"),
        (["statu"], "axe: no such command 'statu'*[;?] [sS]ee axe --help"),
        (["pause"], "axe: missing argument 'NAME'; see axe pause --help"),
    ],
)
def test_wrong_usage_says_what_is_wrong_and_where_the_help_is(project: Project, words: list[str], said: str) -> None:
    assert fnmatchcase(project.started(*words).stderr, f"{said}\n")


@pytest.mark.parametrize("limit", ["soon", "0", "-1", "nan", "inf"])
def test_a_limit_of_imports_that_is_none_is_one_line_and_exit_code_2(project: Project, limit: str) -> None:
    project.install("counter")

    done = project.started("processors", env={"AXE_PROBE_S": limit})

    assert done.returncode == 2
    assert one_line(done.stderr)
    assert "AXE_PROBE_S: expected a number of seconds above 0" in done.stderr


def test_a_wrong_configuration_is_one_line_and_exit_code_2(project: Project) -> None:
    project.configure("sorce = 1")

    done = project.started("status")

    assert done.returncode == 2
    assert "did you mean source?" in done.stderr
    assert one_line(done.stderr)


def test_debug_shows_the_traceback(project: Project) -> None:
    project.configure("sorce = 1")

    assert "Traceback" in project.started("status", "--debug").stderr


@pytest.mark.parametrize("before", [True, False])
def test_the_configuration_is_named_before_or_after_the_command(project: Project, *, before: bool) -> None:
    (project.folder / "axe.toml").rename(project.folder / "other.toml")
    words = ["--config", "other.toml", "status"] if before else ["status", "--config=other.toml"]

    assert project.json(*words) == {"processors": []}


def test_options_behind_a_double_dash_stay_where_they_are() -> None:
    given = ["state", "n", "--json", "--", "--debug"]

    assert hoisted(given) == ["--json", "state", "n", "--", "--debug"]


def test_the_version_needs_neither_a_configuration_nor_a_plugin(project: Project) -> None:
    (project.folder / "axe.toml").unlink()
    project.install("beside", "1 / 0", group="axe.plugins")

    done = project.started("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"axe {axe.__version__}\n", "")
    assert project.json("--version") == {"version": axe.__version__}


def test_a_reader_that_goes_away_causes_no_complaint(project: Project) -> None:
    project.install("counter")
    command = [sys.executable, "-m", "axe", "processors", "--json"]

    done = subprocess.Popen(
        command, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert done.stdout is not None
    assert done.stderr is not None
    done.stdout.close()
    with done.stderr:
        said = done.stderr.read()

    assert done.wait(30) == 141
    assert said == b""


def test_ctrl_c_ends_quietly(project: Project) -> None:
    project.install("slow", "open('began', 'w').close()\nwhile True: pass")
    # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "axe", "processors"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    wait_for((project.folder / "began").exists, "the import did not begin")

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (130, "", "")


# --- processors


def test_processors_says_what_is_ready_and_what_it_reads(project: Project) -> None:
    project.install("counter")

    assert project.json("processors") == {
        "processors": [
            {
                "name": "counter",
                "distribution": "axe-counter",
                "distribution_version": "1.0",
                "version": 2,
                "topics": ["studies"],
                "status": "ready",
                "reason": None,
            }
        ],
        "plugins": [],
    }


def test_processors_lists_the_plugins_too_and_what_is_wrong_with_them(project: Project) -> None:
    project.install("counter")
    project.install("commands", COMMANDS, group="axe.plugins")
    project.install("bad", "import no_such_module", group="axe.plugins")
    project.install("off", "raise AssertionError('imported')", group="axe.plugins")
    project.configure('block = ["off"]')

    document, shown = project.json("processors"), project.axe("processors").stdout

    assert [row["name"] for row in document["processors"]] == ["counter"]
    assert [(row["name"], row["distribution"], row["version"], row["status"]) for row in document["plugins"]] == [
        ("bad", "axe-bad", "1.0", "broken"),
        ("commands", "axe-commands", "1.0", "ready"),
        ("off", "axe-off", "1.0", "blocked"),
    ]
    assert "No module named 'no_such_module'" in document["plugins"][0]["reason"]
    for said in ("plugin ", "axe-commands", "ready", "no_such_module", "`block` has off"):
        assert said in shown


def test_processors_says_what_is_blocked_and_by_what(project: Project) -> None:
    project.install("counter", "raise AssertionError('imported')")
    project.configure('block = ["count*"]')

    (row,) = project.json("processors")["processors"]

    assert row["status"] == "blocked"
    assert "`block` has count*" in row["reason"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: pass", "does not end"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("input()", "EOFError"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import subprocess; subprocess.Popen(['sleep', '60']); raise ValueError('no')", "ValueError: no"),
        ("class Counter:\n  topics = ('a',)", "it has no handler"),
    ],
)
def test_a_broken_plugin_is_told_of_and_harms_no_other(project: Project, code: str, reason: str) -> None:
    project.import_limit_s = 4
    project.install("bad", code)
    project.install("counter", "print('hello')\n" + COUNTER_WITHOUT_INDENT)

    bad, good = project.json("processors")["processors"]

    assert (bad["status"], good["status"]) == ("broken", "ready")
    assert reason in bad["reason"]


COUNTER_WITHOUT_INDENT = """
class Counter:
    topics = ("studies/created",)
    def __call__(self, event, state): pass
"""


# --- status


def test_status_of_what_never_ran_is_stopped_and_imports_nothing(project: Project) -> None:
    project.install("counter", "raise AssertionError('imported')")

    (row,) = project.json("status")["processors"]

    assert (row["name"], row["status"], row["positions"], row["last_error"]) == ("counter", "stopped", [], None)
    assert row["note"] == "has not run yet"
    assert not (project.folder / "state").exists()


def test_status_shows_position_end_lag_and_rejections(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {"a": 1}, {"bad": True})
    project.work()
    project.publish("studies", {"a": 3})

    (row,) = project.json("status")["processors"]

    assert (row["version"], row["status"], row["lag"], row["rejections"]) == (2, "stopped", 1, 1)
    (at,) = row["positions"]
    assert {key: at[key] for key in ("topic", "partition", "position", "end", "lag", "epoch")} == {
        "topic": "studies",
        "partition": 0,
        "position": 2,
        "end": 3,
        "lag": 1,
        "epoch": 1,
    }


def test_status_says_that_a_database_has_no_plugin(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {})
    project.work()
    for info in project.site.glob("*.dist-info"):
        (info / "entry_points.txt").write_text("")

    (row,) = project.json("status")["processors"]

    assert "no plugin" in row["note"]


def test_status_goes_on_without_the_source_and_soon(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {})
    project.work()
    project.configure(source="kafka://127.0.0.1:9")
    started = time.monotonic()

    done = project.axe("status", "--json")

    (row,) = json.loads(done.stdout)["processors"]
    assert done.returncode == 0
    assert (row["lag"], row["positions"][0]["end"], row["positions"][0]["lag"]) == (None, None, None)
    # The client's own limits begin at 60.
    assert time.monotonic() - started < 30


def test_an_unreachable_broker_is_one_line_that_says_what_to_do(project: Project) -> None:
    ran(project)
    project.configure(source="kafka://127.0.0.1:1")

    said = project.axe("status").stderr

    assert one_line(said)
    refused = "Connect to ipv4#127.0.0.1:1 failed: Connection refused"
    assert said.startswith(f"axe: no answer from 127.0.0.1:1: {refused}; start the")
    assert said.rstrip().endswith("start the broker, or correct `source`")


def test_watch_and_json_do_not_go_together(project: Project) -> None:
    assert project.axe("status", "--watch", "--json").returncode == 2


# --- reset


def ran(project: Project, count: int = 3) -> None:
    project.install("counter")
    project.publish("studies", *({"n": n} for n in range(count)))
    project.work()


def position(project: Project) -> int:
    (row,) = project.json("status")["processors"]
    return int(row["positions"][0]["position"])


def test_a_reset_without_a_terminal_needs_yes(project: Project) -> None:
    ran(project)

    done = project.axe("reset", "counter", "--to", "earliest")

    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert one_line(done.stderr)
    assert position(project) == 3


def test_a_reset_with_yes_moves_and_with_wipe_drops_the_values(project: Project) -> None:
    ran(project)

    done = project.json("reset", "counter", "--to", "1", "--wipe", "--yes")

    assert done["plan"] == [{"processor": "counter", "partition": "studies[0]", "from": 3, "to": 1, "wipe": True}]
    assert position(project) == 1
    assert project.json("state", "counter") == {}


def test_a_dry_run_shows_the_plan_and_changes_nothing(project: Project) -> None:
    ran(project)
    before = project.files()

    done = project.axe("reset", "--topic", "studies", "--to", "earliest", "--dry-run")

    assert done.returncode == 0
    assert "studies[0]" in done.stdout
    assert project.files() == before


def test_a_reset_beyond_the_log_is_refused(project: Project) -> None:
    ran(project)

    done = project.axe("reset", "counter", "--to", "4", "--yes")

    assert done.returncode == 2
    assert "4 is outside" in done.stderr
    assert position(project) == 3


def test_where_one_of_several_cannot_go_there_none_is_moved(project: Project) -> None:
    ran(project)
    project.install("long", COUNTER.replace("studies", "long"))
    project.publish("long", *range(9))
    project.work("long")

    done = project.axe("reset", "long", "counter", "--to", "5", "--yes")

    assert done.returncode == 2
    assert "studies[0] holds the offsets 0 to 3" in done.stderr
    assert [row["positions"][0]["position"] for row in project.json("status")["processors"]] == [3, 9]


def test_a_wipe_of_one_topic_of_two_is_refused_and_says_why(project: Project) -> None:
    project.install("both", COUNTER.replace('("studies",)', '("studies", "visits")'))
    project.publish("studies", {}, {})
    project.publish("visits", {})
    project.work("both")

    done = project.axe("reset", "--topic", "studies", "--to", "earliest", "--wipe", "--yes")

    assert done.returncode == 2
    assert "drops what was built from visits[0] too" in done.stderr
    assert project.json("state", "both") == {"count": 3}
    project.json("reset", "--topic", "studies", "--to", "earliest", "--yes")
    (row,) = project.json("status")["processors"]
    assert [at["position"] for at in row["positions"]] == [0, 1]


def test_what_never_ran_can_be_placed_by_a_reset(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {}, {}, {})

    project.json("reset", "counter", "--to", "2", "--yes")
    project.work()

    assert project.json("state", "counter", "count") == 1


def test_names_and_a_topic_together_are_refused(project: Project) -> None:
    ran(project)

    assert project.axe("reset", "counter", "--topic", "studies", "--to", "latest", "--yes").returncode == 2


def test_an_unknown_processor_names_the_nearest(project: Project) -> None:
    project.install("study-counter")

    done = project.axe("reset", "study-countr", "--to", "earliest", "--yes")

    assert done.returncode == 2
    assert "did you mean study-counter?" in done.stderr


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "UPPER", "x\x1b[31m"])
def test_an_impossible_name_is_refused_before_any_path_is_made(project: Project, name: str) -> None:
    done = project.axe("pause", name)

    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert one_line(done.stderr)


def test_a_target_is_a_word_an_offset_a_time_or_a_duration_back() -> None:
    assert parse_target("earliest") == "earliest"
    assert parse_target("17") == 17
    assert parse_target("-1h30m") == timedelta(minutes=90)
    assert str(parse_target("2026-03-01")) == "2026-03-01 00:00:00+00:00"


@pytest.mark.parametrize("text", ["", "-5", "soon", "-1y", "1h", "-99999999999999w", "9" * 40])
def test_anything_else_is_no_target(text: str) -> None:
    with pytest.raises(ConfigError, match="--to"):
        parse_target(text)


# --- pause and resume, rejections, state


def test_pause_lasts_and_resume_lets_go(project: Project) -> None:
    ran(project)

    project.json("pause", "counter")
    project.publish("studies", {})
    project.work()
    assert (project.json("status")["processors"][0]["status"], position(project)) == ("paused", 3)

    project.json("resume", "counter")
    project.work()
    assert (project.json("status")["processors"][0]["status"], position(project)) == ("stopped", 4)


def test_what_never_ran_can_be_paused(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {})

    assert project.axe("pause", "counter").returncode == 0
    project.work()

    assert project.json("state", "counter") == {}


def test_rejections_are_listed_and_shown_with_their_bytes(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {"bad": "é"}, '{"bad": 1')
    with (project.folder / "data" / "studies.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\n")
    project.work()

    listed = project.json("rejections", "list")["rejections"]
    listed.sort(key=lambda row: row["offset"])
    assert [(row["processor"], row["offset"]) for row in listed] == [("counter", 0), ("counter", 1), ("counter", 2)]
    assert listed[0]["reason"] == "it is bad"
    text = project.json("rejections", "show", "counter", str(listed[0]["id"]))
    raw = project.json("rejections", "show", "counter", str(listed[2]["id"]))
    assert (json.loads(text["value"]), text["value_encoding"]) == ({"bad": "é"}, "utf-8")
    assert (raw["value"], raw["value_encoding"], raw["headers"]) == ("//4=", "base64", [])


def test_a_rejection_that_does_not_exist_is_exit_code_1(project: Project) -> None:
    ran(project)

    done = project.axe("rejections", "show", "counter", "99")

    assert done.returncode == 1
    assert one_line(done.stderr)


def test_state_shows_all_values_or_one(project: Project) -> None:
    ran(project)

    assert project.json("state", "counter") == {"count": 3}
    assert project.json("state", "counter", "count") == 3
    missing = project.axe("state", "counter", "cuont")
    assert missing.returncode == 1
    assert "did you mean count?" in missing.stderr


# --- one of several cannot be read


DAMAGED = "a file that is no database, and longer than the sixteen bytes that tell one"


def with_a_damaged_one(project: Project) -> None:
    """Let `counter` and `damaged` have a rejection each, and spoil the database of one."""
    for name in ("counter", "damaged"):
        project.install(name)
    project.publish("studies", {"bad": True})
    project.work("counter")
    project.work("damaged")
    for beside in (project.folder / "state").glob("damaged.db-*"):
        beside.unlink()
    (project.folder / "state" / "damaged.db").write_text(DAMAGED * 100)


def test_a_damaged_database_hides_no_rejections_of_others(project: Project) -> None:
    with_a_damaged_one(project)

    done = project.axe("rejections", "list", "--json")

    assert [row["processor"] for row in json.loads(done.stdout)["rejections"]] == ["counter"]
    assert done.returncode == 1
    assert done.stderr.startswith("axe: damaged: ")
    assert one_line(done.stderr)


def test_a_damaged_database_keeps_no_other_from_being_paused_and_resumed(project: Project) -> None:
    with_a_damaged_one(project)

    for command, paused in (("pause", True), ("resume", False)):
        done = project.axe(command, "damaged", "counter", "--json")

        assert json.loads(done.stdout) == {"processors": [{"name": "counter", "paused": paused}]}
        assert done.returncode == 1
        assert done.stderr.startswith("axe: damaged: ")


def test_a_damaged_database_is_one_row_of_status_and_one_problem_of_check(project: Project) -> None:
    with_a_damaged_one(project)

    rows = {row["name"]: row for row in project.json("status")["processors"]}
    problems = [one["subject"] for one in project.json("check", code=1)["findings"] if one["result"] == "problem"]

    assert (rows["counter"]["status"], rows["damaged"]["status"]) == ("stopped", "failed")
    assert problems == ["database of damaged"]


def test_a_place_of_its_own_that_is_away_hides_no_other_processor(project: Project) -> None:
    ran(project)
    project.install("apart")
    project.configure("[processors.apart]\nstate = 'postgresql+psycopg://127.0.0.1:1/none'\n")

    rows = {row["name"]: row for row in project.json("status")["processors"]}

    assert rows["counter"]["positions"][0]["position"] == 3
    assert (rows["apart"]["status"], rows["apart"]["lag"]) == ("unassigned", None)
    assert project.axe("rejections", "list").returncode == 1


# --- check


def test_check_says_nothing_of_databases_that_nobody_will_make(project: Project) -> None:
    project.install("counter")
    project.install("second")
    project.configure('block = ["second"]')
    project.publish("studies", {})

    found = {one["subject"]: one["message"] for one in project.json("check")["findings"]}

    assert found["database of counter"] == "not there yet: made at the first start"
    assert "database of second" not in found


def test_check_finds_nothing_wrong_where_all_is_well_and_changes_nothing(project: Project) -> None:
    ran(project)
    before = project.files()

    done = project.json("check")

    assert (done["ok"], done["problems"]) == (True, 0)
    assert project.files() == before


def test_check_before_the_first_start_makes_no_database(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {})

    assert project.json("check")["ok"]
    assert not (project.folder / "state").exists()


def test_check_finds_a_broken_plugin_a_missing_topic_and_a_shortened_log(project: Project) -> None:
    ran(project)
    project.install("bad", "import no_such_module")
    project.install("other", COUNTER_WITHOUT_INDENT.replace("studies/created", "missing"))
    (project.folder / "data" / "studies.jsonl").write_text('{"n": 0}\n')

    problems = {
        one["subject"]: one["message"]
        for one in project.json("check", code=1)["findings"]
        if one["result"] == "problem"
    }

    assert set(problems) == {"processor bad", "topic missing", "positions of counter"}
    assert "the log ends at 1" in problems["positions of counter"]


def test_check_and_status_say_which_distribution_is_broken(project: Project) -> None:
    ran(project)
    project.install("number", "Counter = 3", group="axe.plugins")
    project.install("bad", "class Counter: topics = ('studies',)")
    project.install("Upper")

    problems = [one for one in project.json("check", code=1)["findings"] if one["result"] == "problem"]

    assert [(one["subject"], one["message"].partition(")")[0] + ")") for one in problems] == [
        ("processor Upper", "processor Upper (axe-Upper 1.0)"),
        ("processor bad", "processor bad (axe-bad 1.0)"),
        ("plugin number", "plugin number (axe-number 1.0)"),
    ]
    assert all(one["message"].count("(axe-") == 1 for one in problems)
    project.configure('block = ["counter"]')
    notes = {row["name"]: row["note"] for row in project.json("status")["processors"]}
    assert notes["counter"] == "processor counter (axe-counter 1.0) is blocked: `block` has counter"


def test_check_notes_what_the_configuration_names_and_nobody_has(project: Project) -> None:
    project.install("counter")
    project.install("reporter", "class Counter: pass", group="axe.plugins")
    project.publish("studies", {})
    project.configure("""
        [topics.study]
        [plugins.reportr]
        [processors.counter]
        plugins = ["reprter"]
        """)

    done = project.json("check")

    assert done["ok"]
    assert [(one["subject"], one["message"]) for one in done["findings"] if one["result"] == "note"] == [
        ("[plugins.reportr]", "no such plugin is installed; did you mean reporter?"),
        ("configuration", "processors.counter.plugins: no plugin reprter is installed; did you mean reporter?"),
        ("[topics.study]", "no processor that may run reads it; did you mean studies?"),
    ]
    warned = project.axe("run", "--until-end").stderr
    assert "processors.counter.plugins: no plugin reprter is installed; did you mean reporter?" in warned


def test_check_says_what_to_do_about_a_processor_that_failed(project: Project) -> None:
    project.install("counter", NOISY.replace('print("an event")', "1 / 0"))
    project.configure("[processors.counter]\nretries = 0\n")
    project.publish("studies", {})
    project.work()

    assert "; mend the cause, then `axe resume counter`" in project.axe("check").stdout


UNDECODABLE = [
    ('decode = ["jsn"]', 'topics.studies.decode: there is no decoder "jsn"; did you mean "json"?'),
    ('key = ["jsn"]', 'topics.studies.key: there is no decoder "jsn"; did you mean "json"?'),
    ('event_type = "type"', 'topics.studies.event_type: "type" is neither "header:NAME" nor "value:FIELD"'),
    ('decode = ["avro"]\nschema = "none.avsc"', "none.avsc: No such file or directory"),
    ('decode = ["avro"]', 'topics.studies.decode: "avro" needs the setting `schema`'),
]


@pytest.mark.parametrize(("setting", "said"), UNDECODABLE)
def test_a_topic_that_cannot_be_decoded_is_refused_by_run_and_found_by_check(
    project: Project, setting: str, said: str
) -> None:
    project.install("counter")
    project.publish("studies", {})
    project.configure(f"[topics.studies]\n{setting}\n")

    run, checked = project.axe("run", "--until-end"), project.json("check", code=1)

    assert (run.returncode, said in run.stderr, one_line(run.stderr)) == (2, True, True), run.stderr
    (problem,) = [one for one in checked["findings"] if one["result"] == "problem"]
    assert problem["subject"] == "[topics.studies]"
    assert said in problem["message"]


def test_check_finds_a_database_that_is_gone(project: Project) -> None:
    ran(project)
    for path in (project.folder / "state").glob("counter.db*"):
        path.unlink()

    problems = [one for one in project.json("check", code=1)["findings"] if one["result"] == "problem"]

    assert [one["subject"] for one in problems] == ["database of counter"]
    assert "is gone" in problems[0]["message"]
    assert project.json("status")["processors"][0]["status"] == "failed"


def test_check_goes_on_where_the_server_of_the_databases_is_away(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {})
    project.configure(state="postgresql+psycopg://127.0.0.1:1/none")

    findings = project.json("check", code=1)["findings"]

    assert [one["subject"] for one in findings if one["result"] == "problem"] == ["database of counter"]
    assert {"subject": "topic studies", "result": "ok", "message": "1 partition"} in findings


# --- commands of plugins


COMMANDS = """
import axe

class Counter:
    @axe.hookimpl
    def commands(self, cli):
        @cli.command()
        def hello(): print("hello from a plugin")
        @cli.command()
        def other(): pass
"""


def test_a_plugin_adds_commands(project: Project) -> None:
    project.install("greeter", COMMANDS, group="axe.plugins")

    assert "hello from a plugin" in project.axe("hello").stdout
    assert "hello" in project.axe("--help").stdout


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: pass", "does not end: stopped after 4 s"),
        ("import os; os._exit(9)", "exit code 9"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        (COMMANDS.replace("@axe.hookimpl", ""), "its commands is not marked"),
    ],
)
@pytest.mark.parametrize("word", ["--help", "hello"])
def test_an_import_that_does_not_end_or_ends_the_process_takes_no_help_down(
    project: Project, word: str, code: str, reason: str
) -> None:
    project.import_limit_s = 4
    project.install("another", code, group="axe.plugins")
    project.install("greeter", COMMANDS, group="axe.plugins")

    done = project.axe(word)

    assert (done.returncode, "hello" in done.stdout) == (0, True)
    assert "axe: warning: plugin another (axe-another 1.0)" in done.stderr
    assert reason in done.stderr


def test_a_broken_plugin_only_warns_and_own_commands_do_not_load_it(project: Project) -> None:
    project.install("greeter", "1 / 0", group="axe.plugins")

    shown, status = project.axe("--help"), project.axe("status", "--json")

    assert shown.returncode == 0
    assert "axe: warning: plugin greeter" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert (status.returncode, "greeter" in status.stderr) == (0, False)


# --- run


@pytest.mark.parametrize("command", ["run", "check"])
def test_with_nothing_installed_there_is_one_clear_line(project: Project, command: str) -> None:
    done = project.axe(command)

    assert done.returncode == 2
    assert "no processor is installed" in done.stderr
    assert one_line(done.stderr)


def test_run_refuses_a_name_that_nobody_has(project: Project) -> None:
    project.install("counter")

    done = project.axe("run", "--only", "conter", "--until-end")

    assert done.returncode == 2
    assert "did you mean counter?" in done.stderr


def test_run_says_at_its_start_what_runs_where_the_state_lies_and_how_to_stop_it(project: Project) -> None:
    project.install("counter")
    project.install("second")
    project.publish("studies", {})

    [line] = [line for line in project.axe("run", "--until-end").stderr.splitlines() if "axe runs" in line]

    assert "counter, second" in line
    assert "sqlite:state" in line
    assert "Ctrl-C" in line


def test_run_until_end_reads_everything_and_prints_one_document(project: Project) -> None:
    pytest.importorskip("axe.host")
    project.install("counter", "print('noise on stdout')\nimport os; os.write(1, b'more of it')\n" + NOISY)
    project.publish("studies", {"n": 1}, {"n": 2})

    (row,) = project.json("run", "--until-end")["processors"]

    assert (row["name"], row["status"], row["events"], row["rejections"]) == ("counter", "stopped", 2, 0)
    assert project.json("state", "counter") == {"count": 2}


NOISY = """
class Counter:
    topics = ("studies",)
    def __call__(self, event, state):
        print("an event")
        state["count"] = state.get("count", 0) + 1
"""


def test_run_exits_1_when_a_processor_fails_though_another_ran(project: Project) -> None:
    pytest.importorskip("axe.host")
    project.configure("[processors.bad]\nretries = 0\n")
    project.install("bad", NOISY.replace('print("an event")', "1 / 0"))
    project.install("counter")
    project.publish("studies", {"n": 1})

    done = project.axe("run", "--until-end")

    assert done.returncode == 1
    assert "stopped" in done.stdout
    assert "failed" in done.stdout
    assert project.json("state", "counter") == {"count": 1}


def test_debug_shows_the_debug_lines_of_workers(project: Project) -> None:
    project.install("counter", "import logging" + NOISY.replace("print(", 'logging.getLogger("axe.counter").debug('))
    project.publish("studies", {"n": 1})

    assert "an event" in project.axe("run", "--until-end", "--debug").stderr
    project.publish("studies", {"n": 2})
    assert "an event" not in project.axe("run", "--until-end").stderr
