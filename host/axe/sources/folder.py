"""Records from a folder of JSON-lines files: a topic is a file, an offset is a line's number."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from ..errors import BeyondEnd, ConfigError, SourceUnavailable, TopicMissing, TopicRecreated
from ..event import RECORD_FORM, Record, TopicPartition
from ..log import get_logger
from . import Bounds, Fetched
from .lines import LineFile, Stamp

log = get_logger()

POLL_EVERY_S = 0.05

# A constant, so that a folder may be moved, and a change from or to Kafka is still noticed.
_CLUSTER_ID = "folder"
# Kafka's own rule for names; it keeps the path inside the folder as well.
_TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_PARTITION_FILE = re.compile(r"(0|[1-9][0-9]{0,9})\.(jsonl|kcat)")
_ENDINGS = ("jsonl", "kcat")


class _Envelope(msgspec.Struct):
    """What ``kcat -J`` prints for a record; its topic, partition and offset are not ours."""

    payload: msgspec.Raw = msgspec.Raw(b"null")
    key: msgspec.Raw = msgspec.Raw(b"null")
    headers: list[str | None] | None = None
    ts: int | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_text = msgspec.json.Decoder(str)


class _BadLine(Exception):
    """A line of a .kcat file that is no envelope."""


class _Cursor:
    """How far one file was read: lines that wait, and the byte after them."""

    def __init__(self, file: LineFile, position: int) -> None:
        self.file = file
        self.position = position
        self.identity: str | None = None
        self.told_end = False
        self.start_over()

    def start_over(self) -> None:
        """Look for the position in the file anew."""
        self.next_byte: int | None = None
        self.lines: list[bytes] = []
        # The next of the lines to hand out, and how long they are on average.
        self.next_line = 0
        self.mean_bytes = 1
        # The state of the file in which there was nothing more to read.
        self.exhausted: Stamp | None = None


class FolderSource:
    """A reader of a folder; see the protocol ``Source``.

    ``FOLDER/studies.jsonl`` is a topic of one partition, ``FOLDER/studies/0.jsonl``, ``1.jsonl`` …
    one of several; a ``.kcat`` file holds the envelopes of ``kcat -J``. A line counts once its
    newline is there; one carriage return before it is taken off. A line that cannot be a
    record (longer than 64 MiB, or no envelope) stops the reader with a message, and is read
    once it is mended.
    """

    form = RECORD_FORM

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[TopicPartition, LineFile] = {}
        self._cursors: dict[TopicPartition, _Cursor] = {}
        # The last position alone: in a live file there is a new one with each look.
        self._named_half: dict[TopicPartition, int] = {}

    def cluster_id(self) -> str | None:
        """Return the same for every folder."""
        return _CLUSTER_ID

    def partitions(self, topic: str) -> list[TopicPartition]:
        """List the partitions of a topic: its file, or the numbered files of its folder.

        Raises:
            TopicMissing: no file holds the topic.
            ConfigError: two files claim the same partition, or the name leads out of the folder.
        """
        paths = self._paths(topic)
        for at in [at for at in self._files if at.topic == topic and paths.get(at) != self._files[at].path]:
            del self._files[at]
        for at, path in paths.items():
            if at not in self._files:
                self._files[at] = LineFile(path)
        return sorted(paths)

    def topic_id(self, topic: str) -> str | None:
        """Return a hash of the topic's first line; None while its first partition is empty.

        The first partition alone: a hash of all would change when a further one gets its first line.
        """
        return self._file(self.partitions(topic)[0]).first_line_hash()

    def bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Count the complete lines; what was counted before is not read again."""
        return {at: Bounds(0, self._file(at).count()) for at in partitions}

    def offsets_at(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """Find the first offset at or after a time, else the end; reads the files to it.

        Raises:
            ConfigError: the file holds lines without times.
        """
        return {at: self._offset_at(at, timestamp_ms) for at in partitions}

    def _offset_at(self, at: TopicPartition, timestamp_ms: int) -> int:
        file = self._file(at)
        if file.path.suffix != ".kcat":
            raise ConfigError(f"{file.path} has no times; name an offset, or use a .kcat file with the field ts")
        offset = 0
        block = file.read(0)
        while block.lines:
            for line in block.lines:
                try:
                    found = _from_envelope(at, offset, line).timestamp_ms
                except _BadLine as error:
                    raise _bad_line(file, offset, error) from error
                if found is not None and found >= timestamp_ms:
                    return offset
                offset += 1
            block = file.read(block.next_byte)
        return offset

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read from these positions on; the files are looked at by the next fetch."""
        self._cursors = {at: _Cursor(self._file(at), position) for at, position in positions.items()}

    def fetch(self, *, events: int, size: int, timeout_s: float) -> Fetched:
        """Return what is there, up to about these limits; wait up to the timeout for the first."""
        deadline = time.monotonic() + timeout_s
        while True:
            fetched = self._look(events, size)
            left = deadline - time.monotonic()
            if fetched.records or fetched.reached or left <= 0:
                return fetched
            time.sleep(min(POLL_EVERY_S, left))

    def mirror(self, positions: Mapping[TopicPartition, int], store_id: str) -> None:
        """Do nothing: nobody watches a folder."""

    def close(self) -> None:
        """Forget the assignment; no file is held open."""
        self._cursors = {}

    # Finding files

    def _paths(self, topic: str) -> dict[TopicPartition, Path]:
        if not _TOPIC_NAME.fullmatch(topic):
            raise ConfigError(
                f'"{ascii(topic)[1:-1]}" is no name of a topic: letters, digits, ".", "_" and "-" make one'
            )
        try:
            if not self._folder.is_dir():
                raise SourceUnavailable(f"the folder {self._folder} does not exist")
            single = [path for ending in _ENDINGS if (path := self._folder / f"{topic}.{ending}").is_file()]
            numbered = self._folder / topic
            both = [*single, *([numbered] if numbered.is_dir() else [])]
            if len(both) > 1:
                raise ConfigError(f"both {both[0]} and {both[1]} hold the topic {topic}; keep one")
            found = {TopicPartition(topic, 0): single[0]} if single else _numbered(topic, numbered)
        except OSError as error:
            raise SourceUnavailable(f"{self._folder} cannot be read: {error.strerror}") from error
        if not found:
            looked_for = f"{self._folder / topic}.jsonl, {self._folder / topic}.kcat or {numbered / '0.jsonl'}"
            raise TopicMissing(f"topic {topic} does not exist: there is no {looked_for}")
        root = self._folder.resolve()
        for path in found.values():
            if not path.resolve().is_relative_to(root):
                raise ConfigError(f"{path} leads out of the folder {self._folder}")
        return found

    def _file(self, at: TopicPartition) -> LineFile:
        if at not in self._files:
            self.partitions(at.topic)
        if at not in self._files:
            raise TopicMissing(f"{at} does not exist: there is no {self._folder / at.topic / str(at.partition)}.jsonl")
        return self._files[at]

    # Reading

    def _look(self, events: int, size: int) -> Fetched:
        records: list[Record] = []
        reached: dict[TopicPartition, int] = {}
        for at, cursor in self._cursors.items():
            while len(records) < events and size > 0:
                if not self._fill(at, cursor):
                    if not cursor.told_end:
                        cursor.told_end = True
                        reached[at] = cursor.position
                    break
                cursor.told_end = False
                before = len(records)
                bad = _take(at, cursor, records, min(events - before, max(1, size // cursor.mean_bytes)))
                size -= (len(records) - before) * cursor.mean_bytes
                if bad is not None:
                    if records:
                        # Those before it first; the next fetch begins with the bad line.
                        return Fetched(records, reached)
                    cursor.file.forget()
                    cursor.start_over()
                    raise _bad_line(cursor.file, cursor.position, bad) from bad
        if len(self._cursors) > 1:
            # A busy partition must not hold up the others: each fetch begins with another one.
            first = next(iter(self._cursors))
            self._cursors[first] = self._cursors.pop(first)
        return Fetched(records, reached)

    def _fill(self, at: TopicPartition, cursor: _Cursor) -> bool:
        """Have lines in the cursor; False at the end of the file."""
        if cursor.next_line < len(cursor.lines):
            return True
        file = cursor.file
        stamp = file.stamp()
        if stamp == cursor.exhausted:
            return False
        identity = file.first_line_hash()
        if cursor.identity is not None and (identity != cursor.identity or stamp.size < (cursor.next_byte or 0)):
            raise TopicRecreated(f"{file.path} was shortened or replaced; reset the processor to read the new lines")
        cursor.identity = identity
        if cursor.next_byte is None:
            cursor.next_byte = file.byte_of(cursor.position)
            if cursor.next_byte is None:
                end = file.count()
                raise BeyondEnd(
                    f"{at}: the position is {cursor.position}, {file.path} has {end} complete lines:"
                    f" {cursor.position - end} past the end; reset the processor to go on"
                )
        begin = cursor.next_byte
        cursor.lines, cursor.next_byte, read_to = file.read(begin)
        cursor.next_line = 0
        if cursor.next_byte < stamp.size <= read_to:
            # With the lines before it: a run until the end does not look again.
            self._name_half_line(at, file, cursor.position + len(cursor.lines))
        if cursor.lines:
            cursor.mean_bytes = max(1, (cursor.next_byte - begin) // len(cursor.lines))
            return True
        cursor.exhausted = stamp
        return False

    def _name_half_line(self, at: TopicPartition, file: LineFile, offset: int) -> None:
        """Say that a line is not complete, once for each offset."""
        if self._named_half.get(at) != offset:
            self._named_half[at] = offset
            log.warning("last line has no newline yet and is not read", file=str(file.path), offset=offset)


def _numbered(topic: str, folder: Path) -> dict[TopicPartition, Path]:
    found: dict[TopicPartition, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = _PARTITION_FILE.fullmatch(path.name)
        if name is None or not path.is_file():
            continue
        at = TopicPartition(topic, int(name[1]))
        if at in found:
            raise ConfigError(f"both {found[at]} and {path} hold {at}; keep one")
        found[at] = path
    return found


def _take(at: TopicPartition, cursor: _Cursor, records: list[Record], count: int) -> _BadLine | None:
    """Turn up to ``count`` waiting lines into records; stops before a bad one and returns why."""
    topic, partition = at
    lines = cursor.lines[cursor.next_line : cursor.next_line + count]
    first = cursor.position
    before = len(records)
    bad = None
    if cursor.file.path.suffix == ".kcat":
        try:
            for offset, line in enumerate(lines, first):
                records.append(_from_envelope(at, offset, line))
        except _BadLine as error:
            bad = error
    else:
        records += [
            Record(topic, partition, offset, None, None if line == b"null" else line)
            for offset, line in enumerate(lines, first)
        ]
    taken = len(records) - before
    cursor.next_line += taken
    cursor.position += taken
    return bad


def _from_envelope(at: TopicPartition, offset: int, line: bytes) -> Record:
    if not line:
        return Record(at.topic, at.partition, offset, None, b"")
    try:
        found = _envelope.decode(line)
        flat = found.headers or []
        if len(flat) % 2:
            raise _BadLine("a header without a value")
        headers = tuple(
            (str(name), None if value is None else value.encode())
            for name, value in zip(flat[::2], flat[1::2], strict=True)
        )
        return Record(at.topic, at.partition, offset, _bytes_of(found.key), _bytes_of(found.payload), headers, found.ts)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _BadLine("it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)) from error


def _bytes_of(field: msgspec.Raw) -> bytes | None:
    """Return a string's bytes, None for null; with a decoder of its own kcat prints JSON, taken as it is."""
    raw = bytes(field)
    if raw == b"null":
        return None
    return _text.decode(raw).encode() if raw.startswith(b'"') else raw


def _bad_line(file: LineFile, offset: int, reason: _BadLine) -> SourceUnavailable:
    return SourceUnavailable(
        f"{file.path}: line {offset} (from 0) is no envelope of kcat -J: {reason}; mend it,"
        f" or reset the processor to {offset + 1}"
    )
