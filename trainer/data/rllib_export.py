"""A data set as recorded episodes of RLlib's offline API, one single-agent episode per sequence.

Read them with ``config.offline_data(input_=FOLDER, input_read_method="read_parquet",
input_read_episodes=True)``: Parquet with one column ``item``, a ``SingleAgentEpisode`` as msgpack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgpack
import msgpack_numpy
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from testbed.storage.dataset.exports import EXPORT_KIND
from testbed.storage.dataset.loading import DataSet, load
from testbed.storage.export import ProgressCallback, no_progress
from testbed.storage.folders import describe_files, new_folder, write_metadata
from testbed.storage.tasklog.base import utc_now

EPISODES: Final = "episodes.parquet"
_CHUNK: Final = 200


def export_rllib(
    folder: Path,
    target: Path,
    *,
    overwrite: bool = False,
    progress: ProgressCallback = no_progress,
) -> Path:
    """Write the data set in ``folder`` as RLlib episodes into ``target``; returns the file.

    An observation is the D numbers followed by the N + 1 bits of the mask, float32, as the modules
    of ``trainer.learning`` take it. ``action_logp`` is NaN where unknown. ``custom_data`` of an
    episode names run, episode, node, first slot and policies.

    Raises:
        UsageError: the data set is not usable, or ``target`` is taken.
        PermanentError: ``target`` cannot be written.
    """
    data = load(folder)
    schema = pa.schema([pa.field("item", pa.binary(), nullable=False)])
    with new_folder(target, EXPORT_KIND, overwrite=overwrite) as partial:
        with pa.parquet.ParquetWriter(partial / EPISODES, schema, compression="zstd") as writer:
            for begin in range(0, data.sequences, _CHUNK):
                progress("rllib", begin, data.sequences)
                numbers = range(begin, min(begin + _CHUNK, data.sequences))
                packed = [
                    msgpack.packb(
                        episode_of(data, number).get_state(), default=msgpack_numpy.encode
                    )
                    for number in numbers
                ]
                writer.write_table(pa.table({"item": pa.array(packed, pa.binary())}, schema))
        progress("rllib", data.sequences, data.sequences)
        write_metadata(
            partial,
            {
                **data.metadata,
                "kind": EXPORT_KIND,
                "exported": utc_now(),
                "files": describe_files(partial),
            },
        )
    return target / EPISODES


def episode_of(data: DataSet, number: int) -> SingleAgentEpisode:
    """Sequence ``number`` as an episode of RLlib, with the state after its last step."""
    begin, end = int(data.offsets[number]), int(data.offsets[number + 1])
    rows, last = slice(begin, end), end - 1
    observations = np.concatenate(
        [
            np.concatenate([data.obs[rows], data.next_obs[last:end]]),
            np.concatenate([data.mask[rows], data.next_mask[last:end]]).astype(np.float32),
        ],
        axis=1,
    )
    episode = SingleAgentEpisode(
        id_=f"{data.run[number]}/{data.episode[number]}/{data.node[number]}",
        observations=list(observations),
        actions=list(data.action[rows]),
        rewards=data.reward[rows].tolist(),
        terminated=bool(data.terminated[last]),
        truncated=bool(data.truncated[last]),
        extra_model_outputs={Columns.ACTION_LOGP: list(data.log_prob[rows])},
        t_started=0,
        len_lookback_buffer=0,
    )
    about: dict[str, Any] = {
        "run": data.run[number],
        "episode": int(data.episode[number]),
        "node": int(data.node[number]),
        "first_slot": int(data.slot[begin]),
        "policies": sorted({data.policy[index] for index in data.policy_index[rows]}),
    }
    episode.custom_data.update(about)
    return episode
