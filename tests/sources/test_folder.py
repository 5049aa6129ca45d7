"""What only a folder does: lines, envelopes, files that grow, shrink and are incomplete."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axe.errors import BeyondEnd, ConfigError, SourceUnavailable, TopicMissing, TopicRecreated
from axe.event import TopicPartition
from axe.sources import Bounds, folder, lines
from axe.sources.folder import FolderSource

from .reading import fetch_some, read_to_end, wait_for_error

STUDIES = TopicPartition("studies", 0)


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    return FolderSource(tmp_path)


def envelope(**fields: object) -> str:
    return json.dumps({"topic": "other", "partition": 9, "offset": 77, **fields}) + "\n"


def test_a_line_is_the_value_and_its_number_the_offset(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "studies.jsonl").write_bytes(b'{"a": 1}\n\n"null"\nnull\n')

    source.assign({STUDIES: 0})
    records, _ = read_to_end(source, [STUDIES])

    assert [(record.offset, record.value) for record in records] == [
        (0, b'{"a": 1}'),
        (1, b""),
        (2, b'"null"'),
        (3, None),
    ]
    assert records[0].key is None and records[0].timestamp_ms is None and records[0].headers == ()


def test_lines_from_windows_lose_one_carriage_return(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "studies.jsonl").write_bytes(b'1\r\nnull\r\n\r\n"a\r"\n2\r\r\n')

    source.assign({STUDIES: 0})
    records, _ = read_to_end(source, [STUDIES])

    assert [record.value for record in records] == [b"1", None, b"", b'"a\r"', b"2\r"]


def test_numbered_files_are_partitions(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    for name in ("0.jsonl", "1.kcat", "10.jsonl", "02.jsonl", "README.md", "x.jsonl"):
        (tmp_path / "studies" / name).touch()

    assert source.partitions("studies") == [TopicPartition("studies", number) for number in (0, 1, 10)]


def test_a_last_line_without_a_newline_is_not_there_yet(
    source: FolderSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "studies.jsonl"
    path.write_bytes(b"1\n2\n{incompl")
    source.assign({STUDIES: 0})

    records, reached = read_to_end(source, [STUDIES])
    assert not source.fetch(events=10, size=1000, timeout_s=0.2).records

    assert [record.value for record in records] == [b"1", b"2"]
    assert reached == {STUDIES: 2}
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert f"file='{path}'" in line.getMessage()
    assert "offset=2" in line.getMessage()

    with path.open("ab") as file:
        file.write(b"ete}\n")
    assert [(record.offset, record.value) for record in fetch_some(source)] == [(2, b"{incomplete}")]


def test_a_half_line_is_named_with_the_lines_before_it(
    source: FolderSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run until the end has no reason to look at the file again after that."""
    (tmp_path / "studies.jsonl").write_bytes(b"1\n{incompl")
    source.assign({STUDIES: 0})

    assert len(source.fetch(events=1, size=1000, timeout_s=1).records) == 1

    (line,) = caplog.records
    assert "last line has no newline yet" in line.getMessage()
    assert "offset=1" in line.getMessage()


def test_a_half_line_is_named_once_for_each_position(
    source: FolderSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "studies.jsonl"
    path.touch()
    for _ in range(3):
        with path.open("ab") as file:
            file.write(b"1\n2\n3")
        for _ in range(2):
            source.assign({STUDIES: 0})
            read_to_end(source, [STUDIES])

    said = [line.getMessage() for line in caplog.records]
    assert [line.rpartition("offset=")[2].split()[0] for line in said] == ["2", "4", "6"], said


def test_an_unread_block_is_no_half_line(
    source: FolderSource, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 5)
    (tmp_path / "studies.jsonl").write_bytes(b"1\n2\n345\n" * 10)

    source.assign({STUDIES: 0})
    read_to_end(source, [STUDIES])

    assert not caplog.records


def test_an_envelope_of_kcat_gives_key_headers_time_and_payload(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "studies.kcat").write_text(
        envelope(ts=1_700_000_000_123, key="k", headers=["type", "x", "none", None], payload='{"ä": 1}')
        + envelope(key=None, payload=None)
        + envelope(payload="")
        + envelope(payload={"decoded": [1]}, broker=1, tstype="create"),
        encoding="utf-8",
    )

    source.assign({STUDIES: 0})
    full, tombstone, empty, decoded = read_to_end(source, [STUDIES])[0]

    assert full.at == STUDIES and full.offset == 0
    assert full.key == b"k" and full.value == '{"ä": 1}'.encode() and full.timestamp_ms == 1_700_000_000_123
    assert full.headers == (("type", b"x"), ("none", None))
    assert tombstone.value is None and tombstone.key is None and tombstone.headers == ()
    assert empty.value == b""
    assert decoded.value is not None and json.loads(decoded.value) == {"decoded": [1]}


@pytest.mark.parametrize(
    "bad",
    ["{", "null", "[1]", '{"payload": "x", "headers": ["odd"]}', '{"payload": "x", "ts": "now"}', '{"payload": }'],
)
def test_a_line_that_is_no_envelope_is_named_and_read_once_mended(
    source: FolderSource, tmp_path: Path, bad: str
) -> None:
    path = tmp_path / "studies.kcat"
    path.write_text(envelope(payload="0") + bad + "\n" + envelope(payload="2"), encoding="utf-8")
    source.assign({STUDIES: 0})

    assert [record.value for record in fetch_some(source)] == [b"0"]
    error = wait_for_error(source, SourceUnavailable)
    assert str(path) in str(error) and "line 1" in str(error)

    path.write_text(envelope(payload="0") + envelope(payload="mended") + envelope(payload="2"), encoding="utf-8")
    source.assign({STUDIES: 1})
    assert [(record.offset, record.value) for record in fetch_some(source, 2)] == [(1, b"mended"), (2, b"2")]


@pytest.mark.parametrize("bad", [b'{"key": "\xff"}', b'{"payload": "\xc3"}', b'{"payload": ' + b"[" * 100_000])
def test_a_line_that_cannot_be_read_at_all_is_named_as_well(source: FolderSource, tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "studies.kcat").write_bytes(bad + b"\n")
    source.assign({STUDIES: 0})

    error = wait_for_error(source, SourceUnavailable)

    assert "line 0 (from 0) is no envelope" in str(error) and str(error).isprintable()


def test_a_name_that_is_none_is_shown_in_one_line(source: FolderSource) -> None:
    with pytest.raises(ConfigError, match="is no name of a topic") as caught:
        source.partitions("a\n\x1b[31mb")

    assert str(caught.value).isprintable()


def test_a_position_after_a_bad_line_skips_it(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "studies.kcat").write_text("{\n" + envelope(payload="1"), encoding="utf-8")

    source.assign({STUDIES: 1})

    assert [record.value for record in read_to_end(source, [STUDIES])[0]] == [b"1"]


def test_a_shortened_file_is_a_topic_made_anew(source: FolderSource, tmp_path: Path) -> None:
    path = tmp_path / "studies.jsonl"
    path.write_bytes(b"1\n2\n3\n")
    source.assign({STUDIES: 0})
    read_to_end(source, [STUDIES])

    path.write_bytes(b"1\n2\n")

    assert str(path) in str(wait_for_error(source, TopicRecreated))
    assert source.bounds([STUDIES]) == {STUDIES: Bounds(0, 2)}
    source.assign({STUDIES: 3})
    wait_for_error(source, BeyondEnd)


def test_a_replaced_file_with_the_same_lines_and_more_goes_on(source: FolderSource, tmp_path: Path) -> None:
    path = tmp_path / "studies.jsonl"
    path.write_bytes(b"1\n2\n")
    source.assign({STUDIES: 0})
    read_to_end(source, [STUDIES])

    (tmp_path / "saved").write_bytes(b"1\n2\n3\n")
    Path(tmp_path / "saved").replace(path)

    assert [(record.offset, record.value) for record in fetch_some(source)] == [(2, b"3")]


def test_the_id_is_none_while_there_is_no_complete_line(source: FolderSource, tmp_path: Path) -> None:
    path = tmp_path / "studies.jsonl"
    path.write_bytes(b"incompl")
    assert source.topic_id("studies") is None

    path.write_bytes(b"incomplete\n")
    first = source.topic_id("studies")

    assert first is not None
    path.write_bytes(b"incomplete\nmore\n")
    assert source.topic_id("studies") == first


def test_a_moved_folder_is_the_same_log(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "studies.jsonl").write_bytes(b"1\n")
    before = FolderSource(tmp_path / "a")
    seen = before.cluster_id(), before.topic_id("studies")

    (tmp_path / "a").rename(tmp_path / "b")
    after = FolderSource(tmp_path / "b")

    assert (after.cluster_id(), after.topic_id("studies")) == seen


def test_a_missing_folder_is_waited_for(tmp_path: Path) -> None:
    source = FolderSource(tmp_path / "later")
    with pytest.raises(SourceUnavailable, match="later"):
        source.partitions("studies")

    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "studies.jsonl").touch()

    assert source.partitions("studies") == [STUDIES]


def test_a_missing_topic_names_the_files_it_looked_for(source: FolderSource, tmp_path: Path) -> None:
    with pytest.raises(TopicMissing) as caught:
        source.partitions("studies")

    for name in ("studies.jsonl", "studies.kcat", "studies/0.jsonl"):
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("studies.jsonl", "studies/0.jsonl"),
        ("studies.jsonl", "studies.kcat"),
        ("studies/0.jsonl", "studies/0.kcat"),
    ],
)
def test_two_files_of_one_topic_are_refused_by_name(
    source: FolderSource, tmp_path: Path, names: tuple[str, str]
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    with pytest.raises(ConfigError) as caught:
        source.partitions("studies")

    assert str(tmp_path / names[0]) in str(caught.value)
    assert str(tmp_path / names[1]).removesuffix("/0.jsonl") in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "../studies", "a/b", "/etc/passwd", "a\\b", "a\0b", "a b", "x" * 250])
def test_a_topic_that_leads_elsewhere_is_refused(source: FolderSource, name: str) -> None:
    with pytest.raises(ConfigError):
        source.partitions(name)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "topics").mkdir()
    (tmp_path / "secret.jsonl").write_bytes(b"1\n")
    (tmp_path / "topics" / "studies.jsonl").symlink_to(tmp_path / "secret.jsonl")

    with pytest.raises(ConfigError, match="leads out"):
        FolderSource(tmp_path / "topics").partitions("studies")


def test_offsets_by_time_come_from_the_envelopes(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "studies.kcat").write_text(
        "".join(envelope(ts=1000 + number * 10, payload="x") for number in range(5)), encoding="utf-8"
    )

    assert source.offsets_at([STUDIES], 0) == {STUDIES: 0}
    assert source.offsets_at([STUDIES], 1021) == {STUDIES: 3}
    assert source.offsets_at([STUDIES], 9999) == {STUDIES: 5}


def test_lines_without_times_have_no_offsets_by_time(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "studies.jsonl").touch()

    with pytest.raises(ConfigError, match=r"studies\.jsonl has no times"):
        source.offsets_at([STUDIES], 0)


def test_an_overlong_line_is_an_error_and_is_not_lost(
    source: FolderSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 10_000)
    path = tmp_path / "studies.jsonl"
    path.write_bytes(b"1\n" + b"x" * 10_000 + b"\n" + b"y" * 10_001 + b"\n3\n")
    source.assign({STUDIES: 0})

    assert [len(record.value or b"") for record in fetch_some(source, 2)] == [1, 10_000]
    for _ in range(2):
        assert str(path) in str(wait_for_error(source, SourceUnavailable))

    source.assign({STUDIES: 3})
    assert [record.value for record in read_to_end(source, [STUDIES])[0]] == [b"3"]


def test_a_line_longer_than_a_block_comes_whole(source: FolderSource, tmp_path: Path) -> None:
    long = os.urandom(3_000_000).replace(b"\n", b"\0").replace(b"\r", b"\0")
    (tmp_path / "studies.jsonl").write_bytes(b"1\n" + long + b"\n2\n")

    source.assign({STUDIES: 0})

    assert [record.value for record in read_to_end(source, [STUDIES])[0]] == [b"1", long, b"2"]


def test_a_busy_partition_does_not_hold_up_the_others(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "0.jsonl").write_bytes(b"1\n" * 10_000)
    (tmp_path / "studies" / "1.jsonl").write_bytes(b"2\n" * 10)

    source.assign(dict.fromkeys(source.partitions("studies"), 0))
    seen = {record.partition for _ in range(2) for record in source.fetch(events=5, size=1000, timeout_s=0).records}

    assert seen == {0, 1}


def test_an_idle_reader_only_asks_for_sizes(
    source: FolderSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studies.jsonl").write_bytes(b"1\n{partial")
    source.assign({STUDIES: 0})
    read_to_end(source, [STUDIES])

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the file was read")

    monkeypatch.setattr(lines.LineFile, "_open", refuse)
    assert source.fetch(events=1, size=1, timeout_s=3 * folder.POLL_EVERY_S) == ([], {})


def test_a_far_position_is_found_without_making_lines_of_what_lies_before(
    source: FolderSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "studies.jsonl"
    path.write_bytes(b"".join(b'{"number": %d}\n' % number for number in range(200_000)))
    made: list[bytes] = []
    read = lines.LineFile.read

    def noted(file: lines.LineFile, start: int) -> lines.Block:
        block = read(file, start)
        made.extend(block.lines)
        return block

    monkeypatch.setattr(lines.LineFile, "read", noted)

    source.assign({STUDIES: 199_990})
    record = fetch_some(source)[0]

    assert (record.offset, record.value) == (199_990, b'{"number": 199990}')
    assert len(made) == 10


values = st.one_of(
    st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")),
    st.sampled_from([b"", b"null", b"\r", b"x" * 90]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    written=st.lists(values, max_size=60),
    appended=st.lists(values, max_size=20),
    partial=st.binary(max_size=5).map(lambda line: line.replace(b"\n", b"")),
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 200)), min_size=1, max_size=8),
    resumes=st.lists(st.booleans(), min_size=1, max_size=8),
    block=st.integers(1, 64),
)
def test_any_lines_read_in_any_way_give_the_same_records(
    tmp_path: Path,
    written: list[bytes],
    appended: list[bytes],
    partial: bytes,
    sizes: list[tuple[int, int]],
    resumes: list[bool],
    block: int,
) -> None:
    """Whatever the blocks, the sizes of fetches, the resumes and the time of an append: nothing lost, nothing twice."""
    path = tmp_path / "studies.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in written) + partial)
    wanted = written + ([partial + b"", *appended] if appended else [])
    expected = [None if (kept := line.removesuffix(b"\r")) == b"null" else kept for line in wanted]

    got: list[tuple[int, bytes | None]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)
        patch.setattr(lines, "INDEX_BYTES", block)
        source = FolderSource(tmp_path)
        source.assign({STUDIES: 0})
        for turn in range(10_000):
            events, size = sizes[turn % len(sizes)]
            fetched = source.fetch(events=events, size=size, timeout_s=0)
            assert len(fetched.records) <= events
            got += [(record.offset, record.value) for record in fetched.records]
            if STUDIES in fetched.reached:
                assert fetched.reached[STUDIES] == len(got) == source.bounds([STUDIES])[STUDIES].end
                if len(got) == len(expected):
                    break
                with path.open("ab") as file:
                    file.write(b"\n" + b"".join(line + b"\n" for line in appended))
            if resumes[turn % len(resumes)]:
                source = FolderSource(tmp_path) if turn % 2 else source
                source.assign({STUDIES: len(got)})

    assert got == list(enumerate(expected))
