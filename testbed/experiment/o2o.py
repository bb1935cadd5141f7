"""Report of a learning experiment: document, learning curve, figures, page.

``trainer.o2o`` runs the experiment; nothing here learns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from testbed.errors import PermanentError
from testbed.experiment import differences, figures
from testbed.experiment.colours import colour
from testbed.experiment.differences import Difference
from testbed.experiment.metrics import SUCCESS_RATE
from testbed.experiment.page import (
    Section,
    command_line,
    folded,
    frame_table,
    framed,
    listed,
    note,
)
from testbed.experiment.reporting import Drawn, Plot, files_of, image
from testbed.experiment.statistics import (
    Interval,
    PairedComparison,
    compare,
    corrected,
    rate_interval,
)
from testbed.schedulers import catalogue
from testbed.schedulers.catalogue import METHODS, REFERENCES
from testbed.version import __version__

if TYPE_CHECKING:
    from trainer.learning.online import CurvePoint
    from trainer.o2o.result import O2OResult

_TUNED: Final = "o2o"
"""Name of the fine-tuned policy and its learning curve."""

_OF_CURVE: Final = ("episodes", "evaluation", "standard_error", "collected", "verdict")
"""A point of a learning curve; success rates as shares, None if not measured."""


def interval(result: O2OResult, method: str) -> Interval:
    """Mean success rate of a method over episodes, with its 95 % interval."""
    rates = result.rates[method]
    return rate_interval(rates[np.isfinite(rates)].tolist())


def against(result: O2OResult, method: str, other: str) -> PairedComparison:
    """Paired difference of two methods, episode by episode."""
    first, second = (
        {n: float(r) for n, r in enumerate(result.rates[name]) if math.isfinite(r)}
        for name in (method, other)
    )
    return compare(first, second)


def document(result: O2OResult) -> dict[str, Any]:
    """Return the result as plain values for JSON; ``success_rate`` by method is the result."""
    plan = result.plan
    seeds = {name: getattr(plan.seeds, name) for name in type(plan.seeds).__slots__}
    found: dict[str, Any] = {
        "scenario": plan.name,
        "scenario_hash": plan.scenario_hash,
        "nodes": plan.topology.size,
        "slots": plan.workload.slots,
        "seeds": seeds,
        "driver": result.driver,
        "success_rate": {
            method: {**_interval(interval(result, method)), "by_episode": _listed(rates)}
            for method, rates in result.rates.items()
        },
        "bound": None,
        "differences": _differences(result),
        "learning_curve": {
            name: [_point(point) for point in points] for name, points in result.curves.items()
        },
        "during_fine_tuning": dict(result.validation),
        "log_success_rate": result.log_rate,
        "gate": None if result.gate is None else asdict(result.gate),
        "refused": result.refused,
        "rollbacks": result.rollbacks,
        "best_update": result.best_update,
        "offline_metrics": dict(result.offline_metrics),
        **result.details,
        "policies": dict(result.policies),
        "settings": _settings(result),
        "seconds": {**result.durations, "total": round(sum(result.durations.values()), 3)},
        "versions": versions(),
        "notes": list(result.notes),
    }
    if result.bound is not None:
        told = result.bound[np.isfinite(result.bound)]
        found["bound"] = _interval(rate_interval(told.tolist()))
    return found


def _point(point: CurvePoint) -> dict[str, Any]:
    return {name: getattr(point, name) for name in _OF_CURVE}


def _settings(result: O2OResult) -> dict[str, Any]:
    """Everything that was chosen."""
    from trainer.o2o.recipe import document as recipe_of

    config = asdict(result.config) | {"recipe": recipe_of(result.config.recipe)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in config.items()}


def versions() -> dict[str, str]:
    """Return the versions of this toolkit and of the libraries that its learners use."""
    found = {"edge-testbed": __version__}
    for name in ("numpy", "numba", "torch", "ray", "onnx", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _interval(interval: Interval) -> dict[str, Any]:
    def known(value: float) -> float | None:
        return round(value, 6) if math.isfinite(value) else None

    return {
        "mean": known(interval.mean),
        "low": known(interval.low),
        "high": known(interval.high),
        "standard_deviation": known(interval.deviation),
        "episodes": interval.count,
    }


def _listed(rates: NDArray[np.float64]) -> list[float | None]:
    return [round(float(rate), 6) if math.isfinite(rate) else None for rate in rates]


def _differences(result: O2OResult) -> dict[str, Any]:
    """Return the paired differences of learned policies and baselines, in shares."""
    return {
        f"{each.first} - {each.second}": {
            **_interval(each.comparison.difference),
            "p_value": each.comparison.p_value,
            "p_adjusted": each.comparison.p_adjusted,
            "verdict": each.comparison.verdict,
        }
        for each in differences_of(result)
    }


def differences_of(result: O2OResult) -> list[Difference]:
    """Return the differences of learned policies and baselines, those of ``o2o`` first.

    Their p values are adjusted for the number of all of them.
    """
    policies = [
        method
        for method in METHODS
        if METHODS[method].kind == "policy" and METHODS[method].group != "equal"
    ]
    pairs = [
        (method, other)
        for method in sorted(policies, key=lambda name: name != _TUNED)
        for other in (*REFERENCES, "offline")
        if method != other and method in result.rates and other in result.rates
    ]
    found = corrected([against(result, method, other) for method, other in pairs])
    return [Difference(*pair, each) for pair, each in zip(pairs, found, strict=True)]


def learning_curve(result: O2OResult) -> Figure:
    """Success rate over online episodes: evaluations with their error, and what they start from."""
    figure, axes = figures.new_figure(height=4.2)
    for index, (name, points) in enumerate(result.curves.items()):
        told = [point for point in points if point.evaluation is not None]
        if not told:
            continue
        x = np.array([point.episodes for point in told])
        y = 100 * np.array([float(point.evaluation or 0.0) for point in told])
        error = 100 * np.array([float(point.standard_error or 0.0) for point in told])
        shade = colour(index)
        axes.plot(x, y, "o-", color=shade, markersize=4, linewidth=2, label=name)
        chosen = [(p.episodes, 100 * float(p.evaluation or 0.0)) for p in _chosen(result, name)]
        if chosen:
            axes.plot(
                *zip(*chosen, strict=True),
                "*",
                color=shade,
                markersize=15,
                markeredgecolor="#222222",
                label="chosen checkpoint",
                zorder=5,
            )
        axes.fill_between(x, y - 1.96 * error, y + 1.96 * error, color=shade, alpha=0.15)
        back = [(p.episodes, 100 * float(p.evaluation or 0.0)) for p in told]
        taken_back = [xy for xy, p in zip(back, told, strict=True) if p.verdict == "rolled back"]
        if taken_back:
            axes.plot(*zip(*taken_back, strict=True), "x", color="#D55E00", markersize=8)
    for index, (name, rate) in enumerate(result.validation.items()):
        shade = colour(len(result.curves) + index)
        axes.axhline(100 * rate, color=shade, linestyle="--", linewidth=1.2, label=name)
    axes.set_xlabel("online episodes learned from")
    axes.set_ylabel("success rate, %")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def _chosen(result: O2OResult, name: str) -> list[CurvePoint]:
    """Return the point of the policy that was kept, if ``name`` is the curve that it is on."""
    if name != _TUNED or result.refused:
        return []
    points = result.curves[name]
    return [p for p in points if p.update == result.best_update and p.evaluation is not None][:1]


def about_curve(result: O2OResult) -> str:
    """Return why the learning curve and the table give different figures for the same policy."""
    text = (
        "Dots are evaluations of the policy as it was then, with 95 % intervals; crosses were "
        "rolled back. All are of the same validation episodes, which are no episodes of the table."
    )
    chosen = _chosen(result, _TUNED) if _TUNED in result.curves else []
    if not chosen or _TUNED not in result.rates:
        return text
    evaluated = sum(point.evaluation is not None for point in result.curves[_TUNED])
    rate = interval(result, _TUNED)
    return (
        f"{text} The star is the checkpoint that was kept: update {chosen[0].update}, "
        f"{100 * float(chosen[0].evaluation or 0.0):.1f} %, the best of {evaluated} evaluations. "
        f"The table has {100 * rate.mean:.1f} % for it, over {rate.count} episodes that nothing "
        "was chosen by. The two differ because the episodes do, and because the best of several "
        "evaluations is on average too high; the figure of the table is the one to quote."
    )


def comparison(result: O2OResult) -> Figure:
    """All methods side by side, what they know of other nodes beside their names."""
    names = sorted(result.rates, key=lambda name: float(np.nanmean(result.rates[name])))
    figure, axes = figures.new_figure(height=1.2 + 0.34 * len(names))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    for y, name in enumerate(names):
        rate = interval(result, name)
        shade = colour(1 if catalogue.method(name).kind == "policy" else 0)
        arms = 100 * np.transpose([rate.arms])
        axes.errorbar(100 * rate.mean, y, xerr=arms, fmt="o", color=shade, capsize=4)
        axes.annotate(
            f"{100 * rate.mean:.1f}",
            (100 * rate.mean, y),
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
            fontsize=7,
        )
    labels = [f"{name}  ({catalogue.method(name).knows or 'own'})" for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    if result.bound is not None:
        limit = 100 * float(np.nanmean(result.bound))
        axes.axvline(limit, color="#555555", linestyle=":", linewidth=1.2)
    axes.set_xlabel("success rate, %: mean, 95 % interval; dotted: the bound", fontsize=9)
    return figure


def table(result: O2OResult) -> pd.DataFrame:
    """A row per method, best last column by column: what it knows, rate, interval, vs. RATC."""
    rows = []
    for name in sorted(result.rates, key=lambda name: -float(np.nanmean(result.rates[name]))):
        rate = interval(result, name)
        row: dict[str, Any] = {
            "method": name,
            "knows of others": catalogue.method(name).knows,
            "success rate": rate.mean,
            "low": rate.low,
            "high": rate.high,
        }
        for other in ("ratc", "offline"):
            if other in result.rates:
                row[f"above {other}"] = (
                    math.nan if name == other else against(result, name, other).difference.mean
                )
        rows.append(row)
    return pd.DataFrame(rows)


def write_report(result: O2OResult, folder: Path, command: str = "testbed o2o") -> Path:
    """Write ``index.html``, figures with their data and ``o2o.json`` into ``folder``; returns the
    page, which names the ``command``.

    Raises:
        PermanentError: the folder cannot be written.
    """
    drawn = {name: files_of(plot) for name, plot in _plots(result).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, files in drawn.items():
            for suffix, content in files.formats._asdict().items():
                (folder / f"{name}.{suffix}").write_bytes(content)
            (folder / f"{name}.csv").write_text(files.csv, encoding="utf-8")
        text = json.dumps(_finite(document(result)), indent=2, default=str, allow_nan=False)
        (folder / "o2o.json").write_text(text + "\n", encoding="utf-8")
        page = folder / "index.html"
        page.write_text(_page(result, drawn, command), encoding="utf-8")
    except OSError as error:
        raise PermanentError(
            f"cannot write the report to {folder}: {error.strerror or error}; choose another folder"
        ) from error
    return page


def _plots(result: O2OResult) -> dict[str, Plot]:
    plots = {}
    if found := differences_of(result):
        shown = differences.shown(found)
        says = differences.caption(found, "tasks and failures")
        plots["differences"] = Plot(
            differences.drawn(shown, SUCCESS_RATE), differences.data(found), says
        )
    dotted = "" if result.bound is None else "; dotted: the bound"
    plots["methods"] = Plot(
        comparison(result),
        table(result),
        f"Success rate of each method, and what it knows of other nodes: mean over episodes with "
        f"its 95 % interval{dotted}.",
    )
    if result.curves:
        curve = pd.DataFrame(
            [
                {
                    "curve": name,
                    **_point(point),
                    "chosen": any(point is each for each in _chosen(result, name)),
                }
                for name, points in result.curves.items()
                for point in points
            ]
        )
        plots["learning-curve"] = Plot(learning_curve(result), curve, about_curve(result))
    return plots


def _page(result: O2OResult, drawn: Drawn, command: str) -> str:
    rows = table(result)
    shown = rows.astype(object)
    for column in rows.columns[2:]:
        shown[column] = [f"{100 * x:.1f}" if math.isfinite(x) else "" for x in rows[column]]
    shown = shown.rename(columns=_HEADS)
    found = differences_of(result)
    listing = differences.shown(found)
    left = len(found) - len(listing)
    compared = [
        image(drawn, "differences", ""),
        frame_table(differences.table(listing, SUCCESS_RATE)),
        *([note(f"{left} more pairs are in the CSV file.")] if left else []),
        note(differences.correction(found)),
    ]
    sections = [
        Section("Differences", compared if found else []),
        Section("All methods", [image(drawn, "methods", ""), frame_table(shown)]),
        Section(
            "Learning curve",
            [image(drawn, "learning-curve", "")] if "learning-curve" in drawn else [],
        ),
        Section("Notes", [listed(result.notes)] if result.notes else []),
        Section("How it was made", _made(result, command)),
    ]
    plan = result.plan
    lead = (
        f"{plan.topology.size} nodes, {result.driver}. Means are over paired episodes, intervals "
        "are 95 % (Student's t over episodes)."
    )
    return framed(f"Offline to online: {plan.name}", [note(lead)], sections)


_HEADS: Final = {
    **{name: f"{name}, %" for name in ("success rate", "low", "high")},
    **{f"above {name}": f"above {name}, points" for name in ("ratc", "offline")},
}


def _made(result: O2OResult, command: str) -> Sequence[str]:
    found = document(result)
    facts = {
        "scenario": f"{result.plan.name} [{result.plan.scenario_hash[:12]}]",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in found["seeds"].items()),
        "versions": ", ".join(f"{name} {each}" for name, each in versions().items()),
        **{f"policy {name}": policy for name, policy in result.policies.items()},
    }
    settings = json.dumps(_finite(_settings(result)), indent=2, default=str)
    return [
        command_line(command),
        frame_table(pd.DataFrame(facts.items(), columns=["what", "value"])),
        folded("All settings", settings),
    ]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
