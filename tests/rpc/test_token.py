from __future__ import annotations

from pathlib import Path

import pytest

from testbed.environment import PROCESS_TOKEN as TOKEN_VARIABLE
from testbed.errors import PrerequisiteMissing
from testbed.rpc.token import find_token


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.delenv(f"{TOKEN_VARIABLE}_FILE", raising=False)


def test_it_is_taken_from_the_nearest_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert find_token() == ""

    (tmp_path / "token").write_text("of the file\n")
    monkeypatch.setenv(f"{TOKEN_VARIABLE}_FILE", str(tmp_path / "token"))
    assert find_token() == "of the file"

    monkeypatch.setenv(TOKEN_VARIABLE, "of the environment")
    assert find_token() == "of the environment"
    assert find_token("given") == "given"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_file_of_no_use_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(f"{TOKEN_VARIABLE}_FILE", str(path))

    with pytest.raises(PrerequisiteMissing, match=str(path)):
        find_token()
