"""Passwords are taken out of URLs, whatever they look like, and nothing else is."""

from __future__ import annotations

import dataclasses
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan
from testbed.scenario.secrets import split_password, without_password


@pytest.mark.parametrize(
    ("url", "shown", "password"),
    [
        ("mysql+pymysql://u:p@h:3306/db", "mysql+pymysql://u@h:3306/db", "p"),
        ("mysql://u:@h/db", "mysql://u@h/db", ""),
        ("mysql://:p@/db", "mysql://@/db", "p"),
        ("mysql://u:a%40b@h/db", "mysql://u@h/db", "a@b"),
        ("mysql://u:a@b/c:d@h/db", "mysql://u@h/db", "a@b/c:d"),
        ("mysql://u@h/db?password=p&ssl_ca=x", "mysql://u@h/db?ssl_ca=x", "p"),
        ("mysql://u@h/db?ssl_ca=x&passwd=p", "mysql://u@h/db?ssl_ca=x", "p"),
        ("mysql://u@h/db?password=p", "mysql://u@h/db", "p"),
        ("mysql://u@h/db?password_file=/p", "mysql://u@h/db?password_file=/p", None),
        ("webhdfs://u@nn1:9870,nn2:9870/a@b", "webhdfs://u@nn1:9870,nn2:9870/a@b", None),
        ("webhdfs://nn1:9870,nn2:9870/a@b", "webhdfs://nn1:9870,nn2:9870/a@b", None),
        ("webhdfs://nn1:9870/a:b@c", "webhdfs://nn1:9870/a:b@c", None),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db", None),
        ("/tmp/a:b@c.db", "/tmp/a:b@c.db", None),
    ],
)
def test_a_password_is_taken_out(url: str, shown: str, password: str | None) -> None:
    assert split_password(url) == (shown, password)


@given(st.text(min_size=1).filter(lambda each: not each.isdigit()))
def test_any_quoted_password_comes_back(password: str) -> None:
    url = f"mysql+pymysql://edge:{quote(password, safe='')}@host:3306/db?charset=utf8mb4"
    expected = "mysql+pymysql://edge@host:3306/db?charset=utf8mb4"
    assert split_password(url) == (expected, password)


def test_a_plan_does_not_tell_the_password() -> None:
    made = plan(load("quickstart"))
    secret = dataclasses.replace(made, storage_url="mysql+pymysql://u:hush@h/db")
    assert "hush" not in secret.to_json()
    assert Plan.from_json(secret.to_json()).storage_url == "mysql+pymysql://u@h/db"


def test_a_scenario_holds_no_password() -> None:
    with pytest.raises(UsageError, match="TESTBED_MYSQL_PASSWORD") as caught:
        load("quickstart", ["storage=mysql+pymysql://u:hush@h/db"])
    assert "hush" not in str(caught.value)


def test_nothing_but_a_password_is_taken_out_of_a_plan() -> None:
    made = dataclasses.replace(plan(load("quickstart")), storage_url="sqlite:///a:b@c")
    assert Plan.from_json(made.to_json()) == made
    assert without_password("sqlite:///a:b@c") == "sqlite:///a:b@c"
