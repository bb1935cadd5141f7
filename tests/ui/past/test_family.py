"""The family tree of policies."""

from __future__ import annotations

from testbed.policies import PolicyCard
from testbed.ui.palette import LIGHT
from testbed.ui.past import family
from testbed.ui.past.policies_page import facts_of


def card(name: str, day: int, *parents: PolicyCard | str, rate: float | None = None) -> PolicyCard:
    return PolicyCard.describe(
        name,
        name.encode(),
        kind="per-destination",
        encoder="per-destination-v1",
        nodes=None,
        created=f"2026-01-{day:02d}T00:00:00+00:00",
        parents=tuple(each if isinstance(each, str) else each.id for each in parents),
        evaluation={} if rate is None else {"success_rate": rate},
    )


def test_children_stand_below_their_first_parent() -> None:
    root, other = card("root", 1), card("other", 2)
    first = card("first", 3, root, rate=0.875)
    second = card("second", 4, root)
    both = card("both", 5, first, other)

    found = family.members([both, second, first, other, root])

    assert [(each.id, each.depth) for each in found] == [
        (root.id, 0),
        (first.id, 1),
        (both.id, 2),
        (second.id, 1),
        (other.id, 0),
    ]
    assert found[2].others == (other.id,)
    assert (found[1].rate, found[0].rate) == (0.875, None)


def test_a_parent_that_is_gone_keeps_its_place() -> None:
    children = [card("a", 1, "lost-0123456789ab"), card("b", 2, "lost-0123456789ab")]

    found = family.members(children)

    assert [(each.id, each.depth) for each in found] == [
        ("lost-0123456789ab", 0),
        (children[0].id, 1),
        (children[1].id, 1),
    ]
    assert found[0].card is None


def test_the_chart_has_an_arrow_for_each_parent() -> None:
    root, other = card("root", 1), card("other", 2)
    child = card("child", 3, root, other, "gone-0123456789ab", rate=0.5)

    (series,) = family.tree(family.members([root, other, child]), LIGHT)["series"]

    assert {(each["source"], each["target"]) for each in series["links"]} == {
        (root.id, child.id),
        (other.id, child.id),
    }
    labels = {each["name"]: each["label"]["formatter"] for each in series["data"]}
    assert labels[child.id] == f"{family.short(child.id)}\n50.0 %"
    places = [tuple(each["value"]) for each in series["data"]]
    assert len(set(places)) == len(places)


def test_the_facts_of_a_card() -> None:
    facts = {fact.name: fact.text for fact in facts_of(card("x", 1, rate=0.25))}

    assert facts["nodes"] == "any number"
    assert facts["evaluation: success rate"] == "0.25"
