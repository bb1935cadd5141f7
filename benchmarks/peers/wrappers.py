"""PettingZoo's interface and Gymnasium's vector wrappers around our environment.

All play the same episodes with random actions; ours plays all of them at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from benchmarks.peers import Row, absent, row
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.sim.engine.episodes import record
from testbed.sim.engine.vector import UniformPolicy, VectorEnv

SCENARIO: Final = "paper-simulation"


def lacks() -> list[str]:
    """Return the packages that are missing."""
    return absent("gymnasium", "pettingzoo")


def rows(quick: bool = False) -> list[Row]:
    """Measure slots of one episode per second through each interface."""
    plan = resolve(load(SCENARIO))
    slots, copies = plan.workload.slots, 2 if quick else 8
    ours = own_rate(plan, 8 if quick else 128)
    found = [row("our vectorised environment, recorded", ours, "slots/s")]
    for title, play in (
        ("PettingZoo's parallel interface, one episode at a time", partial(_parallel, plan)),
        ("PettingZoo's AEC interface, one episode at a time", partial(_aec, plan)),
        (f"Gymnasium's SyncVectorEnv of {copies}", partial(_vector, plan, copies, sync=True)),
        (f"Gymnasium's AsyncVectorEnv of {copies}", partial(_vector, plan, copies, sync=False)),
    ):
        episodes, seconds = play()
        rate = episodes * slots / seconds
        found += [row(title, rate, "slots/s"), row(f"{title}: ours is faster", ours / rate, "x")]
    return found


def own_rate(plan: Plan, episodes: int) -> float:
    """Return slots per second of our environment with all arrays that training needs."""
    env, numbers = VectorEnv([plan] * episodes), list(range(episodes))
    record(env, UniformPolicy(), numbers)
    began = time.perf_counter()
    record(env, UniformPolicy(), numbers)
    return episodes * plan.workload.slots / (time.perf_counter() - began)


def _parallel(plan: Plan) -> tuple[int, float]:
    from trainer.envs.pettingzoo_env import NetworkParallelEnv

    env = NetworkParallelEnv(plan)
    spaces = [(agent, env.action_space(agent)) for agent in env.possible_agents]

    def episode() -> None:
        seen, _ = env.reset()
        while env.agents:
            masks = {agent: seen[agent]["action_mask"] for agent, _ in spaces}
            seen, *_ = env.step({agent: int(s.sample(masks[agent])) for agent, s in spaces})

    return 1, _seconds(episode)


def _aec(plan: Plan) -> tuple[int, float]:
    from pettingzoo.utils.conversions import parallel_to_aec

    from trainer.envs.pettingzoo_env import NetworkParallelEnv

    env = parallel_to_aec(NetworkParallelEnv(plan))

    def episode() -> None:
        env.reset()
        for agent in env.agent_iter():
            seen, _, terminated, truncated, _ = env.last()
            over = terminated or truncated
            space = env.action_space(agent)
            env.step(None if over else int(space.sample(seen["action_mask"])))

    return 1, _seconds(episode)


def _vector(plan: Plan, copies: int, sync: bool) -> tuple[int, float]:
    """Play one episode in each of ``copies``, all nodes together as one agent."""
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    kind: Any = SyncVectorEnv if sync else AsyncVectorEnv
    envs = kind([partial(joint, plan)] * copies)
    try:

        def episode() -> None:
            envs.reset(seed=0)
            for _ in range(plan.workload.slots):
                envs.step(envs.action_space.sample())

        return copies, _seconds(episode)
    finally:
        envs.close()


def joint(plan: Plan) -> Any:
    """Return our environment as a Gymnasium one: one agent that decides for all nodes."""
    import gymnasium as gym
    import numpy as np

    from trainer.envs.episode import EpisodeGame

    # One thread in each process of AsyncVectorEnv.
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    game = EpisodeGame(plan)

    class Joint(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (game.size, game.features), np.float32)
        action_space = gym.spaces.MultiDiscrete([game.size + 1] * game.size)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
            game.begin(seed)
            return game.observation[0].copy(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            turn = game.play(dict(zip(game.agents, map(int, action), strict=True)))
            return game.observation[0].copy(), turn.reward, False, turn.over, {}

    return Joint()


def _seconds(run: Callable[[], None], times: int = 3) -> float:
    """Return the shortest time of a few, after one that compiles and imports."""
    run()
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return best
