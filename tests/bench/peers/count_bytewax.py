"""Bytewax: count by phase in a stateful step, with snapshots for recovery."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import msgspec
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, cluster_main
from marks import Marks, settings

asked = settings()
marks = Marks(asked["end"])
decode_json = msgspec.json.Decoder().decode
counts: list[tuple[str, int]] = []


def decode(batch: list[KafkaSourceMessage]) -> list[tuple[str, int]]:
    """Take the phases out of a batch."""
    phases = [(decode_json(message.value)["phase"], 1) for message in batch]
    marks.handle(len(batch))
    return phases


class Count(StatefulBatchLogic):
    """The count of one phase; it comes out at the end."""

    def __init__(self, resumed: int | None) -> None:
        self.count = resumed or 0

    def on_batch(self, values: list[int]) -> tuple[list[int], bool]:
        """Count a batch's events."""
        self.count += len(values)
        return [], False

    def on_eof(self) -> tuple[list[int], bool]:
        """Tell."""
        return [self.count], False

    def snapshot(self) -> int:
        """Return what is kept."""
        return self.count


flow = Dataflow("count")
source = KafkaSource([asked["brokers"]], [asked["topic"]], tail=False, add_config=asked["fetch"], batch_size=10_000)
phases = op.flat_map_batch("decode", op.input("events", flow, source), decode)
op.output("counts", op.stateful_batch("count", phases, Count), TestingSink(counts))

folder = Path(asked["folder"])
init_db_dir(folder, 1)
cluster_main(flow, [], 0, epoch_interval=timedelta(seconds=1), recovery_config=RecoveryConfig(str(folder)))
marks.tell(counts=dict(counts))
