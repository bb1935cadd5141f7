"""The Secrets of a testbed on a cluster: their names, contents and renewal.

``credentials`` has one key for each kind of pod, and a pod sees those it needs only. No pod sees
``authority.pem``, which signs certificates for nodes that are added later. ``node-credentials`` has
one key for each node, named as its pod, and a container sees its own.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from testbed.errors import PrerequisiteMissing
from testbed.rpc import certificates as issuing
from testbed.rpc.certificates import Authority
from testbed.rpc.credentials import PartyCertificate, of_operator
from testbed.rpc.identity import CONTROLLER, OPERATOR, node_identity
from testbed.runtime.kubernetes.rendering import EDGE_NODE

CREDENTIALS: Final = "credentials"
NODE_CREDENTIALS: Final = "node-credentials"
SECRETS: Final = (CREDENTIALS, NODE_CREDENTIALS)
"""The Secrets of a testbed."""

AUTHORITY_KEY: Final = "authority.pem"
CONTROLLER_KEY: Final = "controller.pem"
OPERATOR_KEY: Final = "operator.pem"
PASSWORD_KEY: Final = "mysql-password"

Contents: TypeAlias = dict[str, dict[str, str]]
"""Contents of Secrets, by name and key."""


def completed(
    kept: Mapping[str, Mapping[str, str]],
    testbed: str,
    nodes: int,
    *,
    renew: Callable[[], bool] = lambda: True,
) -> tuple[Contents, str]:
    """Return the Secrets for ``nodes`` nodes, reusing what is ``kept``, and their authority.

    Certificates that end soon are all replaced if ``renew`` says so, damaged ones in any case.
    """
    own = dict(kept.get(CREDENTIALS, {}))
    authority = _authority(own, testbed, renew)
    if authority is None:
        authority = Authority.new(testbed)
        kept = {}
        own |= {
            AUTHORITY_KEY: authority.to_pem().strip(),
            CONTROLLER_KEY: authority.issue(CONTROLLER).to_pem().strip(),
            OPERATOR_KEY: authority.issue(OPERATOR).to_pem().strip(),
        }
    before = kept.get(NODE_CREDENTIALS, {})
    of_nodes = {}
    for node in range(nodes):
        key = f"{EDGE_NODE}-{node}"
        of_nodes[key] = before.get(key) or authority.issue(node_identity(node)).to_pem().strip()
    return {CREDENTIALS: own, NODE_CREDENTIALS: of_nodes}, authority.fingerprint[:16]


def _authority(own: Mapping[str, str], testbed: str, renew: Callable[[], bool]) -> Authority | None:
    """Return the authority that is still good; None if a new one is needed."""
    try:
        authority = Authority.from_pem(testbed, own[AUTHORITY_KEY])
        for key in (CONTROLLER_KEY, OPERATOR_KEY):
            found = of_operator(own[key])
            if not isinstance(found, PartyCertificate) or found.testbed != testbed:
                return None
    except (KeyError, PrerequisiteMissing):
        return None
    left = authority.expires() - datetime.datetime.now(datetime.UTC)
    return None if left < issuing.RENEW_BEFORE and renew() else authority
