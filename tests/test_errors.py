"""Errors as documents: what crosses a process is the error, not its text."""

from __future__ import annotations

import json
import pickle

import pytest

from testbed.errors import (
    PermanentError,
    PrerequisiteMissing,
    Problem,
    TemporaryError,
    TestbedError,
    UsageError,
    from_document,
)
from testbed.model.own_code import SchedulerFailed
from testbed.storage.tasklog.versions import NothingLogged

PROBLEMS = [Problem("nodes.count", "0; none", "at least 1"), Problem("", "x\n  fix: y", "")]
NOTED = PermanentError("no room")
NOTED.add_note("what was started is kept")
ERRORS = [
    TestbedError("a text"),
    UsageError("the scenario is wrong", PROBLEMS),
    UsageError("busy; really", fix="wait; or stop it"),
    PrerequisiteMissing("no kind", "install it"),
    TemporaryError("locked", fix="wait"),
    PermanentError("damaged; very"),
    NOTED,
]


@pytest.mark.parametrize("error", ERRORS)
def test_the_document_gives_the_same_error(error: TestbedError) -> None:
    same = from_document(json.loads(json.dumps(error.to_document())))
    assert type(same) is type(error)
    assert str(same) == str(error)
    assert vars(same) == vars(error)


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_can_be_pickled(error: TestbedError) -> None:
    same = pickle.loads(pickle.dumps(error))
    assert type(same) is type(error)
    assert str(same) == str(error)


@pytest.mark.parametrize("error", [SchedulerFailed("x", "raised", 3, 1), NothingLogged("empty")])
def test_a_subclass_comes_back_as_its_kind(error: TestbedError) -> None:
    same = pickle.loads(pickle.dumps(error))
    assert type(same) is PermanentError
    assert str(same) == str(error)


def test_the_fix_stands_apart_and_in_the_message() -> None:
    error = PermanentError("the file is damaged", fix="restore a copy")
    assert (error.seen, error.fix) == ("the file is damaged", "restore a copy")
    assert str(error) == "the file is damaged; restore a copy"
    assert str(PrerequisiteMissing("no kind", "install it")) == "no kind\n  fix: install it"


def test_a_kind_of_a_later_version_is_a_permanent_error() -> None:
    error = from_document({"kind": "QuotaExceeded", "seen": "no room", "fix": "make some"})
    assert type(error) is PermanentError
    assert str(error) == "no room; make some"


@pytest.mark.parametrize("document", [{}, {"kind": "UsageError"}, {"kind": [], "seen": ""}, []])
def test_what_is_no_document_of_an_error_is_refused(document: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not the document of an error"):
        from_document(document)
