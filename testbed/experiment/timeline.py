"""Time lines of one episode for pages: what each node did when, task by task.

They are drawn as SVG, which shows without scripts; a script of a few lines adds zooming. ``testbed
export --format trace`` gives the same for a whole run, for Perfetto's viewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from testbed.experiment.history import ms
from testbed.experiment.measured import names_of
from testbed.experiment.page import heading, note
from testbed.experiment.task_summary import RunSummary
from testbed.model.spans import EXECUTING, RECEIVING, SENDING, WAITING, Course, Span, courses
from testbed.model.units import SECOND, Micros
from testbed.storage.tasklog import TaskLog

MOST_RUNS: Final = 4
"""Runs whose time lines are on the page."""
MOST_TASKS: Final = 400
"""Tasks of an episode that are drawn, the first ones."""

_DRAWN: Final = {EXECUTING: 9, WAITING: 4, SENDING: 4, RECEIVING: 4}
"""Stages in order from above, with the height of a lane."""
_LANES: Final = 8
"""Lanes of a stage at a node; what would need more shares the last."""
_GAP: Final = 5
_TICKS: Final = 5


def parts(log: TaskLog, runs: Sequence[RunSummary]) -> list[str]:
    """Return the parts of a report's page with the time lines of ``runs``, as HTML.

    All are of the same episode: the one in which their success rates differ most; of one run, the
    one in which it was worst. Empty if they share no episode.
    """
    shown = runs[:MOST_RUNS]
    shared = set.intersection(*(set(run.by_episode) for run in shown))
    if not shared:
        return []
    episode = max(sorted(shared), key=lambda each: _telling(shown, each))
    drawn = [(run, first_courses(log, run.run.id, episode)) for run in shown]
    length = max((course.end for _, found in drawn for course in found), default=0)
    if not length:
        return []
    why = "in which the success rates of these runs differ most" if len(shown) > 1 else "the worst"
    found_parts = [
        f'<p class="note">Episode {episode}, {why}. Zoom with the buttons, + and -, or Ctrl and '
        "the wheel; move with the arrow keys or by dragging. Point at a bar to see its task. "
        f"{legend()}</p>",
    ]
    for name, (run, found) in zip(names_of(shown), drawn, strict=True):
        told = f"{name} (the first {MOST_TASKS} tasks)" if len(found) == MOST_TASKS else name
        found_parts += [heading(told), drawing(found, run.run.plan.topology.size, length)]
    if len(shown) < len(runs):
        found_parts.append(note(f"The first {MOST_RUNS} of {len(runs)} runs."))
    trace = "`testbed export --format trace` writes all episodes of a run for Perfetto's viewer."
    return [*found_parts, note(trace), f"<script>{SCRIPT}</script>"]


def _telling(runs: Sequence[RunSummary], episode: int) -> float:
    rates = [run.by_episode[episode] for run in runs]
    return max(rates) - min(rates) if len(rates) > 1 else -rates[0]


def first_courses(log: TaskLog, run_id: str, episode: int) -> list[Course]:
    """Return the courses of the first ``MOST_TASKS`` tasks of an episode."""
    return list(islice(courses(log.records(run_id, episode=episode)), MOST_TASKS))


def legend() -> str:
    """Return what the colours mean, as HTML."""
    keys = [f'<span class="key {_class(stage)}"></span> {stage}' for stage in _DRAWN]
    return ", ".join([*keys, '<span class="key failed"></span> end of a task that did not succeed'])


def _class(stage: str) -> str:
    return stage.split()[0]


def drawing(found: Sequence[Course], size: int, length: Micros) -> str:
    """Return the time line of the tasks ``found`` at ``size`` nodes, as HTML.

    It begins with the episode and is ``length`` microseconds long; it needs ``STYLE`` and, to be
    zoomed, ``SCRIPT``.
    """
    by_node: list[list[tuple[Span, Course]]] = [[] for _ in range(size)]
    for course in found:
        for span in course.spans:
            if span.stage in _DRAWN and span.end > span.begin:
                by_node[span.node].append((span, course))
    rects: list[str] = []
    labels: list[str] = []
    top = 0
    for node, spans in enumerate(by_node):
        bottom = _node(spans, top, rects)
        labels.append(f'<span style="top:{top}px">node {node}</span>')
        rects.append(f'<rect class="rule" x="0" y="{bottom + 2}" width="{length}" height="1"/>')
        top = bottom + _GAP
    ticks = "".join(
        f'<span style="left:{100 * tick / _TICKS:.0f}%">{_seconds(length * tick // _TICKS)}</span>'
        for tick in range(_TICKS + 1)
    )
    buttons = "".join(
        f'<button type="button" data-do="{do}" aria-label="{says}">{text}</button>'
        for do, says, text in (
            ("in", "zoom in", "+"),
            ("out", "zoom out", "−"),
            ("left", "earlier", "←"),
            ("right", "later", "→"),
            ("all", "show all", "all"),
        )
    )
    return (
        f'<div class="timeline" tabindex="0" data-length="{length}">'
        f'<div class="buttons">{buttons}</div><div class="labels">{"".join(labels)}</div>'
        f'<svg role="img" aria-label="what each node did over time" height="{top}" '
        f'viewBox="0 0 {length} {top}" preserveAspectRatio="none">{"".join(rects)}</svg>'
        f'<div class="ticks">{ticks}</div></div>'
    )


def _node(spans: Sequence[tuple[Span, Course]], top: int, rects: list[str]) -> int:
    """Draw the spans of one node from ``top`` on; return where they end below."""
    for stage, height in _DRAWN.items():
        ends: list[Micros] = []
        told = sorted((each for each in spans if each[0].stage == stage), key=lambda it: it[0])
        for span, course in told:
            lane = next((i for i, end in enumerate(ends) if end <= span.begin), len(ends))
            lane = min(lane, _LANES - 1)
            ends[lane : lane + 1] = [max(span.end, ends[lane] if lane < len(ends) else 0)]
            y = top + lane * height
            rects.append(_rect(span, course, y, height - 1))
        # A node that executes nothing keeps its line.
        top += height * max(len(ends), int(stage == EXECUTING))
    return top + 2


def _rect(span: Span, course: Course, y: int, height: int) -> str:
    task = course.task
    where = f"node {span.node}"
    if span.peer is not None:
        to = "to" if span.stage == SENDING else "from"
        where += f" {to} node {span.peer}"
    outcome = course.outcome.value.replace("_", " ")
    says = (
        f"task {task.id}, {outcome}: {span.stage} at {where}, {ms(span.end - span.begin)} from "
        f"{ms(span.begin)} on"
    )
    drawn = (
        f'<rect class="{_class(span.stage)}" x="{span.begin}" y="{y}" '
        f'width="{span.end - span.begin}" height="{height}"><title>{says}</title></rect>'
    )
    if outcome != "succeeded" and span is course.spans[-1]:
        drawn += (
            f'<path class="failed" vector-effect="non-scaling-stroke" d="M{span.end} {y}v{height}">'
            f"<title>task {task.id} {outcome}</title></path>"
        )
    return drawn


def _seconds(at: Micros) -> str:
    return f"{at / SECOND:.2f} s"


STYLE: Final = """
.timeline { position: relative; padding: 2.2rem 0 1.4rem 4.2rem; margin: 0.5rem 0; }
.timeline svg { width: 100%; display: block; cursor: grab; touch-action: pan-y; }
.timeline .buttons { position: absolute; top: 0; right: 0; }
.timeline .labels span { position: absolute; left: 0; font-size: 0.75rem; margin-top: 2rem; }
.timeline .ticks { position: relative; height: 1.2rem; font-size: 0.75rem; }
.timeline .ticks span { position: absolute; white-space: nowrap; transform: translateX(-50%); }
.timeline .ticks span:last-child { transform: translateX(-100%); }
.timeline .executing, .key.executing { fill: #0072b2; background: #0072b2; }
.timeline .waiting, .key.waiting { fill: #e69f00; background: #e69f00; }
.timeline .sending, .key.sending { fill: #009e73; background: #009e73; }
.timeline .receiving, .key.receiving { fill: #56b4e9; background: #56b4e9; }
.timeline .rule { fill: var(--rule, #ccc); }
.timeline .failed { stroke: #d6006c; stroke-width: 3px; }
.key { display: inline-block; width: 0.8rem; height: 0.6rem; }
.key.failed { width: 3px; background: #d6006c; }
.timeline button { min-width: 2rem; min-height: 1.8rem; }
"""

SCRIPT: Final = """
for (const line of document.querySelectorAll(".timeline:not([data-ready])")) {
  line.dataset.ready = "";
  const length = +line.dataset.length, svg = line.querySelector("svg");
  const height = svg.viewBox.baseVal.height, ticks = line.querySelectorAll(".ticks span");
  let begin = 0, width = length, grabbed = null;
  const show = () => {
    width = Math.min(length, Math.max(1000, width));
    begin = Math.min(length - width, Math.max(0, begin));
    svg.setAttribute("viewBox", `${begin} 0 ${width} ${height}`);
    const digits = width < 2e5 ? 4 : width < 2e6 ? 3 : 2;
    ticks.forEach((tick, i) => {
      tick.textContent = ((begin + width * i / (ticks.length - 1)) / 1e6).toFixed(digits) + " s";
    });
  };
  const zoom = (factor, at = 0.5) => {
    const held = begin + width * at;
    width *= factor; begin = held - width * at; show();
  };
  const todo = {
    in: () => zoom(0.5), out: () => zoom(2), all: () => { width = length; show(); },
    left: () => { begin -= width / 4; show(); }, right: () => { begin += width / 4; show(); },
  };
  const keys = { "+": "in", "=": "in", "-": "out", "0": "all", ArrowLeft: "left",
                 ArrowRight: "right" };
  line.querySelectorAll("button").forEach((button) => {
    button.addEventListener("click", () => todo[button.dataset.do]());
  });
  line.addEventListener("keydown", (event) => {
    if (keys[event.key]) { event.preventDefault(); todo[keys[event.key]](); }
  });
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 0.8 : 1.25, event.offsetX / svg.clientWidth);
  }, { passive: false });
  svg.addEventListener("pointerdown", (event) => {
    grabbed = [event.clientX, begin]; svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!grabbed) return;
    begin = grabbed[1] - (event.clientX - grabbed[0]) / svg.clientWidth * width; show();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    svg.addEventListener(end, () => { grabbed = null; });
  }
}
"""
