"""The events that are measured: about 150 bytes of JSON each, or the same as Avro."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Iterator

import fastavro

PHASES = ("I", "II", "III", "IV")
SCHEMA = {
    "type": "record",
    "name": "Study",
    "fields": [{"name": name, "type": "string"} for name in ("type", "id", "phase", "title", "sponsor")],
}
KEPT_TYPE = "study_created"
# Coprime to the numbers of keys: consecutive events are of keys that lie far apart.
_STRIDE = 7_368_787


def study(number: int) -> dict[str, str]:
    """Make one event's value; the same number gives the same value."""
    return {
        "type": KEPT_TYPE,
        "id": f"ST-{number:08d}",
        "phase": PHASES[number % 4],
        "title": "Metformin or placebo in type 2 diabetes",
        "sponsor": "Harbour Trials",
    }


def event(number: int) -> bytes:
    """Make one event."""
    return json.dumps(study(number), separators=(",", ":")).encode()


def events(count: int) -> Iterator[bytes]:
    """Make many."""
    return (event(number) for number in range(count))


def avro_events(count: int) -> Iterator[bytes]:
    """Make many, in Avro's binary encoding without a header."""
    schema = fastavro.parse_schema(SCHEMA)
    for number in range(count):
        to = io.BytesIO()
        fastavro.schemaless_writer(to, schema, study(number))
        yield to.getvalue()


def events_of_every_key(keys: int) -> Iterator[bytes]:
    """Make one for each of so many values of ``id``, in a scattered order."""
    return (event(number * _STRIDE % keys) for number in range(keys))


def events_of_keys(count: int, keys: int) -> Iterator[bytes]:
    """Make many whose ``id`` is one of so many, drawn uniformly; the same each time."""
    return map(event, _drawn(count, keys))


def counts_of_keys(count: int, keys: int) -> dict[str, int]:
    """Tell what must have been counted by ``id``: the oracle."""
    return {study(number)["id"]: times for number, times in Counter(_drawn(count, keys)).items()}


def _drawn(count: int, keys: int) -> list[int]:
    return random.Random(7).choices(range(keys), k=count)


def phase(number: int) -> bytes:
    """Return the record key of an event: some peers keep their state by it."""
    return PHASES[number % 4].encode()


def header(number: int) -> str:
    """Return the type that an event's header names: one in ten is of the kept type."""
    return KEPT_TYPE if number % 10 == 0 else "study_viewed"


def counts(numbers: range) -> dict[str, int]:
    """Tell what must have been counted by phase: the oracle."""
    return dict(Counter(PHASES[number % 4] for number in numbers))
