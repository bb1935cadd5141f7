"""RLlib's EnvRunner on our environment: what training through RLlib would sample with."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from typing import Any

from benchmarks.peers import Row, absent, row
from benchmarks.peers.wrappers import SCENARIO, own_rate
from testbed.scenario.load import load
from testbed.scenario.resolve import plan as resolve


def lacks() -> list[str]:
    """Return the packages that are missing."""
    return absent("ray", "torch")


def rows(quick: bool = False) -> list[Row]:
    """Measure slots per second with random actions, and with RLlib's default network."""
    plan = resolve(load(SCENARIO))
    ours = own_rate(plan, 8 if quick else 128)
    found = []
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("ray").setLevel(logging.ERROR)
        runner = _runner(plan)
        try:
            for title, at_random in (("random actions", True), ("its default network", False)):
                runner.sample(num_episodes=1, random_actions=at_random)
                episodes = 1 if quick else 3
                began = time.perf_counter()
                runner.sample(num_episodes=episodes, random_actions=at_random)
                rate = episodes * plan.workload.slots / (time.perf_counter() - began)
                name = f"RLlib's EnvRunner, {title}"
                found.append(row(name, rate, "slots/s"))
                found.append(row(f"{name}: ours is faster", ours / rate, "x"))
        finally:
            runner.stop()
    return found


def _runner(plan: Any) -> Any:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

    from trainer.envs.rllib_env import NetworkMultiAgentEnv

    config = (
        PPOConfig()
        .environment(NetworkMultiAgentEnv, env_config={"plan": plan})
        .multi_agent(policies={"one"}, policy_mapping_fn=lambda *_, **__: "one")
        .env_runners(num_env_runners=0)
    )
    return MultiAgentEnvRunner(config=config)
