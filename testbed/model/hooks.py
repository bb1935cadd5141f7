"""All hooks by name. A kind of decision is added with a module of its own and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from testbed.model import placing
from testbed.model.hook import PLACE, Decided, Document, Hook, table
from testbed.model.serving import route

HOOKS: Final[Mapping[str, Hook[Any]]] = table(placing.HOOK, route.HOOK)
"""By name; the names are the keys of decisions in messages, spools and the task log."""


def to_document(decision: Decided) -> Document:
    """Return a decision of any kind as plain values, with the name of its hook under ``hook``.

    The name is left out for ``place``: documents without it are those of releases that had no
    other kind.
    """
    document = HOOKS[decision.hook].to_document(decision)
    return document if decision.hook == PLACE else {"hook": decision.hook, **document}


def from_document(document: Document) -> Decided:
    """Return the decision of a document of any kind; the inverse of ``to_document``.

    Raises: ValueError, KeyError or TypeError: this is not the document of a decision.
    """
    if not isinstance(document, dict):
        raise ValueError("not a decision: no JSON object")
    name = document.get("hook", PLACE)
    if name not in HOOKS:
        raise ValueError(f"a decision for the unknown hook {name!r}; known: {', '.join(HOOKS)}")
    decision: Decided = HOOKS[name].from_document(
        {key: value for key, value in document.items() if key != "hook"}
        if "hook" in document
        else document
    )
    return decision
