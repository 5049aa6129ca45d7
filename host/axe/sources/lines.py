"""A file of lines that grows at its end: lines by number, without reading what lies before them."""

from __future__ import annotations

import bisect
import hashlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import SourceUnavailable, TopicMissing

BLOCK_BYTES = 256 * 1024
INDEX_BYTES = 1024 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024
# Enough of a first line to tell one making of a file from the next.
IDENTITY_BYTES = 64 * 1024


class Stamp(NamedTuple):
    """What changes when a file does; cheap to ask for."""

    inode: int
    size: int
    modified_ns: int


class Block(NamedTuple):
    """Whole lines, the newlines taken off, the byte after the last of them, and the byte that was read to."""

    lines: list[bytes]
    next_byte: int
    read_to: int


class LineFile:
    """Finds lines by number with a sparse index, which is made by counting newlines in large blocks.

    Only complete lines count. The file is opened for each reading and never held, so that it
    may be moved or replaced; a shortened or replaced file makes the index start anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: Stamp | None = None
        self.forget()

    def forget(self) -> None:
        """Drop the index: the file may have been edited."""
        # Lines and the bytes that they begin at, about one a megabyte.
        self._line_numbers = [0]
        self._line_bytes = [0]
        self._scanned_bytes = 0
        self._count = 0
        self._count_byte = 0
        self._stamp = None

    def stamp(self) -> Stamp:
        """Ask the file system whether the file changed.

        Raises:
            TopicMissing: the file is gone.
            SourceUnavailable: the file system does not answer.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError as error:
            raise TopicMissing(f"{self.path} does not exist") from error
        except OSError as error:
            raise SourceUnavailable(f"{self.path} cannot be read: {error.strerror}") from error
        return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)

    def count(self) -> int:
        """Count the complete lines; only what was appended since the last call is read."""
        self._scan(None)
        return self._count

    def byte_of(self, line: int) -> int | None:
        """Find the byte where a line begins; the line after the last one has one too, others None."""
        self._scan(line)
        if line > self._count:
            return None
        if line == self._count:
            return self._count_byte
        entry = bisect.bisect_right(self._line_numbers, line) - 1
        start = self._line_bytes[entry]
        missing = line - self._line_numbers[entry]
        with self._open() as file:
            file.seek(start)
            while missing:
                block = _read(file, BLOCK_BYTES, self.path)
                found = block.count(b"\n")
                if not block:
                    return None
                if found < missing:
                    missing -= found
                    start += len(block)
                else:
                    start += len(block) - len(block.split(b"\n", missing)[-1])
                    missing = 0
        return start

    def first_line_hash(self) -> str | None:
        """Tell one making of the file from the next; None while it holds no complete line."""
        end = self.byte_of(1)
        if end is None:
            return None
        with self._open() as file:
            first = _read(file, min(end, IDENTITY_BYTES), self.path)
        return hashlib.sha256(first).hexdigest()[:16]

    def read(self, start: int) -> Block:
        """Read some whole lines from a byte on; none if no complete line is there.

        Raises:
            SourceUnavailable: the line is too long to be held in memory.
        """
        length = BLOCK_BYTES
        with self._open() as file:
            while True:
                file.seek(start)
                block = _read(file, length, self.path)
                cut = block.rfind(b"\n")
                if cut >= 0:
                    lines = block[:cut].split(b"\n")
                    # Files from Windows end their lines with both; JSON never ends with one.
                    if b"\r" in block:
                        lines = [line.removesuffix(b"\r") for line in lines]
                    return Block(lines, start + cut + 1, start + len(block))
                if len(block) < length:
                    return Block([], start, start + len(block))
                if length > MAX_LINE_BYTES:
                    raise SourceUnavailable(
                        f"{self.path}: the line at byte {start} is longer than {MAX_LINE_BYTES} bytes;"
                        " split it, or reset the processor to the line after it"
                    )
                length = min(length * 4, MAX_LINE_BYTES + 1)

    def _scan(self, until: int | None) -> None:
        """Count on to the end of the file, or past a line."""
        stamp = self.stamp()
        if stamp == self._stamp:
            return
        if until is not None and until < self._count:
            return
        if not self._fits(stamp):
            self.forget()
        with self._open() as file:
            file.seek(self._scanned_bytes)
            while until is None or self._count <= until:
                block = _read(file, INDEX_BYTES, self.path)
                if not block:
                    self._stamp = stamp
                    return
                found = block.count(b"\n")
                if found:
                    self._count += found
                    self._count_byte = self._scanned_bytes + block.rfind(b"\n") + 1
                    if self._count_byte - self._line_bytes[-1] >= INDEX_BYTES:
                        self._line_numbers.append(self._count)
                        self._line_bytes.append(self._count_byte)
                self._scanned_bytes += len(block)

    def _fits(self, stamp: Stamp) -> bool:
        """Tell whether the index can still be true: the file only grew, as far as one look can tell."""
        if stamp.size < self._scanned_bytes or (self._stamp is not None and stamp.inode != self._stamp.inode):
            return False
        if self._count_byte == 0:
            return True
        with self._open() as file:
            file.seek(self._count_byte - 1)
            return _read(file, 1, self.path) == b"\n"

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise TopicMissing(f"{self.path} does not exist") from error
        except OSError as error:
            raise SourceUnavailable(f"{self.path} cannot be read: {error.strerror}") from error


def _read(file: BinaryIO, length: int, path: Path) -> bytes:
    """Read this many bytes, fewer only at the end: a raw file may return less at once."""
    try:
        block = file.read(length)
        while len(block) < length:
            more = file.read(length - len(block))
            if not more:
                break
            block += more
    except OSError as error:
        raise SourceUnavailable(f"{path} cannot be read: {error.strerror}") from error
    return block
