"""What a ``state`` URL that is none comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from axe.errors import ConfigError
from axe.store import open_place


@pytest.mark.parametrize(
    "url", ["postgresql://axe@host:canary/axe", "postgresql://axe@host:canary", "postgresql://:", "postgresql:"]
)
def test_a_url_that_cannot_be_read_is_refused_without_showing_any_of_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL of a database; write") as caught:
        open_place(url, tmp_path)

    assert caught.value.__cause__ is None
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["sq\x1bli\U000ffffe:canary", "sq\x1bli://a:canary@b", "x" * 1000 + ":canary"])
def test_a_kind_is_shown_in_one_line_whatever_it_holds(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_place(url, tmp_path)

    message = str(caught.value)
    assert message.startswith("`state` is ")
    assert message.isprintable()
    assert "canary" not in message
    assert len(message) < 300
