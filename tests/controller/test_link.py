from __future__ import annotations

import pytest

from controller.link import NodeLink
from testbed.errors import TemporaryError
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.identity import CONTROLLER


async def _ignore(_link: NodeLink, _batch: pb.EventBatch) -> None:
    """Takes no events: nothing is running at the address."""


async def test_a_call_after_the_node_has_died_is_an_answer_and_no_defect() -> None:
    link = NodeLink(0, "127.0.0.1:1", _ignore, shared("secret", CONTROLLER))
    await link.close()
    with pytest.raises(TemporaryError, match="connection was closed"):
        await link.describe()
    with pytest.raises(TemporaryError, match="connection was closed"):
        await link.prepare_policy(pb.PreparePolicyRequest())
    # These two are told to a node that may well be gone.
    await link.abort_policy("d")
    await link.shutdown()
