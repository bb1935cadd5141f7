"""Data sets read back by Minari and by RLlib, value by value."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import minari
import msgpack
import msgpack_numpy
import numpy as np
import pyarrow.parquet
import pytest
from gymnasium.utils.env_checker import check_env
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from testbed.errors import UsageError
from testbed.scenario.load import load as load_scenario
from testbed.scenario.resolve import plan
from testbed.sim.record import record_run
from testbed.storage.dataset import DataSet, build, load
from testbed.storage.tasklog import open_task_log
from tests.storage.logs import full_episode, log_run
from trainer.data import export_minari, export_rllib
from trainer.envs.gymnasium_env import ID


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with open_task_log(tmp_path / "tasks.db") as log:
        for id in ("one", "two"):
            first, second = full_episode(), full_episode(episode=1)
            log_run(log, [*first[0], *second[0]], [*first[1], *second[1]], id=id)
        build(log, ["one", "two"], "extended-v1", tmp_path / "my set")
    return tmp_path / "my set"


def after(data: DataSet, number: int) -> tuple[slice, int]:
    """The rows of a sequence, and its last row."""
    return slice(data.offsets[number], data.offsets[number + 1]), data.offsets[number + 1] - 1


def test_minari_reads_back_every_value(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    dataset_id = export_minari(
        folder,
        tmp_path / "out",
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    assert dataset_id == "edge-testbed/my-set-v0"
    assert told[-1] == ("minari", 8, 8)
    data = load(folder)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))
    assert list(minari.list_local_datasets()) == [dataset_id]
    read = minari.load_dataset(dataset_id)
    assert read.total_episodes == data.sequences == 8
    assert read.total_steps == len(data)
    assert read.action_space.n == 3
    about = list(read.storage.get_episode_metadata(range(8)))
    for number, episode in enumerate(read.iterate_episodes()):
        rows, last = after(data, number)
        seen: Any = episode.observations
        assert seen["observation"].dtype == np.float32
        np.testing.assert_array_equal(seen["observation"][:-1], data.obs[rows])
        np.testing.assert_array_equal(seen["observation"][-1], data.next_obs[last])
        np.testing.assert_array_equal(seen["action_mask"][:-1], data.mask[rows])
        np.testing.assert_array_equal(seen["action_mask"][-1], data.next_mask[last])
        np.testing.assert_array_equal(episode.actions, data.action[rows])
        np.testing.assert_array_equal(episode.rewards, data.reward[rows])
        np.testing.assert_array_equal(episode.terminations, data.terminated[rows])
        np.testing.assert_array_equal(episode.truncations, data.truncated[rows])
        np.testing.assert_array_equal(episode.infos["log_prob"][:-1], data.log_prob[rows])
        assert read.observation_space.contains({name: seen[name][0] for name in seen})
        assert about[number]["run"] == data.run[number]
        assert about[number]["episode"] == data.episode[number]
        assert about[number]["node"] == data.node[number]
        assert about[number]["policies"] == ["random"]


def test_rllib_reads_back_every_value(folder: Path, tmp_path: Path) -> None:
    path = export_rllib(folder, tmp_path / "out")
    data = load(folder)
    items = pyarrow.parquet.read_table(path)["item"].to_pylist()
    assert len(items) == data.sequences == 8
    for number, item in enumerate(items):
        check_episode(data, number, decoded(item))


def decoded(item: bytes) -> SingleAgentEpisode:
    """An episode the way RLlib's offline reader decodes it."""
    return SingleAgentEpisode.from_state(msgpack.unpackb(item, object_hook=msgpack_numpy.decode))


def check_episode(data: DataSet, number: int, episode: SingleAgentEpisode) -> None:
    episode.validate()
    episode.to_numpy()
    rows, last = after(data, number)
    seen = episode.get_observations()
    features = data.obs.shape[1]
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen[:-1, :features], data.obs[rows])
    np.testing.assert_array_equal(seen[-1, :features], data.next_obs[last])
    np.testing.assert_array_equal(seen[:-1, features:], data.mask[rows])
    np.testing.assert_array_equal(seen[-1, features:], data.next_mask[last])
    np.testing.assert_array_equal(episode.get_actions(), data.action[rows])
    np.testing.assert_array_equal(episode.get_rewards(), data.reward[rows])
    np.testing.assert_array_equal(
        episode.get_extra_model_outputs(Columns.ACTION_LOGP), data.log_prob[rows]
    )
    assert (episode.is_terminated, episode.is_truncated) == (False, True)
    assert episode.agent_id is None
    assert episode.custom_data == {
        "run": data.run[number],
        "episode": data.episode[number],
        "node": data.node[number],
        "first_slot": 0,
        "policies": ["random"],
    }


@pytest.mark.long
# Ray Data sets options of its own that it calls deprecated, and closes files late.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_rllib_takes_the_episodes_through_its_own_reader(folder: Path, tmp_path: Path) -> None:
    import ray

    path = export_rllib(folder, tmp_path / "out")
    data = load(folder)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        items = [row["item"] for row in ray.data.read_parquet(str(path.parent)).take_all()]
    finally:
        ray.shutdown()
    episodes = {episode.id_: episode for episode in map(decoded, items)}
    for number in range(data.sequences):
        name = f"{data.run[number]}/{data.episode[number]}/{data.node[number]}"
        check_episode(data, number, episodes[name])


@pytest.mark.parametrize("export", [export_minari, export_rllib])
def test_nothing_is_overwritten_or_left_half_made(
    export: Any, folder: Path, tmp_path: Path
) -> None:
    export(folder, tmp_path / "out")
    with pytest.raises(UsageError, match="--force"):
        export(folder, tmp_path / "out")
    export(folder, tmp_path / "out", overwrite=True)
    (folder / "transitions.parquet").unlink()
    with pytest.raises(UsageError, match="is missing"):
        export(folder, tmp_path / "more")
    assert sorted(os.listdir(tmp_path)) == ["my set", "out", "tasks.db"]


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of a simulated run, and its flat export for Minari."""
    place = tmp_path_factory.mktemp("flat")
    with open_task_log(place / "tasks.db") as log:
        drawn = plan(load_scenario("quickstart", ["slots.count=20"]))
        build(
            log, [record_run(drawn, log, scheduler="random", episodes=2)], "paper-v1", place / "set"
        )
    export_minari(place / "set", place / "out", flat=True)
    return place / "set", place / "out"


def test_a_flat_data_set_has_its_environment(
    flat: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(flat[0])
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(flat[1]))
    read = minari.load_dataset("edge-testbed/set-flat-v0")
    env = read.recover_environment()

    assert env.spec.id == ID
    assert env.observation_space == read.observation_space
    assert env.action_space == read.action_space
    for number, episode in enumerate(read.iterate_episodes()):
        rows, _ = after(data, number)
        np.testing.assert_array_equal(episode.observations[:-1], data.obs[rows])
    seen, infos = env.reset(seed=0)
    assert read.observation_space.contains(seen)
    over = False
    while not over:
        seen, _, _, over, infos = env.step(int(np.argmax(infos["action_mask"])))
        assert not infos["corrected"]
    assert 0 <= infos["success_rate"] <= 1


def test_d3rlpy_learns_from_it(flat: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(flat[1]))
    with warnings.catch_warnings():
        # Of old dependencies of d3rlpy.
        warnings.simplefilter("ignore")
        import d3rlpy

        d3rlpy.seed(1)
        recorded, env = d3rlpy.datasets.get_minari("edge-testbed/set-flat-v0")
        cql = d3rlpy.algos.DiscreteCQLConfig(batch_size=32).create(device="cpu:0")
        losses = cql.fit(
            recorded,
            n_steps=128,
            n_steps_per_epoch=64,
            logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
            show_progress=False,
        )

    assert len(recorded.episodes) == load(flat[0]).sequences
    assert [epoch for epoch, _ in losses] == [1, 2]
    assert losses[-1][1]["loss"] < losses[0][1]["loss"]
    action = cql.predict(env.reset(seed=0)[0][None])[0]
    assert env.action_space.contains(action)


def test_the_environment_keeps_the_rules_of_gymnasium() -> None:
    text = plan(load_scenario("quickstart", ["slots.count=5"])).to_json()
    for shape in (True, False):
        env = gymnasium.make(ID, plan=text, node=2, flat=shape)
        with warnings.catch_warnings():
            # Observations of the encoders have no bounds.
            warnings.filterwarnings("ignore", message=".*infinity.*")
            check_env(env.unwrapped, skip_render_check=True)
