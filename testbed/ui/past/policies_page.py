"""The pages of policies and of the experiments that learn them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from nicegui import ui

from testbed.api import home
from testbed.api.policies import listed, resolved
from testbed.experiment import learning as experiments
from testbed.experiment.facts import Fact
from testbed.experiment.learning import Experiment
from testbed.policies import PolicyCard
from testbed.ui.context import Context
from testbed.ui.elements import card, heading, text
from testbed.ui.options import Options
from testbed.ui.palette import Palette
from testbed.ui.past import commands, family, learning, parts
from testbed.ui.past.family import Member

FOLLOW_S: Final = 2.0
"""Seconds between two looks at an experiment that learns."""


def root() -> Path:
    """Return the folder of the home's learning experiments."""
    return home.home() / home.EXPERIMENTS


async def policies(context: Context) -> None:
    """Show all policies as families, and the experiments that learned them."""
    parts.styled()
    heading("Policies")
    found, damaged = await context.work(listed, context.settings.artifacts)
    learned = await context.work(experiments.experiments, root())
    members = family.members(policy.card for policy in found)
    with ui.element("div").classes("stack"):
        if len(members) > 1:
            drawn = parts.chart(
                context,
                "Family tree",
                lambda palette: family.tree(members, palette),
                says="; ".join(_descent(each) for each in members),
                height=family.height_of(members),
            )
            known = {each.id for each in members if each.card is not None}
            drawn.on_point_click(
                lambda event: (
                    ui.navigate.to(f"/policies/{event.name}") if event.name in known else None
                )
            )
        with ui.element("section").classes("card stack"):
            _draw_members(members)
            for reference, error in damaged:
                ui.label(f"{reference}: {error}").classes("warning")
            parts.command(commands.on_store(context.settings, "policy", "list"))
        _draw_experiments(context, learned)


def _descent(member: Member) -> str:
    parents = () if member.card is None else member.card.parents
    return f"{member.id} from {', '.join(parents)}" if parents else member.id


def _draw_members(members: Sequence[Member]) -> None:
    with ui.element("div").classes("scroll"), ui.element("table").classes("plain"):
        parts.head(
            (
                *(("Policy", ""), ("Kind", "wide"), ("Nodes", "number wide")),
                *(("Trained on", "wide"), ("Success", "number"), ("Made, UTC", "wide")),
            )
        )
        with ui.element("tbody"):
            for each in members:
                with ui.element("tr"):
                    with ui.element("td").style(f"padding-left: {1.4 * each.depth}em"):
                        _draw_name(each)
                    card = each.card
                    text("td", "-" if card is None else card.kind, "wide")
                    nodes = "-" if card is None else (card.nodes or "any")
                    text("td", nodes, "number wide")
                    text("td", (card and card.scenario) or "-", "wide")
                    rate = "-" if each.rate is None else f"{100 * each.rate:.1f} %"
                    text("td", rate, "number nowrap")
                    made = "-" if card is None else card.created[:16].replace("T", " ")
                    text("td", made, "wide nowrap")


def _draw_name(member: Member) -> None:
    if member.depth:
        text("span", "└ ", "muted").props('aria-hidden="true"')
    if member.card is None:
        text("span", f"{member.id} (not in the store)", "muted")
    else:
        ui.link(member.id, f"/policies/{member.id}")
    if member.others:
        ui.label(f"also from {', '.join(member.others)}").classes("muted")


def _draw_experiments(context: Context, learned: Sequence[Experiment]) -> None:
    with card("Learning experiments"):
        if not learned:
            ui.label("None is in the home. This command makes one:")
            parts.command(commands.plain(context.settings, "o2o", "quickstart", "--simulate"))
            return
        with ui.element("div").classes("scroll"), ui.element("table").classes("plain"):
            parts.head((title, "") for title in ("Experiment", "State", "Success at the end"))
            with ui.element("tbody"):
                for each in reversed(learned):
                    with ui.element("tr"):
                        with ui.element("td"):
                            ui.link(each.name, f"/learning/{each.name}")
                        parts.state(each.state, "td")
                        text("td", _results(each))


def _results(experiment: Experiment) -> str:
    """Return the final success rates of what was learned."""
    rates: dict[str, Any] = experiment.result.get("success_rate", {})
    return ", ".join(
        f"{name} {100 * rates[name]['mean']:.1f} %"
        for name in experiments.PHASES
        if (rates.get(name) or {}).get("mean") is not None
    )


async def policy(context: Context) -> None:
    """Show the policy that the address names, with the experiment that learned it."""
    parts.styled()
    id = context.parameters["policy"]
    store = context.settings.artifacts
    found, _ = await context.work(listed, store)
    shown = next((each for each in found if each.card.id == id), None)
    if shown is None:
        # Says which there are.
        shown = await context.work(resolved, id, store)
    described = shown.card
    learned = [
        each
        for each in await context.work(experiments.experiments, root())
        if described.id in each.policies.values()
    ]
    children = [each.card.id for each in found if described.id in each.card.parents]
    heading(described.id)
    with ui.element("div").classes("stack"):
        parts.command(commands.on_store(context.settings, "policy", "show", described.id))
        with ui.element("div").classes("pair"):
            with card("Card"):
                parts.facts(facts_of(described))
            with card("Family"):
                _draw_kin("Made from", described.parents, {each.card.id for each in found})
                _draw_kin("From it were made", children, set(children))
            with card("Use it"):
                reference = shown.reference.removeprefix("policies/")
                parts.command(commands.plain(context.settings, "policy", "deploy", reference))
                line = commands.on_store(
                    context.settings,
                    "policy",
                    "evaluate",
                    reference,
                    described.scenario or "SCENARIO",
                )
                parts.command(line)
        for each in learned:
            with ui.element("div").classes("row"):
                ui.label("Learned by")
                ui.link(each.name, f"/learning/{each.name}")
                parts.state(each.state)
            _Curves(context, ui.element("div").classes("pair")).draw(each)


def _draw_kin(title: str, ids: Sequence[str], known: set[str]) -> None:
    with ui.element("div"):
        ui.label(f"{title}:" if ids else f"{title}: none")
        with ui.element("ul"):
            for id in ids:
                with ui.element("li"):
                    if id in known:
                        ui.link(id, f"/policies/{id}")
                    else:
                        text("span", f"{id} (not in the store)", "muted")


def facts_of(card: PolicyCard) -> list[Fact]:
    """Return what a policy is, from its card."""
    scenario = card.scenario or "-"
    if card.scenario_required:
        scenario += ", and for no other"
    found = [
        Fact("kind", card.kind),
        Fact("encoder", card.encoder),
        Fact("nodes", str(card.nodes or "any number")),
        Fact("trained on", scenario),
        Fact("data set", card.dataset_hash or "-"),
        Fact("made", card.created),
        Fact("actor", f"{card.size_bytes} bytes, sha256 {card.sha256}"),
    ]
    for title, values in (("evaluation", card.evaluation), ("training", card.training)):
        found += [Fact(f"{title}: {key.replace('_', ' ')}", str(v)) for key, v in values.items()]
    return found


async def experiment(context: Context) -> None:
    """Show the learning experiment that the address names, live while it learns."""
    parts.styled()
    name = context.parameters["experiment"]
    found = await context.work(experiments.find, root(), name)
    heading(f"Learning experiment {name}")
    with ui.element("div").classes("stack"):
        # Goes on where it stopped.
        parts.command(
            commands.plain(
                context.settings,
                *("o2o", found.scenario or "SCENARIO"),
                *(["--simulate"] if found.simulated else []),
                *("--out", str(found.folder)),
            )
        )
        place = ui.element("div").classes("stack")
    _Followed(context, place, found)


class _Followed:
    """An experiment on a page, drawn anew as soon as its files have changed."""

    def __init__(self, context: Context, place: ui.element, found: Experiment) -> None:
        self._context = context
        self._folder = found.folder
        self._stamp = experiments.stamp(found.folder)
        with place:
            with ui.element("div").classes("row").props('role="status"'):
                self._state = ui.element("span")
                self._steps = ui.label().classes("muted")
            self._curves = _Curves(context, ui.element("div").classes("pair"))
            self._rest = ui.element("div").classes("pair")
            parts.command(f"tensorboard --logdir {found.folder}")
        self._draw(found)
        ui.timer(FOLLOW_S, self._look, immediate=False)

    def _draw(self, found: Experiment) -> None:
        self._state.clear()
        with self._state:
            parts.state(found.state)
        self._steps.text = ", ".join(
            f"{name}: step {curve.rows[-1]['step']:.0f}" for name, curve in found.curves.items()
        )
        self._curves.draw(found)
        self._rest.clear()
        with self._rest:
            _draw_learned(found)

    async def _look(self) -> None:
        stamp = await self._context.work(experiments.stamp, self._folder)
        if stamp != self._stamp:
            self._stamp = stamp
            self._draw(await self._context.work(experiments.read, self._folder))


def _draw_learned(found: Experiment) -> None:
    """Draw what an experiment has learned, and its settings."""
    with card("Policies"):
        if not found.policies:
            ui.label("None is finished yet.")
        with ui.element("ul"):
            for name, id in found.policies.items():
                with ui.element("li"):
                    text("span", f"{name}: ")
                    ui.link(id, f"/policies/{id}")
    with card("Settings"):
        parts.facts(
            Fact(key.replace("_", " "), str(value))
            for key, value in found.settings.items()
            if isinstance(value, str | int | float)
        )


class _Curves:
    """The charts of an experiment: its learning curve, and one number of each phase.

    They stay while only their values change, so that what was chosen and zoomed stays too.
    """

    def __init__(self, context: Context, place: ui.element) -> None:
        self._context = context
        self._place = place
        self._found: Experiment | None = None
        self._charts: list[tuple[ui.echart, Callable[[Palette], Options]]] = []

    def draw(self, found: Experiment) -> None:
        """Draw an experiment, or the same one as it is now."""
        before, self._found = self._found, found
        if before is None or _shape(before) != _shape(found):
            self._draw_all()
            return
        for chart, options in self._charts:
            parts.redraw(chart, options(self._context.palette))

    @property
    def _now(self) -> Experiment:
        assert self._found is not None
        return self._found

    def _draw_all(self) -> None:
        self._place.clear()
        self._charts = []
        with self._place:
            if not self._now.curves:
                with card("Learning curves"):
                    ui.label("Nothing is measured yet.")
            if _is_tuned(self._now):
                self._add(
                    "Success rate while fine-tuning, 95 % intervals",
                    lambda palette: learning.learning_curves(self._now, palette),
                    "success rate over the episodes learned from",
                )
            for name, curve in self._now.curves.items():
                if curve.columns:
                    self._add_column(name, list(curve.columns))

    def _add(self, title: str, options: Callable[[Palette], Options], says: str) -> ui.echart:
        made = parts.chart(self._context, title, options, says=says)
        self._charts.append((made, options))
        return made

    def _add_column(self, phase: str, columns: list[str]) -> None:
        """Add a chart of one number of a phase, which can be chosen."""
        chosen = [next((each for each in columns if "loss" in each), columns[0])]

        def options(palette: Palette) -> Options:
            return learning.column(self._now.curves, phase, chosen[0], palette)

        made = self._add(f"Training of {phase}", options, f"a number of {phase} by step")

        def choose() -> None:
            chosen[0] = str(choice.value)
            parts.redraw(made, options(self._context.palette))

        assert made.parent_slot is not None
        with made.parent_slot.parent:
            choice = ui.select(columns, label="Number", value=chosen[0])
            choice.props("dense outlined options-dense").on_value_change(choose)


def _shape(found: Experiment) -> tuple[object, ...]:
    """Return what decides which charts there are."""
    return _is_tuned(found), [(name, curve.columns) for name, curve in found.curves.items()]


def _is_tuned(found: Experiment) -> bool:
    return any(curve.points(learning.EVALUATION, "episodes") for curve in found.curves.values())
