"""``testbed o2o`` from the command line: what is refused before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command, home, testbed

__all__ = ["home", "testbed"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--online-only",), "--simulate"),
        (("--source", "rtac"), "did you mean 'ratc'"),
        (("--source", "rtac", "--simulate"), "did you mean 'ratc'"),
        (("--recipe", "best"), "one of default, paper"),
        (("--kl-stop", "0"), "ppo.kl_stop: 0.0; above 0 or none"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_done(
    testbed: Command, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    said = testbed("o2o", "quickstart", *arguments, "--out", tmp_path / "out")
    assert said.code == 2, said.err
    assert says in said.err
    assert "bringing up" not in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", [("--simulate",), ()])
def test_a_folder_with_something_else_is_left_alone(
    testbed: Command, tmp_path: Path, where: tuple[str, ...]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("precious")
    said = testbed("o2o", "quickstart", *where, "--anew", "--out", tmp_path)
    assert said.code == 2, said.err
    assert "holds something else" in said.err
    assert "bringing up" not in said.err
    assert (tmp_path / "data" / "thesis.tex").exists()
