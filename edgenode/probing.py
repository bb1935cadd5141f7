"""Probes: questions to peers, and how each of them ends."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edgenode.clock import Urgency
from edgenode.driving import Driver
from edgenode.links import PeerLink
from testbed.model.decision import Answer
from testbed.model.events import AskPeers, PeersAnswered, PeersSilent
from testbed.model.units import Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.messages import state_from_message


class _Question:
    __slots__ = ("asked", "open_peers")

    def __init__(self, asked: Micros, peers: tuple[int, ...]) -> None:
        self.asked = asked
        self.open_peers = set(peers)


def _same(request: pb.ProbeRequest) -> pb.ProbeRequest:
    return request


class Probing:
    """The questions of one node during one episode.

    With a control delay, a question leaves so long after it was asked as it takes to the peer, and
    its answer reaches the model after the time of the way back too, or when it is really there if
    that is later. A peer whose answer would come after the probe timeout is not asked.
    """

    def __init__(self, driver: Driver, links: Mapping[int, PeerLink]) -> None:
        self._driver = driver
        self._links = links
        self._questions: dict[tuple[int, int], _Question] = {}
        for link in links.values():
            link.on_probe_reply = self._on_reply
            link.on_probes_broken = self._on_broken

    def ask(self, effect: AskPeers) -> None:
        """Ask peers about their state; the question ends after the probe timeout at the latest."""
        driver, rules = self._driver, self._driver.plan.rules
        asked = driver.state.now
        question = _Question(asked, effect.peers)
        self._questions[effect.task_id, effect.round] = question
        driver.timers.at(
            asked + rules.probe_timeout,
            Urgency.DEADLINE,
            lambda at: self._time_over(effect.task_id, effect.round, at),
        )
        for (there, back), peers in rules.trips(driver.node, effect.peers).items():
            if there + back <= rules.probe_timeout:
                self._send_after(there, asked, effect._replace(peers=peers))

    def _send_after(self, delay: Micros, asked: Micros, effect: AskPeers) -> None:
        if delay:
            self._driver.timers.at(asked + delay, Urgency.MESSAGE, lambda _: self._send(effect))
        else:
            self._send(effect)

    def _send(self, effect: AskPeers) -> None:
        # Most ask all peers for the same: one message serves all.
        requests = {
            bit: self._request(effect, bit) for bit in {*map(effect.bit_only, effect.peers)}
        }
        unknown = tuple(peer for peer in effect.peers if peer not in self._links)
        for peer in effect.peers:
            if peer in self._links:
                request = requests[effect.bit_only(peer)]
                self._links[peer].probes.send(partial(_same, request))
        if unknown:
            self._silent(effect.task_id, effect.round, unknown)

    def _request(self, effect: AskPeers, bits_only: bool) -> pb.ProbeRequest:
        return pb.ProbeRequest(
            task_id=effect.task_id,
            round=effect.round,
            bits_only=bits_only,
            sender=self._driver.node,
            episode=self._driver.episode,
        )

    def _on_reply(self, peer: int, reply: pb.ProbeReply) -> None:
        question = self._questions.get((reply.task_id, reply.round))
        if question is None or peer not in question.open_peers:
            return
        driver = self._driver
        state = state_from_message(reply.state) if reply.HasField("state") else None
        self._answered(reply.task_id, reply.round, peer)
        rules, node = driver.plan.rules, driver.node
        earliest = question.asked + rules.delay(node, peer) + rules.delay(peer, node)

        def hand_in(at: Micros) -> None:
            answer = Answer(peer, reply.overloaded, state, question.asked, at)
            driver.handle(PeersAnswered(reply.task_id, reply.round, (answer,)), at)

        driver.timers.ring_due()
        now = max(driver.clock.now(), driver.state.now)
        if now < earliest:
            driver.timers.at(earliest, Urgency.MESSAGE, hand_in)
        else:
            hand_in(now)

    def _on_broken(self, peer: int, _reason: str) -> None:
        asking = [key for key, question in self._questions.items() if peer in question.open_peers]
        for task_id, round_ in asking:
            self._silent(task_id, round_, (peer,))

    def _silent(self, task_id: int, round_: int, peers: tuple[int, ...]) -> None:
        for peer in peers:
            self._answered(task_id, round_, peer)
        self._driver.happened(PeersSilent(task_id, round_, peers))

    def _answered(self, task_id: int, round_: int, peer: int) -> None:
        question = self._questions.get((task_id, round_))
        if question is not None:
            question.open_peers.discard(peer)
            if not question.open_peers:
                del self._questions[task_id, round_]

    def _time_over(self, task_id: int, round_: int, at: Micros) -> None:
        if self._questions.pop((task_id, round_), None) is not None:
            self._driver.handle(PeersSilent(task_id, round_), at)
