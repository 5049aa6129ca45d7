from __future__ import annotations

import re
from pathlib import Path

import pytest

from .pages import PAGES, ROOT, anchors, prose

_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def _links() -> list[tuple[Path, str]]:
    return [(page, target) for page in PAGES for target in _LINK.findall(prose(page)) if "://" not in target]


@pytest.mark.parametrize(("page", "target"), _links(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_a_relative_link_leads_to_a_file_and_a_heading_that_exist(page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")

    to = (page.parent / name).resolve() if name else page

    assert to.exists()
    assert to.is_relative_to(ROOT)
    assert not anchor or anchor in anchors(to)


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        names = (target.partition("#")[0] for target in _LINK.findall(prose(page)) if "://" not in target)
        waiting += [to for name in names if name and (to := (page.parent / name).resolve()).suffix == ".md"]

    assert set((ROOT / "docs").rglob("*.md")) <= reached
