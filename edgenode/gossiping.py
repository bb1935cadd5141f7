"""Gossip: the state of a node, which it tells all its peers once in a period, unasked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edgenode.clock import Urgency
from edgenode.driving import Driver
from edgenode.links import PeerLink
from testbed.model.decision import Scheduler
from testbed.model.events import GossipDue, TellPeers
from testbed.model.information import gossip_period
from testbed.model.units import Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.messages import state_to_message


class Gossiping:
    """Gossip of one node during one episode; none unless its scheduler asks for it.

    The period is that of the scheduler at the time. Instants are its multiples from the beginning
    of the episode on, as in the simulator; after the last slot nothing is told.
    """

    def __init__(self, driver: Driver, links: Mapping[int, PeerLink]) -> None:
        self._driver = driver
        self._links = links
        self._period: Micros = 0
        workload = driver.plan.workload
        self._until = workload.slots * workload.slot

    def follow(self, scheduler: Scheduler) -> None:
        """Gossip from now on as often as ``scheduler`` wants it."""
        period = gossip_period(scheduler)
        if period == self._period:
            return
        self._period = period
        if period:
            now = max(self._driver.clock.now(), 0)
            self._set_timer(-(-now // period) * period)

    def tell(self, effect: TellPeers) -> None:
        """Send this node's state to every peer that a fault does not keep it from."""
        driver = self._driver
        frame = pb.TransferFrame(
            sender=driver.node, episode=driver.episode, state=state_to_message(effect.state)
        )
        for peer, link in self._links.items():
            if driver.reaches(peer):
                link.transfer.send(partial(_same, frame))

    def _set_timer(self, at: Micros) -> None:
        if at < self._until:
            period = self._period
            self._driver.timers.at(at, Urgency.GOSSIP, lambda at: self._ring(at, period))

    def _ring(self, at: Micros, period: Micros) -> None:
        if period != self._period:
            # It was set for a scheduler that was replaced.
            return
        self._driver.handle(GossipDue(), at)
        self._set_timer(at + period)


def _same(frame: pb.TransferFrame) -> pb.TransferFrame:
    return frame
