"""What is said on stderr, in which form, and what is never said."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NoReturn

import pytest
import structlog

from axe import log
from axe.config import LogConfig

CANARY = 'canary "ünique" \\value'


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, axe = logging.getLogger(), logging.getLogger("axe")
    levels, raising = (root.level, axe.level), logging.raiseExceptions
    yield
    if log._handler is not None:
        root.removeHandler(log._handler)
        log._handler = None
    root.setLevel(levels[0])
    axe.setLevel(levels[1])
    logging.captureWarnings(capture=False)
    logging.raiseExceptions = raising
    structlog.reset_defaults()


class Stderr:
    """What was said since the test began."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self._said = ""

    def getvalue(self) -> str:
        self._said += self._captured.readouterr().err
        return self._said


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Stderr:
    return Stderr(capsys)


def fail(why: str) -> NoReturn:
    raise ValueError(why)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_json_line_has_the_message_the_keys_the_level_and_the_time_in_utc(stderr: Stderr) -> None:
    log.configure(LogConfig(format="json"))

    log.get_logger(processor="study-counter").warning("event rejected", topic="studies", offset=7)

    line = json.loads(stderr.getvalue())
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo == UTC
    assert line == {
        "event": "event rejected",
        "level": "warning",
        "processor": "study-counter",
        "topic": "studies",
        "offset": 7,
    }


def test_the_console_has_one_line_for_people(stderr: Stderr) -> None:
    log.configure(LogConfig())

    log.get_logger().info("processor started", processor="study-counter")

    assert "[info     ] processor started" in stderr.getvalue()
    assert "processor=study-counter" in stderr.getvalue()
    assert stderr.getvalue().count("\n") == 1


@pytest.mark.parametrize(("stream", "coloured"), [(Terminal(), True), (io.StringIO(), False)])
def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, coloured: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(LogConfig())

    log.get_logger().info("processor started")

    assert ("\x1b[" in stream.getvalue()) is coloured


def test_lines_below_the_level_are_not_said(stderr: Stderr) -> None:
    log.configure(LogConfig(level="warning"))

    log.get_logger().info("quiet")
    log.get_logger().warning("loud")

    assert "quiet" not in stderr.getvalue()
    assert "loud" in stderr.getvalue()


def test_debug_says_everything_whatever_the_level(stderr: Stderr) -> None:
    log.configure(LogConfig(level="error"), debug=True)

    log.get_logger().debug("detail")

    assert "detail" in stderr.getvalue()


def test_other_libraries_are_heard_from_warning_on_in_the_same_form(stderr: Stderr) -> None:
    log.configure(LogConfig(format="json", level="debug"))

    logging.getLogger("sqlalchemy").info("quiet")
    logging.getLogger("sqlalchemy").warning("pool of %d is full", 5)

    line = json.loads(stderr.getvalue())
    assert (line["event"], line["level"], line["logger"]) == ("pool of 5 is full", "warning", "sqlalchemy")


def test_configuring_again_replaces_and_does_not_repeat(stderr: Stderr) -> None:
    log.configure(LogConfig())
    log.configure(LogConfig(format="json"))

    log.get_logger().info("once")

    assert json.loads(stderr.getvalue())["event"] == "once"


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_local_variables(stderr: Stderr, form: str) -> None:
    log.configure(LogConfig(format=form), debug=True)  # type: ignore[arg-type]

    def count() -> None:
        payload = "a-local-" + "payload"
        raise ValueError(len(payload))

    try:
        count()
    except ValueError:
        log.get_logger().exception("handler failed")

    assert "ValueError" in stderr.getvalue()
    assert "in count" in stderr.getvalue() or '"name": "count"' in stderr.getvalue()
    assert "a-local-payload" not in stderr.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_without_debug_an_exception_is_one_line_with_its_place(stderr: Stderr, form: str) -> None:
    log.configure(LogConfig(format=form))  # type: ignore[arg-type]
    try:
        fail("no phase")
    except ValueError as error:
        log.get_logger().error("event failed", exc_info=error)
        log.get_logger().exception("hook failed")

    first, second = stderr.getvalue().splitlines()
    for line in (first, second):
        assert "ValueError: no phase" in line
        assert "tests/test_log.py:" in line
        assert "in fail" in line


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_known_secret_is_in_no_line_wherever_it_stands(stderr: Stderr, form: str) -> None:
    log.configure(LogConfig(format=form), debug=True, secrets=[CANARY, "pw"])  # type: ignore[arg-type]
    logger = log.get_logger(bound=CANARY)

    logger.info(f"in the message {CANARY}", value=CANARY, inner={"list": [CANARY]}, exact=(CANARY,))  # noqa: G004
    logging.getLogger("other").warning("foreign %s", CANARY)
    try:
        fail(CANARY)
    except ValueError:
        logger.exception("handler failed")
        logging.getLogger("other").exception("foreign")

    said = stderr.getvalue()
    for form_of_it in (CANARY, repr(CANARY)[1:-1], json.dumps(CANARY)[1:-1], "ünique", "\\u00fcnique"):
        assert form_of_it not in said
    assert "***" in said


@pytest.mark.parametrize("key", ["password", "sasl.password", "dsn", "api_key", "access_token", "Authorization"])
def test_values_under_keys_that_sound_secret_are_masked(stderr: Stderr, key: str) -> None:
    log.configure(LogConfig(format="json"))

    log.get_logger().info("connected", **{key: "hush-hush", "inner": {key: "hush-hush"}})

    assert "hush-hush" not in stderr.getvalue()


def test_the_password_of_a_url_is_masked(stderr: Stderr) -> None:
    log.configure(LogConfig())

    log.get_logger().info("store opened", url="postgresql://axe:hush-hush@db/axe")

    assert "postgresql://axe:***@db/axe" in stderr.getvalue()


def test_bytes_are_counted_and_not_shown(stderr: Stderr) -> None:
    """Bytes are a key or a value of a record."""
    log.configure(LogConfig())

    log.get_logger().info("record fetched", key=b"patient-7")

    assert "patient-7" not in stderr.getvalue()
    assert "<9 bytes>" in stderr.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_value_cannot_make_a_second_line_or_command_the_terminal(stderr: Stderr, form: str) -> None:
    log.configure(LogConfig(format=form))  # type: ignore[arg-type]

    log.get_logger().info("said", reason="one\n2026 [error] forged\x1b[2J\x9b", lines="a\u2028b")

    assert stderr.getvalue().count("\n") == 1
    assert not {"\x1b", "\x9b", "\u2028"} & set(stderr.getvalue())


# --- in somebody else's process


def test_without_configuring_nothing_global_changes_and_lines_go_to_the_standard_logger(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = (structlog.get_config(), list(logging.getLogger().handlers), structlog.is_configured())

    log.get_logger(processor="p").warning("100% full", reason="x", password="hush-hush")

    assert caplog.messages == ["100% full processor='p' reason='x' password='***'"]
    assert caplog.records[0].name == "axe"
    assert (structlog.get_config(), list(logging.getLogger().handlers), structlog.is_configured()) == before


def test_without_configuring_an_exception_reaches_the_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    try:
        fail("why")
    except ValueError:
        log.get_logger().exception("handler failed")

    assert caplog.records[0].exc_info is not None
    assert caplog.messages == ["handler failed"]


def test_configuring_leaves_a_structlog_that_is_configured_already_alone(stderr: Stderr) -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    before = structlog.get_config()

    log.configure(LogConfig())

    assert structlog.get_config() == before


def test_a_plugin_that_uses_structlog_itself_is_heard_on_stderr_in_the_same_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure(LogConfig(format="json"))

    structlog.get_logger("some_plugin").warning("said", password="hush-hush")

    out, err = capsys.readouterr()
    assert out == ""
    assert (json.loads(err)["event"], json.loads(err)["password"]) == ("said", "***")


def test_a_logger_made_before_configuring_follows_it(stderr: Stderr) -> None:
    logger = log.get_logger(processor="early")
    log.configure(LogConfig(format="json"))

    logger.info("started")

    assert json.loads(stderr.getvalue())["processor"] == "early"


def test_the_configuration_imports_no_logging_library_and_no_database() -> None:
    code = (
        "import axe.config, sys;"
        "print([m for m in ('structlog', 'sqlalchemy', 'confluent_kafka', 'rich') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
