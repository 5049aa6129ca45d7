"""What a run until the end says about a line that is not complete yet."""

from __future__ import annotations

from .conftest import Project


def test_a_run_until_the_end_names_a_last_line_without_its_newline(project: Project) -> None:
    project.install("counter")
    (project.folder / "data" / "studies.jsonl").write_text('{}\n{"half": ')

    done = project.axe("run", "--until-end")

    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "last line has no newline yet" in line]
    assert "studies.jsonl" in line
    assert "offset=1" in line
