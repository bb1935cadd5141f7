"""The card of a policy: what it was made for and from, and what proves that it is unchanged.

``policy.json`` is a card as JSON. Its ``id`` ends with a hash over everything else in the card but
the time it was written, the actor's own sha256 included: a change of either file shows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypedDict, Unpack, get_args

from testbed.errors import Problem, UsageError
from testbed.model.information import BITS, KNOWN, Asks, is_known
from testbed.storage.documents import read_object

if TYPE_CHECKING:
    from testbed.scenario.plan import Plan

CARD_VERSION: Final = 1
"""Version of the JSON form; another version is refused."""

LARGEST_CARD: Final = 1_000_000
"""Bytes a card may have at most."""

LONGEST_TEXT: Final = 1_000
MOST_NODES: Final = 10_000
MOST_PARENTS: Final = 1_000

Kind: TypeAlias = Literal["flat", "per-destination"]
"""``flat``: one row of numbers per node, one output per action, for one N. ``per-destination``: one
row per candidate, any N."""

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,47}[a-z0-9])?")
_ID: Final = re.compile(rf"({NAME.pattern})-[0-9a-f]{{12}}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Network(TypedDict, total=False):
    """Fields of a card about the network on which a policy was learned."""

    scenario: str | None
    scenario_hash: str | None
    overload: Mapping[str, Any] | None


class Facts(Network, total=False):
    """Fields of a card that the actor does not need; all of them plain JSON values."""

    scenario_required: bool
    dataset_hash: str | None
    parents: tuple[str, ...]
    evaluation: Mapping[str, Any]
    training: Mapping[str, Any]
    asks: Asks


def learned_on(plan: Plan) -> Network:
    """Return the fields of a card for a policy that was learned on the network of ``plan``."""
    overload = plan.rules.overload
    return {
        "scenario": plan.name,
        "scenario_hash": plan.scenario_hash,
        "overload": {"measure": overload.measure.value, "limit": overload.limit},
    }


@dataclass(frozen=True, slots=True)
class PolicyCard:
    """Description of a policy; ``describe`` makes one, with its id.

    ``sha256`` and ``size_bytes`` are those of its ``actor.onnx``. ``nodes`` is the N it fits, None
    for any. ``scenario`` and ``scenario_hash`` name what it was trained on, None for no particular
    one; with ``scenario_required`` it is refused elsewhere, without it a difference is a warning.
    ``overload`` (``{"measure": ..., "limit": ...}``) is the rule of the mask it was trained under.
    ``dataset_hash`` and ``parents`` (ids of policies) are its origins. ``evaluation`` and
    ``training`` hold what the trainer measured and was set to, for people to read. ``asks`` is what
    it asks its peers about every task (``testbed.model.information``); a card whose policy asks for
    overload bits, as all of earlier releases do, does not say so.
    """

    id: str
    kind: Kind
    encoder: str
    nodes: int | None
    sha256: str
    size_bytes: int
    created: str
    scenario: str | None = None
    scenario_hash: str | None = None
    scenario_required: bool = False
    overload: Mapping[str, Any] | None = None
    dataset_hash: str | None = None
    parents: tuple[str, ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    asks: Asks = BITS

    @classmethod
    def describe(
        cls,
        name: str,
        onnx: bytes,
        *,
        kind: Kind,
        encoder: str,
        nodes: int | None,
        created: str | None = None,
        **facts: Unpack[Facts],
    ) -> Self:
        """Return the card of the actor ``onnx``; its id is ``name`` and a hash of the content.

        ``created`` None is now. ``facts`` are the other fields of a card.

        Raises: UsageError: ``name`` or something else cannot stand in a card.
        """
        card = cls(
            id="",
            kind=kind,
            encoder=encoder,
            nodes=nodes,
            sha256=hashlib.sha256(onnx).hexdigest(),
            size_bytes=len(onnx),
            created=created or datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
        )
        # The card keeps values of its own.
        card = dataclasses.replace(
            card,
            overload=None if card.overload is None else dict(card.overload),
            parents=tuple(card.parents),
            evaluation=dict(card.evaluation),
            training=dict(card.training),
            asks=card.asks if isinstance(card.asks, str) else dict(card.asks),
        )
        if NAME.fullmatch(name) is None:
            raise _wrong([Problem("name", repr(name), "up to 49 of a-z, 0-9 and -")])
        try:
            card = dataclasses.replace(card, id=f"{name}-{card.content_hash}")
            problems = _problems(card)
            # Whoever reads it is as strict.
            read_object(card.to_json(), LARGEST_CARD)
        except (TypeError, ValueError) as error:
            problems = [Problem("", str(error), "only plain JSON values can stand in a card")]
        if problems:
            raise _wrong(problems)
        return card

    @property
    def content_hash(self) -> str:
        """The required end of the id: 12 hexadecimal digits over all but id and time."""
        content = self._document()
        del content["id"], content["created"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _document(self) -> dict[str, Any]:
        document = dataclasses.asdict(self)
        if self.asks == BITS:
            del document["asks"]
        return document

    def to_json(self) -> str:
        """Return the card as indented JSON; ``from_json`` gives an equal one back."""
        document = {"cardVersion": CARD_VERSION, **self._document()}
        return json.dumps(document, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "policy.json") -> Self:
        """Return the card that ``to_json`` wrote; ``source`` names it in messages.

        Raises: UsageError: it is no card, of another version, damaged, or was altered.
        """
        try:
            document = read_object(text, LARGEST_CARD)
        except ValueError as error:
            seen = f"is no card of a policy: it {error}"
            raise _wrong([Problem(source, seen, "a complete card as JSON")]) from None
        if "cardVersion" not in document:
            raise _wrong([Problem(source, "is no card of a policy", "JSON with cardVersion")])
        version = document.pop("cardVersion")
        if type(version) is not int or version != CARD_VERSION:
            seen = f"cardVersion {_shown(version)}"
            raise _wrong([Problem(source, seen, f"this toolkit reads {CARD_VERSION}")])
        known = {each.name for each in dataclasses.fields(cls)}
        problems = [
            Problem(
                f"{source}: {name if name.isidentifier() else _shown(name)}",
                "is not known",
                f"known are {', '.join(sorted(known))}",
            )
            for name in sorted(set(document) - known)[:10]
        ]
        needed = {
            each.name
            for each in dataclasses.fields(cls)
            if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        }
        problems += [
            Problem(f"{source}: {name}", "is missing", "a complete card")
            for name in sorted(needed - set(document))
        ]
        if problems:
            raise _wrong(problems)
        parents = document.get("parents", [])
        if not isinstance(parents, list):
            raise _wrong([Problem(f"{source}: parents", _shown(parents), "a list of ids")])
        document["parents"] = tuple(parents)
        card = cls(**document)
        problems = [
            Problem(f"{source}: {each.path}", each.seen, each.allowed) for each in _problems(card)
        ]
        if not problems and not card.id.endswith(f"-{card.content_hash}"):
            problems = [
                Problem(
                    f"{source}: id",
                    f"{card.id}, but its content makes …-{card.content_hash}",
                    "a card is never changed; export the policy again",
                )
            ]
        if problems:
            raise _wrong(problems)
        return card


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _wrong(problems: list[Problem]) -> UsageError:
    return UsageError("the card of this policy cannot be used", problems)


def _problems(card: PolicyCard) -> list[Problem]:
    """Return the problems of a card's types and values; its hash is not checked."""

    def text(name: str, optional: bool = True) -> Problem | None:
        value = getattr(card, name)
        if (value is None and optional) or is_text(value):
            return None
        allowed = f"a printable text of up to {LONGEST_TEXT} characters"
        return Problem(name, _shown(value), allowed + (" or null" if optional else ""))

    def is_text(value: object) -> bool:
        return isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT and value.isprintable()

    def mapping(name: str, optional: bool = False) -> Problem | None:
        value = getattr(card, name)
        if (value is None and optional) or isinstance(value, dict):
            return None
        return Problem(name, _shown(value), "an object" + (" or null" if optional else ""))

    def check(name: str, good: bool, allowed: str) -> Problem | None:
        return None if good else Problem(name, _shown(getattr(card, name)), allowed)

    def whole(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1

    def matches(pattern: re.Pattern[str], value: object) -> bool:
        return isinstance(value, str) and pattern.fullmatch(value) is not None

    kinds = get_args(Kind)
    found = [
        check("id", matches(_ID, card.id), "NAME-<12 hex>"),
        check("kind", card.kind in kinds, f"one of {', '.join(kinds)}"),
        text("encoder", optional=False),
        check(
            "nodes",
            card.nodes is None or (whole(card.nodes) and card.nodes <= MOST_NODES),
            f"a number of nodes from 1 to {MOST_NODES}, or null",
        ),
        check("sha256", matches(_SHA256, card.sha256), "64 hexadecimal digits"),
        check("size_bytes", whole(card.size_bytes), "a number of bytes above 0"),
        text("created", optional=False),
        text("scenario"),
        text("scenario_hash"),
        check("scenario_required", isinstance(card.scenario_required, bool), "true or false"),
        mapping("overload", optional=True),
        text("dataset_hash"),
        check(
            "parents",
            len(card.parents) <= MOST_PARENTS and all(is_text(parent) for parent in card.parents),
            "a list of ids",
        ),
        mapping("evaluation"),
        mapping("training"),
        check("asks", is_known(card.asks), KNOWN),
    ]
    if card.kind == "flat" and card.nodes is None:
        found.append(Problem("nodes", "null", "a flat policy fits one number of nodes; name it"))
    return [problem for problem in found if problem is not None]
