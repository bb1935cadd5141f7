"""Two revisions are compared with bounds that hold, in trees of their own."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.compare import HERE, ROOT, CannotCompare, Worker, checked_out, ratio


def test_pairs_that_are_equal_are_not_told_apart() -> None:
    found = ratio([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.1, 1.9, 3.1, 3.9, 5.1, 5.9])

    assert found.low < 1.0 < found.high
    assert not found.told_apart


def test_load_that_hits_both_of_a_pair_does_not_count() -> None:
    noise = random.Random(1)
    before = [noise.uniform(1, 10) for _ in range(15)]
    after = [0.9 * each * noise.uniform(0.99, 1.01) for each in before]

    found = ratio(before, after)

    assert found.told_apart
    assert found.median == pytest.approx(0.9, abs=0.01)
    assert found.low <= found.median <= found.high


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    noise = random.Random(7)
    covered = 0
    for _ in range(400):
        found = ratio([1.0] * 15, [noise.lognormvariate(0.0, 0.5) for _ in range(15)])
        covered += found.low <= 1.0 <= found.high

    # At least 95 %, and the next smaller interval would cover less; three deviations of chance.
    assert 0.93 <= covered / 400 <= 1.0


def test_few_pairs_give_the_whole_range() -> None:
    found = ratio([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])

    assert (found.low, found.median, found.high) == (1.0, 2.0, 3.0)


def test_a_worker_does_pieces_with_the_toolkit_of_its_tree() -> None:
    worker = Worker("simulator", ROOT)
    try:
        one, two = worker.piece(1), worker.piece(2)
    finally:
        worker.close()

    assert two["items"] == 2 * one["items"] > 0
    assert one["seconds"] > 0


def test_a_tree_without_the_toolkit_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CannotCompare, match="testbed is imported from"):
        Worker("simulator", tmp_path)


def test_a_revision_is_checked_out_for_as_long_as_it_is_needed(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout

    if not git("rev-parse", "--verify", "HEAD"):
        pytest.skip("the tests run without the repository")
    with checked_out("HEAD", tmp_path / "a") as tree:
        assert (tree / "testbed" / "__init__.py").exists()
        assert str(tree) in git("worktree", "list")
    assert not tree.exists()
    assert str(tree) not in git("worktree", "list")


def test_the_working_tree_is_used_as_it_is(tmp_path: Path) -> None:
    with checked_out(HERE, tmp_path / "b") as tree:
        assert tree == ROOT
    assert ROOT.exists()


def test_the_same_tree_twice_gives_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    code = compare.main([HERE, HERE, "--work", "simulator", "--pairs", "2"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert len(lines) == 3
    assert lines[2].startswith("| simulator: tasks in the reference simulator")


def test_the_total_of_a_profile_is_read() -> None:
    assert compare._total("version: 1\nevents: Ir\nfn=main\n3 4\ntotals: 1234\n") == 1234
    with pytest.raises(CannotCompare):
        compare._total("events: Ir\n")
