"""Learned policies: reads and verifies what the trainer exported, and the policies shipped here.

Needs no training library; a policy that fails verification is refused before it is loaded.
"""

from __future__ import annotations

from testbed.policies.artifact import (
    ACTOR,
    CARD,
    LARGEST_ACTOR,
    PREFIX,
    SHIPPED_DEFAULT,
    SHIPPED_PREFIX,
    Policy,
    check_fits,
    folder_of,
    key_of,
    list_policies,
    load,
    load_folder,
    resolve,
    save,
    shipped,
    shipped_names,
    verify,
    write_folder,
)
from testbed.policies.card import Kind, PolicyCard

__all__ = [
    "ACTOR",
    "CARD",
    "LARGEST_ACTOR",
    "PREFIX",
    "SHIPPED_DEFAULT",
    "SHIPPED_PREFIX",
    "Kind",
    "Policy",
    "PolicyCard",
    "check_fits",
    "folder_of",
    "key_of",
    "list_policies",
    "load",
    "load_folder",
    "resolve",
    "save",
    "shipped",
    "shipped_names",
    "verify",
    "write_folder",
]
