"""What a running host does when its topic on Kafka becomes another one."""

from __future__ import annotations

from ..services.kafka import KafkaBroker
from .conftest import COUNTER, Project, wait_for


def test_a_topic_made_anew_is_read_after_one_reset_of_a_running_host(
    project: Project, kafka: KafkaBroker, topic: str
) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, *["{}"] * 3000)
    project.configure(source=f"kafka://{kafka.bootstrap}")
    project.install("counter", COUNTER.replace("studies", topic))

    def count() -> str:
        return ["", *project.axe("state", "counter", "count").stdout.split()][-1]

    with project.running("run"):
        wait_for(lambda: count() == "3000", "the old topic was not read")
        # Paused, so that the refusal of the old position is not what the worker fails with: it stays in the client.
        project.axe("pause", "counter")
        wait_for(lambda: "processor is held" in project.log(), "the pause was not obeyed")
        kafka.delete_topic(topic)
        kafka.create_topic(topic)
        kafka.produce(topic, *["{}"] * 100)
        project.axe("resume", "counter")
        wait_for(lambda: "was made anew" in project.log(), "nobody noticed that the topic was made anew")

        project.axe("reset", "counter", "--to", "earliest", "--yes")

        wait_for(lambda: count() == "3100" or project.log().count("processor failed") > 1, "nothing came of the reset")
        assert count() == "3100", project.log()
        assert "waiting" not in project.log()
