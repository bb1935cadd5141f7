"""What doctor says of access."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from testbed.cli.access import access
from testbed.cli.findings import Finding, Surroundings
from testbed.rpc.certificates import LIFETIME, Authority
from testbed.rpc.identity import OPERATOR
from testbed.runtime.directory import RunDirectory


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    monkeypatch.delenv("TESTBED_CREDENTIALS", raising=False)
    return Surroundings(home=tmp_path / "home", storage="", artifacts="", nodes=5, carried=50)


def found(around: Surroundings) -> dict[str, Finding]:
    return {each.check: each for each in access(around)}


def test_what_others_can_reach_is_named(around: Surroundings) -> None:
    assert found(around)["access"].status == "ok"
    place = RunDirectory(around.home, "mine")
    place.create({"name": "mine"}, "{}", None)
    place.write_credentials("node-0", "{}")
    assert found(around)["access"].status == "ok"
    place.credentials("node-0").chmod(0o644)
    place.path.chmod(0o755)
    seen = found(around)["access"]
    assert seen.status == "warning"
    assert str(place.path) in seen.seen
    assert str(place.credentials("node-0")) in seen.fix


@pytest.mark.parametrize(("days", "status"), [(0, "ok"), (27, "warning"), (60, "problem")])
def test_a_certificate_that_ends_is_said_to(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int, status: str
) -> None:
    made = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    authority = Authority.new("x", made)
    if days <= LIFETIME.days:
        certificate = authority.issue(OPERATOR)
    else:
        # One of an authority that has ended cannot be made any more; the authority's own will do.
        good = Authority.new("x").issue(OPERATOR)
        monkeypatch.setattr("testbed.rpc.certificates.expiry", lambda _: authority.expires())
        certificate = good
    file = tmp_path / "operator.pem"
    file.write_text(certificate.to_pem())
    monkeypatch.setenv("TESTBED_CREDENTIALS", str(file))
    assert found(around)["certificate"].status == status


def test_a_file_that_is_none_is_a_problem(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TESTBED_CREDENTIALS", str(tmp_path / "missing"))
    assert found(around)["certificate"].status == "problem"
