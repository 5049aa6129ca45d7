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
