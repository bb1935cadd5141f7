"""Policies as artifacts: kept under an immutable key, found by reference, verified when read.

An artifact is two files: ``actor.onnx`` and its card, ``policy.json``. Nothing here runs what it
reads; ``testbed.policies.inference`` does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testbed.errors import PermanentError, PrerequisiteMissing, Problem, UsageError
from testbed.files import ORDINARY, write_atomically
from testbed.model import information
from testbed.model.encoders import ENCODERS
from testbed.model.per_destination import COLUMNS_OF
from testbed.policies.card import LARGEST_CARD, NAME, PolicyCard
from testbed.storage.artifacts import ArtifactStore, open_artifact_store
from testbed.storage.documents import read_file

ACTOR: Final = "actor.onnx"
CARD: Final = "policy.json"
PREFIX: Final = "policies/"
"""Keys of policies begin with this."""

SHIPPED_PREFIX: Final = "shipped/"
"""References to policies that come with the package begin with this."""

SHIPPED_DEFAULT: Final = "per-destination-v1"
"""The shipped policy that decides where none is named."""

LARGEST_ACTOR: Final = 100_000
"""Bytes an actor may have at most: nodes are small (paper section IV-C3)."""

_SHIPPED_FOLDER: Final = Path(__file__).parent / "shipped"


@dataclass(frozen=True, slots=True)
class Policy:
    """A verified policy: its card, the bytes of its actor, and the reference that finds it again.

    ``reference`` is a key of the artifact store, ``shipped/NAME``, or the path of a folder.
    """

    card: PolicyCard
    actor: bytes
    reference: str


def key_of(card: PolicyCard) -> str:
    """Return the key of a policy in an artifact store."""
    return PREFIX + card.id


def save(store: ArtifactStore | str, card: PolicyCard, actor: bytes) -> str:
    """Keep a policy in the store (or its URL); its key. Idempotent.

    A policy that the store has already stays as it is: only the time in its card could differ.

    Raises: UsageError: the actor does not match the card.
    """
    verify(card, actor)
    key, opened = key_of(card), _opened(store)
    if not opened.exists(key):
        opened.put(key, {ACTOR: actor, CARD: card.to_json().encode()})
    return key


def write_folder(folder: Path, card: PolicyCard, actor: bytes) -> None:
    """Write a policy as the two files of its artifact into ``folder``, which may exist.

    Raises: UsageError: the actor does not match the card. PermanentError: it cannot be written.
    """
    verify(card, actor)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((ACTOR, actor), (CARD, card.to_json().encode())):
            write_atomically(folder / name, content, ORDINARY)
    except OSError as error:
        raise PermanentError(f"{folder} cannot be written: {error.strerror or error}") from error


def load(store: ArtifactStore | str, key: str) -> Policy:
    """Return the policy under ``key``, verified.

    Raises: UsageError: there is none, or it does not match its card. PermanentError: it is
    truncated or altered. TemporaryError: the store does not answer.
    """
    if not key.startswith(PREFIX):
        raise UsageError(
            "not a policy", [Problem("policy", repr(key), f"keys begin with {PREFIX}")]
        )
    files = _opened(store).get(key)
    if not {ACTOR, CARD} <= set(files):
        seen = f"holds {', '.join(sorted(files))}"
        raise UsageError("not a policy", [Problem(key, seen, f"{ACTOR} and {CARD}")])
    card = PolicyCard.from_json(files[CARD], f"{key}/{CARD}")
    if key_of(card) != key:
        raise UsageError(
            "this policy cannot be used",
            [Problem(key, f"holds the card of {card.id}", "an artifact is never renamed")],
        )
    verify(card, files[ACTOR], f"{key}/{ACTOR}")
    return Policy(card, files[ACTOR], key)


def load_folder(folder: Path, reference: str | None = None) -> Policy:
    """Return the policy in ``folder``, verified.

    Raises: UsageError: there is none, or it is truncated or altered.
    """
    written = _read(folder / CARD, LARGEST_CARD)
    card = PolicyCard.from_json(written, str(folder / CARD))
    if card.size_bytes > LARGEST_ACTOR:
        verify_size(card, str(folder / CARD))
    actor = _read(folder / ACTOR, LARGEST_ACTOR, card)
    verify(card, actor, str(folder / ACTOR))
    return Policy(card, actor, reference or str(folder.absolute()))


def _read(path: Path, largest: int, card: PolicyCard | None = None) -> bytes:
    """Return a file of a policy as bytes; an actor only if it has the size in its card."""
    try:
        return read_file(path, largest, exactly=None if card is None else card.size_bytes)
    except OSError as error:
        raise UsageError(
            "not a policy",
            [
                Problem(
                    str(path),
                    (error.strerror or str(error)).lower(),
                    f"a folder with {ACTOR} and {CARD}",
                )
            ],
        ) from None
    except ValueError as error:
        # Also what no path can hold, as a zero byte.
        what = "not a policy" if card is None else f"policy {card.id} cannot be used"
        allowed = f"a file of up to {largest} bytes"
        if card is not None:
            allowed = "truncated or altered: fetch or export it again"
        raise UsageError(what, [Problem(str(path), str(error), allowed)]) from None


def list_policies(store: ArtifactStore | str) -> tuple[str, ...]:
    """Keys of all policies in the store, oldest first where their cards can be read."""
    opened = _opened(store)

    def age(key: str) -> tuple[str, str]:
        try:
            return load(opened, key).card.created, key
        except (UsageError, PermanentError):
            # Damaged; opening it raises the error.
            return "", key

    return tuple(sorted(keys(opened), key=age))


def keys(store: ArtifactStore | str) -> tuple[str, ...]:
    """Keys of all policies in the store, in order."""
    return tuple(_opened(store).list(PREFIX.rstrip("/")))


def shipped(name: str = SHIPPED_DEFAULT) -> Policy:
    """A policy that comes with the package; ``name`` is one of ``shipped_names``, never a path.

    Raises: PrerequisiteMissing: it is not in this installation. UsageError: no such policy.
    """
    folder = _SHIPPED_FOLDER / name
    if name not in shipped_names():
        if name == SHIPPED_DEFAULT:
            raise PrerequisiteMissing(
                "this installation has no shipped policy",
                "name a policy: --option policy=KEY, or deploy one: testbed policy deploy KEY",
            )
        raise UsageError(
            "unknown policy",
            [Problem(SHIPPED_PREFIX + name, "is not shipped", ", ".join(shipped_names()))],
        )
    return load_folder(folder, SHIPPED_PREFIX + name)


def shipped_names() -> tuple[str, ...]:
    """Names of the policies that come with the package."""
    return tuple(
        sorted(
            path.parent.name
            for path in _SHIPPED_FOLDER.glob(f"*/{CARD}")
            if NAME.fullmatch(path.parent.name)
        )
    )


def resolve(reference: str, store: ArtifactStore | str | None) -> Policy:
    """The policy that a user means: a key, an id or a unique prefix, ``shipped/NAME``, or a folder.

    A folder is meant by what begins with ``/``, ``.`` or ``~``. ``store`` None is no store.

    Raises: UsageError: there is none, or more than one, or it cannot be used.
    """
    if reference.startswith(SHIPPED_PREFIX):
        return shipped(reference.removeprefix(SHIPPED_PREFIX))
    if reference.startswith(("/", ".", "~")):
        return load_folder(folder_of(reference))
    if store is None:
        raise UsageError(
            "unknown policy",
            [Problem("policy", repr(reference), "there is no artifact store here; name a folder")],
        )
    opened = _opened(store)
    key = reference if reference.startswith(PREFIX) else PREFIX + reference
    every = keys(opened)
    found = [each for each in every if each.startswith(key)] if key != PREFIX else []
    if key in every or len(found) == 1:
        return load(opened, key if key in every else found[0])
    known = [each.removeprefix(PREFIX) for each in found or every]
    raise UsageError(
        "ambiguous policy" if found else "unknown policy",
        [
            Problem(
                "policy",
                f"{reference!r} is not in the artifact store"
                if not found
                else f"{reference!r} matches several policies",
                f"there are {', '.join((*known, *(SHIPPED_PREFIX + n for n in shipped_names())))}"
                if known or shipped_names()
                else "there is none yet; see testbed policy import",
            )
        ],
    )


def folder_of(reference: str) -> Path:
    """Return the folder that a user names; ``~`` is their own.

    Raises: UsageError: there is no such user.
    """
    try:
        return Path(reference).expanduser()
    except RuntimeError as error:
        raise UsageError(
            "not a policy", [Problem("policy", f"{reference!r}: {error}", "name a folder")]
        ) from None


def verify_size(card: PolicyCard, source: str) -> None:
    """Check that a policy is small enough for nodes, by the size in its card.

    Raises: UsageError: it is not.
    """
    if card.size_bytes > LARGEST_ACTOR:
        raise UsageError(
            f"policy {card.id} cannot be used",
            [
                Problem(
                    f"{source}: size_bytes", f"{card.size_bytes}", f"at most {LARGEST_ACTOR} bytes"
                )
            ],
        )


def verify(card: PolicyCard, actor: bytes, source: str = ACTOR) -> None:
    """Check that ``actor`` is, byte for byte, the one of the card.

    Raises: UsageError: it is truncated, altered or too large.
    """
    problem = None
    if len(actor) > LARGEST_ACTOR:
        problem = Problem(source, f"has more than {LARGEST_ACTOR} bytes", f"<= {LARGEST_ACTOR}")
    elif len(actor) != card.size_bytes:
        problem = Problem(
            source,
            f"has {len(actor)} bytes instead of {card.size_bytes}: truncated or altered",
            "fetch or export it again",
        )
    elif (found := hashlib.sha256(actor).hexdigest()) != card.sha256:
        problem = Problem(
            source,
            f"sha256 {found[:12]}… instead of {card.sha256[:12]}…: altered",
            "fetch or export it again",
        )
    if problem is not None:
        raise UsageError(f"policy {card.id} cannot be used", [problem])


def check_fits(card: PolicyCard, nodes: int, scenario_hash: str | None = None) -> tuple[str, ...]:
    """Check that a policy can decide in a network; what the user should know although it can.

    ``scenario_hash`` None: not known, so not compared.

    Raises: UsageError: unknown encoder, questions that nobody answers, another number of nodes, or
    a scenario it is not for.
    """
    known = dict.fromkeys(ENCODERS, "flat") | dict.fromkeys(COLUMNS_OF, "per-destination")
    problems = []
    if known.get(card.encoder) != card.kind:
        problems.append(
            Problem(
                "encoder",
                f"{card.encoder!r} of a {card.kind} policy",
                f"known are {', '.join(f'{name} ({kind})' for name, kind in known.items())}",
            )
        )
    problems += _asks_problems(card)
    if card.nodes is not None and card.nodes != nodes:
        problems.append(
            Problem(
                "nodes",
                f"it is for {card.nodes} nodes, the network has {nodes}",
                f"a policy for {nodes} nodes, or a per-destination one",
            )
        )
    warnings = []
    if None not in (card.scenario_hash, scenario_hash) and card.scenario_hash != scenario_hash:
        assert card.scenario_hash is not None
        assert scenario_hash is not None
        told = (
            f"it was trained on {card.scenario or 'a scenario'} [{card.scenario_hash[:12]}], "
            f"this is [{scenario_hash[:12]}]"
        )
        if card.scenario_required:
            problems.append(Problem("scenario", told, "its card allows no other scenario"))
        else:
            warnings.append(f"policy {card.id}: {told}")
    if problems:
        raise UsageError(f"policy {card.id} does not fit this network", problems)
    return tuple(warnings)


def _asks_problems(card: PolicyCard) -> list[Problem]:
    """Return why the peers cannot answer what a policy asks; empty if they can."""
    told = information.told(card.asks)
    kind = information.kind_of(card.asks)
    if kind not in information.GIVEN:
        *others, last = information.GIVEN
        return [Problem("asks", told, f"this testbed answers {', '.join(others)} and {last}")]
    used = information.used_by(card.encoder)
    if used and kind not in used:
        allowed = " or ".join(used)
        return [Problem("asks", told, f"{allowed}: the encoder {card.encoder} uses nothing else")]
    return []


def _opened(store: ArtifactStore | str) -> ArtifactStore:
    return open_artifact_store(store) if isinstance(store, str) else store
