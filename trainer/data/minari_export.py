"""A data set as a Minari data set, one Minari episode per sequence.

The folder may be read where it is (``minari.MinariDataset(FOLDER / ID / "data")``), or serve as
Minari's root: ``MINARI_DATASETS_PATH=FOLDER`` and ``minari.load_dataset(ID)``.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Final

import gymnasium
import minari
import numpy as np
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from testbed.storage.dataset.exports import EXPORT_KIND
from testbed.storage.dataset.format import BoolArray
from testbed.storage.dataset.loading import DataSet, load
from testbed.storage.export import ProgressCallback, no_progress
from testbed.storage.folders import describe_files, new_folder, write_metadata
from testbed.storage.tasklog.base import utc_now
from trainer.envs.gymnasium_env import spec_of

NAMESPACE: Final = "edge-testbed"
_CHUNK: Final = 100
"""Episodes per call: Minari measures the whole folder after each of them."""


def export_minari(
    folder: Path,
    target: Path,
    *,
    overwrite: bool = False,
    flat: bool = False,
    progress: ProgressCallback = no_progress,
) -> str:
    """Write the data set in ``folder`` for Minari into ``target``; returns its id there.

    Observations are a dictionary of ``observation`` (Box [D]) and ``action_mask`` (MultiBinary
    [N + 1]), or, ``flat``, the first alone, as ``d3rlpy.datasets.get_minari`` wants it; actions
    Discrete(N + 1); the state after the last step is included. ``infos`` hold
    ``log_prob`` of the action at its step, NaN where unknown and after the last step. Metadata of
    an episode names run, episode, node, first slot and policies.

    Raises:
        UsageError: the data set is not usable, or ``target`` is taken.
        PermanentError: ``target`` cannot be written.
    """
    data = load(folder)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", str(data.metadata.get("name") or folder.name))
    dataset_id = f"{NAMESPACE}/{name}{'-flat' if flat else ''}-v0"
    box = gymnasium.spaces.Box(-np.inf, np.inf, (data.obs.shape[1],), np.float32)
    mask = gymnasium.spaces.MultiBinary(data.mask.shape[1])
    space = box if flat else gymnasium.spaces.Dict({"observation": box, "action_mask": mask})
    plan = json.dumps(data.metadata["network"])
    with new_folder(target, EXPORT_KIND, overwrite=overwrite) as partial:
        path = partial / dataset_id / "data"
        path.mkdir(parents=True)
        # The namespace's own metadata, without which Minari does not list what is in it.
        (partial / NAMESPACE / "namespace_metadata.json").write_text("{}")
        storage = MinariStorage.new(
            path,
            observation_space=space,
            action_space=gymnasium.spaces.Discrete(data.mask.shape[1]),
            env_spec=spec_of(plan, data.encoder, flat=flat),
            data_format="parquet",
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": minari.__version__,
                "algorithm_name": ", ".join(data.policy),
                "description": f"Edge offloading decisions, scenario {data.metadata['scenario']}, "
                f"encoder {data.encoder}, {data.nodes} nodes",
            }
        )
        for begin in range(0, data.sequences, _CHUNK):
            progress("minari", begin, data.sequences)
            numbers = range(begin, min(begin + _CHUNK, data.sequences))
            storage.update_episodes(_episode(data, number, flat) for number in numbers)
        storage.update_episode_metadata(
            [_about(data, number) for number in range(data.sequences)], range(data.sequences)
        )
        progress("minari", data.sequences, data.sequences)
        write_metadata(
            partial,
            {
                **data.metadata,
                "kind": EXPORT_KIND,
                "exported": utc_now(),
                "minari_id": dataset_id,
                "files": describe_files(partial),
            },
        )
    return dataset_id


def _episode(data: DataSet, number: int, flat: bool) -> EpisodeBuffer:
    rows = slice(data.offsets[number], data.offsets[number + 1])
    last = data.offsets[number + 1] - 1

    def bits(mask: BoolArray) -> Any:
        return mask.astype(np.int8)

    seen = np.concatenate([data.obs[rows], data.next_obs[last : last + 1]])
    mask = bits(np.concatenate([data.mask[rows], data.next_mask[last : last + 1]]))
    return EpisodeBuffer(
        id=number,
        observations=seen if flat else {"observation": seen, "action_mask": mask},
        actions=data.action[rows],
        rewards=data.reward[rows],
        terminations=data.terminated[rows],
        truncations=data.truncated[rows],
        # A list: what Minari writes of an array without further dimensions, it cannot read.
        infos={"log_prob": [*data.log_prob[rows].tolist(), math.nan]},
    )


def _about(data: DataSet, number: int) -> dict[str, Any]:
    begin, end = data.offsets[number], data.offsets[number + 1]
    return {
        "run": data.run[number],
        "episode": int(data.episode[number]),
        "node": int(data.node[number]),
        "first_slot": int(data.slot[begin]),
        "policies": sorted({data.policy[index] for index in data.policy_index[begin:end]}),
    }
