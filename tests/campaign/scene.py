"""What a fault finds when it strikes, and the registry of faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.campaign.checks import Expected
from tests.campaign.network import Network
from tests.campaign.processes import Command
from tests.campaign.trial import Trial

if TYPE_CHECKING:
    from tests.campaign.services import Services
    from tests.campaign.switchboard import Switchboard


@dataclass(slots=True)
class Scene:
    """A network that is up with run ``run`` under way, watched by ``command``.

    ``extra`` collects processes and threads that must have ended before the checks.
    ``repair`` is called before the teardown: what a user would do, such as freeing a disk.
    """

    trial: Trial
    network: Network
    draws: random.Random
    services: Services
    command: Command | None = None
    run: str = ""
    switchboard: Switchboard | None = None
    repairs: list[Callable[[], None]] = field(default_factory=list)

    @property
    def nodes(self) -> list[int]:
        """The indexes of its nodes."""
        return list(range(self.trial.nodes))

    def pause_s(self) -> float:
        """How long something hangs: 0.2 to 10 s, short ones more often."""
        return float(0.2 * 50 ** self.draws.random())


Strike = Callable[[Scene], Expected]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault. ``needs`` names what it cannot do without: ``mysql``, ``hdfs``, ``long``.

    ``run``: it strikes a run under way; otherwise there is no testbed when it begins. ``links`` and
    ``clock``: the processes of the testbed get the hooks for that.
    """

    name: str
    strike: Strike
    needs: frozenset[str] = frozenset()
    run: bool = True
    links: bool = False
    clock: bool = False
    twice: float = 0.0


FAULTS: Final[dict[str, Fault]] = {}


def fault(
    name: str,
    *needs: str,
    run: bool = True,
    links: bool = False,
    clock: bool = False,
    twice: float = 0.0,
) -> Callable[[Strike], Strike]:
    """Register a fault under ``name``."""

    def register(strike: Strike) -> Strike:
        FAULTS[name] = Fault(name, strike, frozenset(needs), run, links, clock, twice)
        return strike

    return register
