"""The parties of a testbed: its operator, its controller, and each of its nodes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """Kind of a party."""

    OPERATOR = "operator"
    CONTROLLER = "controller"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Identity:
    """One party of a testbed; ``node`` is the index of a node, None for the others.

    As text: ``operator``, ``controller``, ``node-3``.
    """

    role: Role
    node: int | None = None

    def __str__(self) -> str:
        return self.role.value if self.node is None else f"{self.role.value}-{self.node}"

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Inverse of ``str``.

        Raises: ValueError: this is no identity.
        """
        if text in (Role.OPERATOR, Role.CONTROLLER):
            return cls(Role(text))
        found = _NODE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is neither operator, nor controller, nor node-NUMBER")
        return cls(Role.NODE, int(found[1]))


_NODE: Final = re.compile(r"node-(0|[1-9][0-9]{0,8})", re.ASCII)

OPERATOR: Final = Identity(Role.OPERATOR)
CONTROLLER: Final = Identity(Role.CONTROLLER)


def node_identity(node: int) -> Identity:
    """Return the identity of the node with this index."""
    return Identity(Role.NODE, node)
