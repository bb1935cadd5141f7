"""Both environments: the libraries' own checks, and equality with the vectorised environment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test
from ray.rllib.utils.pre_checks.env import check_multiagent_environments

from testbed.errors import UsageError
from testbed.scenario.plan import Plan
from testbed.sim.engine.episodes import record
from testbed.sim.engine.vector import UniformPolicy, VectorEnv
from tests.sim.networks import replaced
from tests.sim.plans import random_plan
from trainer.envs.pettingzoo_env import NetworkParallelEnv
from trainer.envs.rllib_env import NetworkMultiAgentEnv

PLAN = random_plan(5, size=4, slots=12)


def test_pettingzoo_accepts_the_parallel_environment() -> None:
    parallel_api_test(NetworkParallelEnv(PLAN), num_cycles=100)


def test_pettingzoo_finds_it_reproducible() -> None:
    parallel_seed_test(lambda: NetworkParallelEnv(PLAN), num_cycles=30)


def test_rllib_accepts_the_multi_agent_environment() -> None:
    check_multiagent_environments(NetworkMultiAgentEnv({"plan": PLAN}))


def test_rllib_environment_takes_a_plan_as_json() -> None:
    one, two = NetworkMultiAgentEnv({"plan": PLAN}), NetworkMultiAgentEnv({"plan": PLAN.to_json()})
    first, second = one.reset(seed=3)[0], two.reset(seed=3)[0]
    for agent in one.possible_agents:
        np.testing.assert_array_equal(first[agent], second[agent])
    with pytest.raises(UsageError, match=r"env_config\.plan"):
        NetworkMultiAgentEnv({})


def test_both_play_what_the_vectorised_environment_plays() -> None:
    played = record(VectorEnv([PLAN]), UniformPolicy(), [6])
    zoo, rllib = NetworkParallelEnv(PLAN), NetworkMultiAgentEnv({"plan": PLAN})
    seen, _ = zoo.reset(seed=6)
    flat, _ = rllib.reset(seed=6)
    for slot in range(PLAN.workload.slots):
        for i, agent in enumerate(zoo.possible_agents):
            features, mask = played.features[0, i, slot], played.mask[0, i, slot]
            np.testing.assert_array_equal(seen[agent]["observation"], features)
            np.testing.assert_array_equal(seen[agent]["action_mask"], mask)
            np.testing.assert_array_equal(flat[agent], np.concatenate([features, mask]))
        actions = {
            agent: int(played.actions[0, i, slot]) for i, agent in enumerate(zoo.possible_agents)
        }
        seen, rewards, ended, truncated, infos = zoo.step(actions)
        flat, same, finished, cut, told = rllib.step(actions)
        assert set(rewards.values()) == set(same.values()) == {float(played.rewards[0, slot])}
        last = slot == PLAN.workload.slots - 1
        assert not any([*ended.values(), *finished.values()])
        assert set(truncated.values()) == {last}
        assert cut["__all__"] is last
        assert not any(info["corrected"] for info in [*infos.values(), *told.values()])
    assert {info["success_rate"] for info in infos.values()} == {played.success_rates[0]}
    assert {info["success_rate"] for info in told.values()} == {played.success_rates[0]}
    assert zoo.agents == rllib.agents == []


def test_a_forbidden_action_becomes_local_execution_or_nothing() -> None:
    env = NetworkParallelEnv(PLAN)
    seen, _ = env.reset(seed=1)
    corrected, executed = NetworkParallelEnv(PLAN), []
    corrected.reset(seed=1)
    nothing = len(env.possible_agents)
    for _ in range(PLAN.workload.slots):
        arrived = {agent: not seen[agent]["action_mask"][nothing] for agent in seen}
        wrong = {agent: nothing if has else 0 for agent, has in arrived.items()}
        right = {
            agent: i if arrived[agent] else nothing for i, agent in enumerate(env.possible_agents)
        }
        seen, rewards, _, _, infos = env.step(wrong)
        _, expected, _, _, _ = corrected.step(right)
        assert rewards == expected
        assert all(info["corrected"] for info in infos.values())
        executed.append(sum(arrived.values()))
    assert sum(executed) > 0


def test_episodes_follow_one_another() -> None:
    env = NetworkParallelEnv(PLAN)
    env.reset(seed=8)
    following, _ = env.reset()
    again, _ = env.reset(seed=9)
    for agent in env.possible_agents:
        np.testing.assert_array_equal(following[agent]["observation"], again[agent]["observation"])


def test_a_plan_whose_answers_come_after_the_next_slot_began_is_refused() -> None:
    rules = type(PLAN.rules)(PLAN.rules.overload, control_delay=PLAN.workload.slot // 2 - 1)
    rules = replace(rules, probe_timeout=PLAN.workload.slot)
    delayed: Plan = replaced(PLAN, rules=rules)
    NetworkParallelEnv(delayed).reset(seed=1)
    late = replace(rules, control_delay=PLAN.workload.slot // 2)
    with pytest.raises(UsageError, match="control_delay"):
        NetworkParallelEnv(replaced(PLAN, rules=late))
