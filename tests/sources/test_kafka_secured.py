"""TLS and SASL as the source takes them; the command line is asked in tests/cli/test_run_secured.py."""

from __future__ import annotations

import pytest

from axe.errors import ConfigError, SourceUnavailable
from axe.sources.kafka import KafkaSource

from ..services.secured import SecuredKafka


def answer(kafka: SecuredKafka, listener: str, **changed: str | None) -> str | None:
    """Ask for the id of the cluster; a property that is None is left out."""
    properties = kafka.properties(listener) | {name.replace("__", "."): value for name, value in changed.items()}
    given = {name: value for name, value in properties.items() if value is not None}
    source = KafkaSource(kafka.addresses[listener], group="g", properties=given, client_id="tests")
    try:
        return source.cluster_id()
    finally:
        source.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KafkaSource, "call_timeout_s", 2.0)


def test_an_authority_of_ones_own_is_enough_for_tls(secured_kafka: SecuredKafka) -> None:
    assert answer(secured_kafka, "TLS")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_is_taken_by_each_mechanism(secured_kafka: SecuredKafka, mechanism: str) -> None:
    assert answer(secured_kafka, "SASL_TLS", sasl__mechanisms=mechanism)


def test_a_certificate_for_another_host_is_enough_where_nobody_looks_and_that_is_said(
    secured_kafka: SecuredKafka, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer(secured_kafka, "ELSEWHERE", ssl__endpoint__identification__algorithm="none")

    assert "host names of the brokers are not verified" in caplog.text


def test_without_its_authority_a_certificate_is_refused(secured_kafka: SecuredKafka) -> None:
    with pytest.raises(SourceUnavailable, match=r"^the certificate of 127\.0\.0\.1:\d+ is refused: certificate verify"):
        answer(secured_kafka, "TLS", ssl__ca__location=None)


def test_a_client_without_a_certificate_is_told_that_the_broker_wants_one(secured_kafka: SecuredKafka) -> None:
    without = {"ssl__certificate__location": None, "ssl__key__location": None, "ssl__key__password": None}

    with pytest.raises(SourceUnavailable, match="refuses this client: .*alert.*`ssl.certificate.location`"):
        answer(secured_kafka, "MUTUAL", **without)


def test_plain_text_at_a_listener_of_tls_leads_to_the_protocol(secured_kafka: SecuredKafka) -> None:
    with pytest.raises(SourceUnavailable, match="`security.protocol` under"):
        answer(secured_kafka, "TLS", security__protocol="PLAINTEXT")


@pytest.mark.parametrize("password", [None, "canary-no-password"])
def test_a_key_that_stays_closed_is_said_as_such(secured_kafka: SecuredKafka, password: str | None) -> None:
    with pytest.raises(ConfigError, match="ssl.key.location failed.*`ssl.key.password`") as caught:
        answer(secured_kafka, "MUTUAL", ssl__key__password=password)

    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_authorities_that_is_not_there_is_said_as_such(secured_kafka: SecuredKafka) -> None:
    with pytest.raises(ConfigError, match="ssl.ca.location failed.*has to be there"):
        answer(secured_kafka, "TLS", ssl__ca__location="/nowhere/ca.pem")
