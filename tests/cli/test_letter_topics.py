"""A topic for dead letters that cannot be: found by ``axe check``, refused by ``axe run``."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from ..services.kafka import KafkaBroker
from .conftest import COUNTER, Project

TABLE = '[processors.counter]\ndead_letters = {{ topic = "{}" }}\n'


def said_of_letters(project: Project, code: int = 0) -> list[tuple[str, str]]:
    findings = project.json("check", code=code)["findings"]
    return [(one["result"], one["message"]) for one in findings if one["subject"] == "dead letters of counter"]


def test_a_folder_has_none(project: Project) -> None:
    project.configure(TABLE.format("refused"))
    project.install("counter", COUNTER)
    project.publish("studies", {})

    ((result, message),) = said_of_letters(project, code=1)
    run = project.axe("run", "--until-end")

    assert result == "problem"
    assert message.startswith("processors.counter.dead_letters.topic: a topic for dead letters (refused) needs a Kafka")
    assert run.returncode == 2
    assert "needs a Kafka source" in run.stderr + run.stdout


def test_a_processor_does_not_read_its_own(project: Project) -> None:
    project.configure(TABLE.format("studies"))
    project.install("counter", COUNTER)
    project.publish("studies", {})

    ((result, message),) = said_of_letters(project, code=1)

    assert (result, "counter reads studies itself" in message) == ("problem", True)
    assert project.axe("run", "--until-end").returncode == 2


def test_a_host_publishes_what_its_workers_refuse(project: Project, kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.create_topic(f"{topic}-refused")
    kafka.produce(topic, "{}", "no JSON", "{}")
    project.configure(TABLE.format(f"{topic}-refused"), source=f"kafka://{kafka.bootstrap}")
    project.install("counter", COUNTER.replace("studies", topic))

    project.json("run", "--until-end")

    assert project.json("rejections", "show", "counter", "1")["published_at"] is not None
    at = TopicPartition(f"{topic}-refused", 0)
    assert kafka.admin.list_offsets({at: OffsetSpec.latest()})[at].result(10).offset == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_on_kafka_it_has_to_be_there(project: Project, kafka: KafkaBroker, topic: str, is_there: bool) -> None:
    kafka.create_topic(topic)
    if is_there:
        kafka.create_topic(f"{topic}-refused")
    project.configure(TABLE.format(f"{topic}-refused"), source=f"kafka://{kafka.bootstrap}")
    project.install("counter", COUNTER.replace("studies", topic))

    ((result, message),) = said_of_letters(project, code=0 if is_there else 1)

    if is_there:
        assert (result, message) == ("ok", f"go to the topic {topic}-refused")
    else:
        assert (result, "does not exist" in message) == ("problem", True)
        assert f"{topic}-refused" not in kafka.admin.list_topics(timeout=10).topics
