"""Policies as artifacts: kept, found again, and refused when they are not what they should be."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import PermanentError, PrerequisiteMissing, UsageError
from testbed.model.information import period_of, read
from testbed.model.per_destination import HEARD_NAME, NAME, STATE_NAME
from testbed.policies import (
    ACTOR,
    CARD,
    LARGEST_ACTOR,
    Policy,
    PolicyCard,
    check_fits,
    list_policies,
    load,
    load_folder,
    resolve,
    save,
    shipped,
    shipped_names,
    write_folder,
)
from testbed.storage.artifacts import open_artifact_store
from tests.policies import tiny


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    card, actor = tiny.flat(
        3,
        scenario="paper-testbed",
        scenario_hash="abc",
        overload={"measure": "queue_length", "limit": 2},
        dataset_hash="d4",
        parents=("other-0123456789ab",),
        evaluation={"success_rate": 0.9},
        training={"steps": [1, 2]},
    )
    key = save(str(tmp_path), card, actor)
    assert key == f"policies/{card.id}"
    assert save(str(tmp_path), card, actor) == key
    # Trained once more, as after an interruption: only the time differs, and the first stays.
    later = dataclasses.replace(card, created="2027-01-01T00:00:00+00:00")
    assert save(str(tmp_path), later, actor) == key
    assert load(str(tmp_path), key).card == card
    assert load(str(tmp_path), key) == Policy(card, actor, key)
    assert PolicyCard.from_json(card.to_json()) == card


def test_the_id_is_of_the_content_and_not_of_the_time() -> None:
    card, _ = tiny.per_destination()
    later, _ = tiny.per_destination(created="2031-01-01T00:00:00+00:00")
    assert (later.id, later.created == card.created) == (card.id, False)
    others = [
        tiny.per_destination(own=1.0)[0],
        tiny.per_destination(training={"seed": 2})[0],
        tiny.per_destination("tinier")[0],
    ]
    assert len({card.id, *(each.id for each in others)}) == 4
    assert card.id.startswith("tiny-")


@pytest.mark.parametrize("name", ["", "Upper", "-x", "x/y", "x" * 50, "a b"])
def test_names_that_cannot_begin_an_id(name: str) -> None:
    with pytest.raises(UsageError, match="a-z, 0-9"):
        tiny.per_destination(name)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"kind": "flat", "nodes": None}, "fits one number of nodes"),
        ({"kind": "other"}, "one of flat, per-destination"),
        ({"nodes": 0}, "a number of nodes"),
        ({"encoder": ""}, "encoder"),
        ({"training": {"x": float("nan")}}, "plain JSON"),
        ({"training": {"x": object()}}, "plain JSON"),
        ({"parents": (3,)}, "a list of ids"),
        ({"asks": "everything"}, "bits, state"),
        ({"asks": {"probe": 0}}, "probe: NUMBER"),
        ({"asks": {"probe": 1, "gossip": "1s"}}, "probe: NUMBER"),
    ],
)
def test_what_cannot_stand_in_a_card(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny.per_destination(**facts)


def _changed(**facts: object) -> str:
    return json.dumps({**json.loads(tiny.per_destination()[0].to_json()), **facts})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is no card"),
        ("{}", "is no card"),
        (_changed(cardVersion=2), "cardVersion 2"),
        (_changed(surprise=1), "surprise: is not known"),
        ('{"cardVersion": 1, "id": "x-0123456789ab"}', "sha256: is missing"),
        (_changed(nodes=4), "its content makes"),
        (_changed(evaluation={"success_rate": 1.0}), "its content makes"),
        (_changed(id="tiny-000000000000"), "its content makes"),
        (_changed(id="../../etc"), "NAME-"),
        (_changed(id=7), "NAME-"),
        (_changed(sha256="no"), "64 hexadecimal"),
        (_changed(size_bytes="big"), "a number of bytes"),
        (_changed(parents=5), "a list of ids"),
        (_changed(evaluation=[]), "an object"),
        (_changed(scenario_required=1), "true or false"),
    ],
)
def test_a_card_that_is_none_or_was_altered_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PolicyCard.from_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, r"nested"),
        (_changed(created="x" * 2000), "created: .*printable text of up to"),
        (_changed(encoder="\x1b[2J"), "encoder: "),
        (_changed(nodes=10**9), "nodes: 1000000000; .*to 10000, or null"),
        (_changed(nodes=True), "nodes: True"),
        (_changed(cardVersion=True), "cardVersion True"),
        (_changed(training={"a": float("inf")}), "holds Infinity"),
        ('{"cardVersion": 1, "cardVersion": 1}', "names 'cardVersion' twice"),
        (_changed(created=" " * 2_000_000), "more than 1000000 bytes"),
        (_changed(parents=[["x"]]), "parents: .*a list of ids"),
    ],
)
def test_a_damaged_card_is_refused_with_the_key(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"here.json.*{message}"):
        PolicyCard.from_json(text, "here.json")


@given(
    st.sampled_from([each.name for each in dataclasses.fields(PolicyCard)]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
)
def test_no_card_is_a_defect(name: str, value: Any) -> None:
    told = "policy.json"
    try:
        PolicyCard.from_json(_changed(**{name: value}))
    except UsageError as error:
        told = str(error)
    assert "policy.json" in told


def test_a_folder_with_a_large_or_odd_file_is_refused_unread(tmp_path: Path) -> None:
    card, actor = tiny.per_destination()
    write_folder(tmp_path, card, actor)
    with (tmp_path / ACTOR).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=f"has {1 << 40} bytes instead of {len(actor)}"):
        load_folder(tmp_path)
    for name in (ACTOR, CARD):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(UsageError, match=f"{name}: is not a regular file"):
            load_folder(tmp_path)
    with pytest.raises(UsageError, match="not a policy"):
        load_folder(Path("no\0path"))


def test_an_actor_that_is_not_the_cards_is_refused(tmp_path: Path) -> None:
    card, actor = tiny.per_destination()
    for wrong, message in (
        (actor[:-1], f"{len(actor) - 1} bytes instead of {len(actor)}: truncated"),
        (actor[:-1] + bytes([actor[-1] ^ 1]), "altered"),
        (b"x" * (LARGEST_ACTOR + 1), f"more than {LARGEST_ACTOR}"),
    ):
        with pytest.raises(UsageError, match=message):
            save(str(tmp_path), card, wrong)
    assert list_policies(str(tmp_path)) == ()


@pytest.mark.parametrize("name", [ACTOR, CARD])
def test_a_file_that_was_truncated_altered_or_lost_in_the_store_is_refused(
    tmp_path: Path, name: str
) -> None:
    key = save(str(tmp_path), *tiny.per_destination())
    path = tmp_path / key / name
    whole = path.read_bytes()
    for damage in (whole[:-3], whole.replace(b"t", b"u", 1), None):
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage)
        with pytest.raises((UsageError, PermanentError), match=name):
            load(str(tmp_path), key)


def test_a_card_under_another_key_is_refused(tmp_path: Path) -> None:
    card, actor = tiny.per_destination()
    store = open_artifact_store(str(tmp_path))
    store.put("policies/other", {ACTOR: actor, CARD: card.to_json().encode()})
    store.put("policies/half", {CARD: card.to_json().encode()})
    with pytest.raises(UsageError, match="never renamed"):
        load(store, "policies/other")
    with pytest.raises(UsageError, match=f"holds {CARD}"):
        load(store, "policies/half")
    with pytest.raises(UsageError, match="begin with policies/"):
        load(store, "datasets/x")


def test_references(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    first, second = tiny.per_destination("first"), tiny.per_destination("second")
    keys = [save(store, *first), save(store, *second)]
    write_folder(tmp_path / "folder", *first)
    for reference in (keys[0], first[0].id, "fir", str(tmp_path / "folder")):
        assert resolve(reference, store).card == first[0]
    third = save(store, *tiny.per_destination("first", own=1.0))
    with pytest.raises(UsageError, match=r"(?s)ambiguous policy.*matches several.*first-.*first-"):
        resolve("first", store)
    assert resolve(third, store).reference == third
    with pytest.raises(UsageError, match=r"unknown policy.*\n.*second-"):
        resolve("nonsense", store)
    with pytest.raises(UsageError, match="no artifact store"):
        resolve("first", None)
    with pytest.raises(UsageError, match=CARD):
        load_folder(tmp_path)


def test_the_list_is_in_order_of_age(tmp_path: Path) -> None:
    store = str(tmp_path)
    newer = save(store, *tiny.per_destination("a", created="2026-02-01T00:00:00+00:00"))
    older = save(store, *tiny.per_destination("b", created="2026-01-01T00:00:00+00:00"))
    assert list_policies(store) == (older, newer)


def test_what_is_shipped_can_be_used_and_what_is_not_is_told() -> None:
    for name in shipped_names():
        policy = shipped(name)
        assert policy.reference == f"shipped/{name}"
        check_fits(policy.card, 20)
    if not shipped_names():
        with pytest.raises(PrerequisiteMissing, match="testbed policy deploy"):
            shipped()
    with pytest.raises(UsageError, match="is not shipped"):
        shipped("nonsense")


@pytest.mark.parametrize("lead", ["", "/", "../", "./", "per-destination-v1/../"])
def test_a_shipped_policy_is_named_and_never_a_path(tmp_path: Path, lead: str) -> None:
    write_folder(tmp_path / "mine", *tiny.per_destination())
    for name in (f"{lead}{tmp_path / 'mine'}", f"{lead}mine", f"{lead}per-destination-v1/."):
        with pytest.raises(UsageError, match="is not shipped"):
            resolve(f"shipped/{name}", str(tmp_path))


def test_what_fits_a_network() -> None:
    anywhere, _ = tiny.per_destination()
    assert check_fits(anywhere, 7, "abc") == ()
    flat, _ = tiny.flat(4, scenario="there", scenario_hash="abc")
    assert check_fits(flat, 4, "abc") == ()
    assert check_fits(flat, 4) == ()
    (warning,) = check_fits(flat, 4, "def")
    assert "trained on there [abc], this is [def]" in warning
    with pytest.raises(UsageError, match="for 4 nodes, the network has 5"):
        check_fits(flat, 5)
    only, _ = tiny.flat(4, scenario_hash="abc", scenario_required=True)
    with pytest.raises(UsageError, match="allows no other scenario"):
        check_fits(only, 4, "def")
    # All that is wrong is said at once.
    strange, _ = tiny.flat(4, encoder="paper-v9")
    with pytest.raises(UsageError) as refused:
        check_fits(strange, 5)
    assert [each.path for each in refused.value.problems] == ["encoder", "nodes"]
    assert "paper-v1 (flat)" in str(refused.value)
    mixed, _ = tiny.flat(4, encoder=NAME)
    with pytest.raises(UsageError, match="of a flat policy"):
        check_fits(mixed, 4)


def test_a_card_says_what_it_asks_unless_that_is_bits() -> None:
    bits, _ = tiny.per_destination()
    assert "asks" not in json.loads(bits.to_json())
    states, _ = tiny.per_destination(encoder=STATE_NAME, asks="state")
    assert json.loads(states.to_json())["asks"] == "state"
    assert PolicyCard.from_json(states.to_json()) == states
    assert tiny.per_destination(encoder=STATE_NAME)[0].id != states.id
    assert check_fits(states, 3) == ()
    probes, _ = tiny.per_destination(encoder=HEARD_NAME, asks={"probe": 2})
    assert PolicyCard.from_json(probes.to_json()).asks == {"probe": 2}
    assert check_fits(probes, 3) == ()


def test_a_card_that_asks_for_what_nobody_knows_is_none() -> None:
    for asks in (
        *({"rumour": 2}, {"probe": 0}, {"probe": "2"}, {"probe": 1, "gossip": "1s"}, "all"),
        *({"gossip": 1}, {"gossip": ""}, {"gossip": "0s"}, {"gossip": "1"}, {"gossip": "1 week"}),
    ):
        with pytest.raises(UsageError, match=r"asks: .*probe: NUMBER"):
            tiny.per_destination(encoder=HEARD_NAME, asks=asks)


@pytest.mark.parametrize(
    ("period", "micros"),
    [
        *[("1 slot", 100_000), ("0.5slot", 50_000), ("2 slots", 200_000), ("1s", 1_000_000)],
        *[("250 ms", 250_000), ("1us", 1), ("0.000001 slot", 1)],
    ],
)
def test_periods_of_gossip(period: str, micros: int) -> None:
    gossip, _ = tiny.per_destination(encoder=HEARD_NAME, asks={"gossip": period})
    assert check_fits(gossip, 3) == ()
    assert period_of(gossip.asks, 100_000) == micros
    assert read(f"gossip:{period}") == gossip.asks


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"encoder": STATE_NAME, "asks": {"probe": 2}}, "probe: 2.*state: the encoder"),
        ({"encoder": STATE_NAME, "asks": {"gossip": "1s"}}, "gossip: 1s.*state: the encoder"),
        ({"encoder": HEARD_NAME, "asks": "state"}, "state.*probe or gossip: the encoder .*v3"),
        ({"encoder": STATE_NAME}, "bits.*state: the encoder per-destination-v2"),
        ({"asks": "state"}, "state.*bits: the encoder per-destination-v1"),
    ],
)
def test_questions_that_nobody_answers_or_uses(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s){message}"):
        check_fits(tiny.per_destination(**facts)[0], 3)
