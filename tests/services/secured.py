"""A broker that wants TLS and passwords: listeners of every kind, with certificates made at its start."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from .kafka import START_TIMEOUT_S, KafkaBroker, Listener, _silent

USER = "axe"
# To be found again wherever they leak to.
PASSWORD, KEY_PASSWORD = "canary-password", "canary-key-password"

_SCRAM = {
    "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256,
    "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512,
}
_PLAIN_MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"
_SASL = {
    "sasl.enabled.mechanisms": ",".join(["PLAIN", *_SCRAM]),
    "plain.sasl.jaas.config": f'{_PLAIN_MODULE} required user_{USER}="{PASSWORD}";',
    **{f"{name.lower()}.sasl.jaas.config": f"{_SCRAM_MODULE} required;" for name in _SCRAM},
}


class SecuredKafka(KafkaBroker):
    """A broker with the listeners below beside its usual ones.

    TLS; SASL_TLS, with USER and PASSWORD for PLAIN and SCRAM; MUTUAL, which wants a certificate of the client;
    ELSEWHERE and EXPIRED, which are SASL_TLS with a certificate for another host and an old one. ``properties`` are
    what a client needs for them.
    """

    def __init__(self) -> None:
        from .certificates import Authority

        self._certificates = tempfile.TemporaryDirectory(prefix="axe-certificates-")
        folder = Path(self._certificates.name)
        authority = Authority(folder, "authority")
        self.ca, self.other_ca = authority.ca, Authority(folder, "stranger").ca
        self.client = authority.issue("client", password=KEY_PASSWORD)
        own = _keys(authority.issue("broker"))
        trusting = {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(self.ca)}
        super().__init__(
            listeners=[
                Listener("TLS", "SSL", own),
                Listener("SASL_TLS", "SASL_SSL", own | _SASL),
                Listener("MUTUAL", "SSL", own | trusting | {"ssl.client.auth": "required"}),
                Listener("ELSEWHERE", "SASL_SSL", _keys(authority.issue("elsewhere", host="broker.invalid")) | _SASL),
                Listener("EXPIRED", "SASL_SSL", _keys(authority.issue("expired", is_expired=True)) | _SASL),
            ]
        )
        try:
            self._add_users()
        except BaseException:
            self.close()
            raise

    def properties(self, listener: str) -> dict[str, str]:
        """Return librdkafka's properties that get a client in by a listener."""
        trusting = {"security.protocol": "SSL", "ssl.ca.location": str(self.ca)}
        match listener:
            case "SASL_TLS" | "ELSEWHERE" | "EXPIRED":
                user = {"sasl.mechanisms": "PLAIN", "sasl.username": USER, "sasl.password": PASSWORD}
                return trusting | user | {"security.protocol": "SASL_SSL"}
            case "MUTUAL":
                files = {"ssl.certificate.location": str(self.client), "ssl.key.location": str(self.client)}
                return trusting | files | {"ssl.key.password": KEY_PASSWORD}
            case _:
                return trusting

    def _add_users(self) -> None:
        for name, mechanism in _SCRAM.items():
            user = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            self.admin.alter_user_scram_credentials([user])[USER].result(30)
            # The broker has written it down; it lets the user in a moment later.
            asking = self.properties("SASL_TLS") | {"sasl.mechanisms": name, "group.id": "none"}
            client = Consumer({**asking, "bootstrap.servers": self.addresses["SASL_TLS"]}, logger=_silent)
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _answers(client):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"nobody gets in by {name}: {self.log()[-3000:]}")
            client.close()

    def close(self) -> None:
        """Stop the broker and remove its folders."""
        super().close()
        self._certificates.cleanup()


def _answers(client: Consumer) -> bool:
    try:
        return bool(client.list_topics(timeout=1.0).brokers)
    except KafkaException:
        return False


def _keys(file: Path) -> dict[str, str]:
    return {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(file)}


def open_secured_kafka() -> SecuredKafka:
    """Start such a broker; one that already runs has no such listeners.

    Raises:
        ServiceMissing: it cannot run here.
    """
    return SecuredKafka()
