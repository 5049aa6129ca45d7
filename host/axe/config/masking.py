"""What is secret in a configuration, and how to show the rest of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, unquote_plus

from .wording import one_line

# A raw password may hold "/", "?", "#" and "@", so the last "@" ends it, not urllib's idea of it.
_URL_PASSWORD = re.compile(r"(://[^:/@?#\s]*):(.*)@", re.DOTALL)
_SECRET_KEY = re.compile(
    r"passw|pwd|passphrase|secret|token|credential|cookie|authorization|dsn|api_?key|ssl_?key|odbc_connect"
    r"|jaas|oauthbearer\.config|user\.info|[._-]key$|\.pem$"
)

_LONGEST_KIND = 60


def looks_secret(key: str) -> bool:
    """Tell whether the value under this key should never be shown."""
    return _SECRET_KEY.search(key.lower()) is not None


def passwords_of(text: str) -> list[str]:
    """List the spellings of the password in a URL: as written, and as it is sent."""
    found = _URL_PASSWORD.search(text)
    return [found[2], unquote(found[2])] if found else []


def kind_of_url(url: str) -> str:
    """Show a URL's scheme, quoted, and nothing of the rest, which may hold a password."""
    return f'"{one_line(url.partition(":")[0][:_LONGEST_KIND])}"'


def masked_url(url: str) -> str:
    """Show a URL without its secrets: the password, and values of the query that sound secret.

    Where a URL can be read in two ways, the reading that hides more is taken.
    """
    return _masked_query(_URL_PASSWORD.sub(r"\1:***@", url, count=1))


def _masked_query(text: str) -> str:
    def mask(match: re.Match[str]) -> str:
        start, key, value = match.groups()
        # A secret goes on to the next separator, blanks included: it may be quoted.
        return f"{start}{key}={'***' if looks_secret(unquote_plus(key)) else _masked_query(value)}"

    return re.sub(r"([?&;#\s]|^)([^=&;?#\s]+)=([^&;]*)", mask, text)


def tls_warnings(kafka: Mapping[str, object]) -> list[str]:
    """List what to say aloud at every start: each way in which `[kafka]` weakens TLS."""
    said = []
    values = {name: str(value).strip().lower() for name, value in kafka.items()}
    if values.get("enable.ssl.certificate.verification") in {"false", "0", "f"}:
        said.append(
            'TLS certificates of the brokers are not verified ([kafka] "enable.ssl.certificate.verification"): '
            "anybody in between can read and change events; remove the setting"
        )
    if values.get("ssl.endpoint.identification.algorithm") == "none":
        said.append(
            'The host names of the brokers are not verified ([kafka] "ssl.endpoint.identification.algorithm"): '
            "any holder of a certificate can pose as a broker; remove the setting"
        )
    return said
