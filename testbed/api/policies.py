"""Policies by the reference that a user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.api import home
from testbed.api.places import runtime
from testbed.api.running import client_of
from testbed.errors import TestbedError

if TYPE_CHECKING:
    from testbed.policies import Policy


def surroundings(name: str, artifacts: str | None) -> tuple[str, str]:
    """Return the artifact store to use, and the policy deployed on the testbed ``name``."""
    store, deployed = None, ""
    try:
        testbed = runtime(name).find(name)
        with client_of(testbed, timeout=3.0) as client:
            status = client.status()
        store, deployed = testbed.artifacts or status.artifacts, status.policy
    except TestbedError:
        # None is up, it is incomplete, or it does not answer: the store can be looked at all the
        # same.
        pass
    return home.artifacts_url(artifacts, store), deployed


def listed(store: str) -> tuple[list[Policy], list[tuple[str, TestbedError]]]:
    """Return the shipped policies and then those in ``store``, oldest first.

    The second list has references of those that cannot be used, and why.

    Raises: PermanentError, TemporaryError: the store cannot be read at all.
    """
    from testbed.policies import SHIPPED_PREFIX, list_policies, load, shipped, shipped_names

    found, damaged = [], []
    for reference in (*(SHIPPED_PREFIX + each for each in shipped_names()), *list_policies(store)):
        try:
            found.append(
                shipped(reference.removeprefix(SHIPPED_PREFIX))
                if reference.startswith(SHIPPED_PREFIX)
                else load(store, reference)
            )
        except TestbedError as error:
            # One that cannot be used is no reason not to list the others.
            damaged.append((reference, error))
    return found, damaged


def resolved(reference: str, store: str) -> Policy:
    """Return the policy that a user names; a folder may be named without ./ if it is there.

    Raises: UsageError: there is none.
    """
    from testbed.policies import CARD, PREFIX, SHIPPED_PREFIX, folder_of, load_folder, resolve

    # A reference that says where to look is looked for nowhere else.
    if reference and not reference.startswith((PREFIX, SHIPPED_PREFIX)):
        folder = folder_of(reference)
        try:
            there = (folder / CARD).is_file()
        except (OSError, ValueError):
            there = False
        if there:
            return load_folder(folder)
    return resolve(reference, store)


def imported(reference: str, store: str) -> str:
    """Return the key under which nodes find a policy; a folder is imported into ``store`` first.

    Raises: UsageError: there is none.
    """
    from testbed.policies import SHIPPED_PREFIX, save
    from testbed.policies.inference import accept

    found = resolved(reference, store)
    if found.reference.startswith(("policies/", SHIPPED_PREFIX)):
        return found.reference
    # Nothing that is refused gets into the store.
    accept(found)
    return save(store, found.card, found.actor)
