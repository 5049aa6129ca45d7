"""The source that a URL names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from axe.errors import ConfigError
from axe.sources import Source, open_source
from axe.sources.folder import FolderSource
from axe.sources.kafka import KafkaSource
from axe.sources.memory import MemorySource


def open_url(url: str, base: Path = Path()) -> Source:
    return open_source(url, group="", properties={}, client_id="tests", base=base)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("kafka://localhost:9092", KafkaSource),
        ("kafka://a:9092,b:9092/", KafkaSource),
        ("file:topics", FolderSource),
        ("memory:", MemorySource),
        ("memory:name", MemorySource),
    ],
)
def test_the_scheme_picks_the_source(url: str, kind: type) -> None:
    source = open_url(url)

    assert type(source) is kind
    source.close()


def test_a_folder_is_relative_to_the_base(tmp_path: Path) -> None:
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / "studies.jsonl").touch()

    assert open_url("file:topics", tmp_path).partitions("studies")
    assert open_url(f"file:{tmp_path / 'topics'}", Path("elsewhere")).partitions("studies")


@pytest.mark.parametrize(
    "url",
    ["", "topics", "kafak://a:1", "kafka:a:1", "kafka://", "kafka://a,,b", "kafka://user:canary@a:1", "file:"],
)
def test_a_url_that_names_no_source_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_url(url)

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("port", ["65536", "70000", "0"])
def test_a_port_that_cannot_be_is_named(port: str) -> None:
    with pytest.raises(ConfigError, match=f"the port {port};"):
        open_url(f"kafka://a:9092,b:{port}")


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"pulsar.*kafka:.*file:.*memory:"):
        open_url("pulsar://a")


def test_a_scheme_is_shown_in_one_line_whatever_it_holds() -> None:
    with pytest.raises(ConfigError) as caught:
        open_url("pul\x1bs\U000ffffe" + "a" * 1000 + "://a:canary@b")

    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(r'`source` is of the unknown kind "pul\x1bs\U000ffffeaaa')
    assert "canary" not in message
    assert len(message) < 300


def test_the_kafka_client_is_not_imported_for_other_sources() -> None:
    code = (
        "import sys, pathlib; from axe.sources import open_source\n"
        "for url in ('file:x', 'memory:'):\n"
        "    open_source(url, group='', properties={}, client_id='c', base=pathlib.Path())\n"
        "assert 'confluent_kafka' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
