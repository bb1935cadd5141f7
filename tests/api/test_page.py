"""docs/python.md is executed as a whole, and names all that is public and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import testbed as tb

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "home"))
    # A command that another test has run in this process may have chosen one.
    tb.use_home(None)
    names: dict[str, object] = {"__name__": "page"}
    try:
        for block in BLOCK.findall(PAGE):
            exec(compile(block, "docs/python.md", "exec"), names)
    finally:
        tb.use_home(None)

    compared = names["comparison"]
    assert isinstance(compared, tb.Comparison)
    assert sorted(compared.table["scheduler"]) == ["local", "ratc", "rda"]
    networked = names["networked"]
    assert isinstance(networked, tb.RunResult)
    assert set(networked.tasks["scheduler"]) <= {"rda", "ratc"}
    assert (tmp_path / "report" / "index.html").is_file()
    assert {folder.name for folder in (tmp_path / "home" / "datasets").iterdir()} == {"ratc-small"}


def test_it_names_every_public_name() -> None:
    missing = [n for n in tb.__all__ if f"`{n}`" not in PAGE and f"tb.{n}" not in PAGE]

    assert missing == ["__version__"]


@pytest.mark.parametrize("name", tb.__all__)
def test_every_public_name_is_there_and_described(name: str) -> None:
    found = getattr(tb, name)

    assert name == "__version__" or (found.__doc__ or "").strip()


@pytest.mark.parametrize(
    "kind",
    [
        *(tb.Comparison, tb.Lab, tb.LiveRun, tb.LoadedPlan, tb.Log, tb.ReplayResult, tb.RunResult),
        *(tb.Runs, tb.StoredDataSet),
    ],
)
def test_every_public_method_is_described(kind: type) -> None:
    own = {name: each for name, each in vars(kind).items() if not name.startswith("_")}
    methods = {
        name: each for name, each in own.items() if callable(each) or isinstance(each, property)
    }

    assert [name for name, each in methods.items() if not (each.__doc__ or "").strip()] == []


def test_what_type_checkers_see_is_what_is_there() -> None:
    text = (ROOT / "testbed" / "__init__.py").read_text()
    seen = set(re.findall(r"import \w+ as (\w+)$", text, re.MULTILINE))

    assert seen | {"__version__"} == set(tb.__all__)
    assert set(dir(tb)) == set(tb.__all__)


def test_the_import_alone_brings_in_nothing_heavy() -> None:
    program = (
        "import sys, testbed\n"
        "heavy = {'numpy', 'pandas', 'grpc', 'pydantic', 'sqlalchemy', 'yaml', 'typer', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert run.stdout.strip() == "[]"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"docs/python\.md"):
        tb.nothing  # noqa: B018
