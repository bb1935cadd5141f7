"""Checks of traces that hold for runs of every family."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import jsonschema

_TIMED = {"ts": {"type": "integer", "minimum": 0}, "name": {"type": "string"}}
_PLACE = {"pid": {"type": "integer"}, "tid": {"type": "integer"}}


def phase(name: str, *needed: str, **more: object) -> dict[str, Any]:
    """The schema of the events of a phase."""
    properties = {"ph": {"const": name}, **_TIMED, **_PLACE, **more}
    return {"type": "object", "properties": properties, "required": ["ph", "pid", *needed]}


TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "required": ["traceEvents"],
    "properties": {
        "displayTimeUnit": {"enum": ["ms", "ns"]},
        "otherData": {"type": "object"},
        "traceEvents": {
            "type": "array",
            "items": {
                "oneOf": [
                    phase("M", "name", "args", args={"type": "object", "minProperties": 1}),
                    phase("X", "name", "ts", "dur", "tid", dur={"type": "integer", "minimum": 0}),
                    phase("b", "name", "cat", "ts", "id2", "tid", cat=TEXT),
                    phase("e", "name", "cat", "ts", "id2", "tid", cat=TEXT),
                    phase("s", "name", "cat", "ts", "id", "tid", cat=TEXT),
                    phase("f", "name", "cat", "ts", "id", "tid", "bp", bp={"const": "e"}),
                    phase("i", "name", "ts", "s", s={"enum": ["g", "p", "t"]}),
                    phase("C", "name", "ts", "args", args={"minProperties": 1}),
                ]
            },
        },
    },
}
"""Of the Trace Event Format, the phases that traces have."""


def check_format(trace: dict[str, Any]) -> None:
    """Every event is one of the format."""
    jsonschema.validate(trace, SCHEMA)


def check_tracks(trace: dict[str, Any]) -> None:
    """On a track one slice ends before the next begins; asynchronous events have their ends."""
    tracks = defaultdict(list)
    began: Counter[tuple[object, ...]] = Counter()
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] in "be":
            key = (event["pid"], event["cat"], event["id2"]["local"])
            began[key] += 1 if event["ph"] == "b" else -1
            # Never twice at once, and none without its end.
            assert began[key] in (0, 1)
    assert not any(began.values())
    for spans in tracks.values():
        assert all(first[1] <= second[0] for first, second in pairwise(sorted(spans)))


def check_arrows(trace: dict[str, Any]) -> int:
    """Each arrow leads from a slice to a later one of another process; return their number."""
    slices = {(e["pid"], e["tid"], e["ts"]) for e in trace["traceEvents"] if e["ph"] == "X"}
    arrows = [e for e in trace["traceEvents"] if e["ph"] in "sf"]
    assert all((e["pid"], e["tid"], e["ts"]) in slices for e in arrows)
    for start, finish in zip(arrows[::2], arrows[1::2], strict=True):
        assert (start["ph"], finish["ph"], start["id"]) == ("s", "f", finish["id"])
        assert start["pid"] != finish["pid"]
        assert start["ts"] <= finish["ts"]
    assert len({e["id"] for e in arrows}) == len(arrows) // 2
    return len(arrows) // 2
