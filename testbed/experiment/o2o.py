"""Report of a learning experiment: document, learning curve, figures, page.

``trainer.o2o`` runs the experiment; nothing here learns.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from testbed.errors import PermanentError
from testbed.experiment import figures
from testbed.experiment.colours import colour
from testbed.experiment.statistics import Interval, PairedComparison, compare, rate_interval
from testbed.schedulers import catalogue
from testbed.schedulers.catalogue import METHODS, REFERENCES
from testbed.version import __version__

if TYPE_CHECKING:
    from trainer.learning.online import CurvePoint
    from trainer.o2o.result import O2OResult

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
    config = asdict(result.config)
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
    wanted = [
        (method, other)
        for method in METHODS
        if METHODS[method].kind == "policy" and METHODS[method].group != "equal"
        for other in (*REFERENCES, "offline")
        if method != other
    ]
    found = {}
    for method, other in wanted:
        if method in result.rates and other in result.rates:
            comparison = against(result, method, other)
            found[f"{method} - {other}"] = {
                **_interval(comparison.difference),
                "p_value": comparison.p_value,
                "verdict": comparison.verdict,
            }
    return found


def learning_curve(result: O2OResult) -> Figure:
    """Success rate over online episodes: evaluations with their error, and what they start from."""
    figure, axes = figures.new_figure(6.8, 4.2)
    for index, (name, points) in enumerate(result.curves.items()):
        told = [point for point in points if point.evaluation is not None]
        if not told:
            continue
        x = np.array([point.episodes for point in told])
        y = 100 * np.array([float(point.evaluation or 0.0) for point in told])
        error = 100 * np.array([float(point.standard_error or 0.0) for point in told])
        shade = colour(index)
        axes.plot(x, y, "o-", color=shade, markersize=4, linewidth=2, label=name)
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
    axes.set_title("Fine-tuning: mean and 95 % interval", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def comparison(result: O2OResult) -> Figure:
    """All methods side by side, what they know of other nodes beside their names."""
    names = sorted(result.rates, key=lambda name: float(np.nanmean(result.rates[name])))
    figure, axes = figures.new_figure(7.2, 1.2 + 0.34 * len(names))
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


def write_report(result: O2OResult, folder: Path) -> Path:
    """Write ``index.html``, figures, tables and ``o2o.json`` into ``folder``; returns the page.

    Raises:
        PermanentError: the folder cannot be written.
    """
    drawn = {"methods": comparison(result)}
    if result.curves:
        drawn["learning-curve"] = learning_curve(result)
    rows = table(result)
    curve = pd.DataFrame(
        [
            {"curve": name, **_point(point)}
            for name, points in result.curves.items()
            for point in points
        ]
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            for suffix in ("png", "svg"):
                figure.savefig(folder / f"{name}.{suffix}")
        rows.to_csv(folder / "methods.csv", index=False)
        curve.to_csv(folder / "learning-curve.csv", index=False)
        text = json.dumps(_finite(document(result)), indent=2, default=str, allow_nan=False)
        (folder / "o2o.json").write_text(text + "\n", encoding="utf-8")
        page = folder / "index.html"
        page.write_text(_page(result, drawn, rows), encoding="utf-8")
    except OSError as error:
        raise PermanentError(
            f"cannot write the report to {folder}: {error.strerror or error}; choose another folder"
        ) from error
    return page


def _page(result: O2OResult, drawn: Mapping[str, Figure], rows: pd.DataFrame) -> str:
    shown = rows.copy()
    for column in shown.columns[2:]:
        shown[column] = [
            f"{100 * value:.1f}" if math.isfinite(value) else "" for value in rows[column]
        ]
    parts = [
        f"<h1>Offline to online: {html.escape(result.plan.name)}</h1>",
        f"<p>{result.plan.topology.size} nodes, topology seed {result.plan.seeds.topology}, "
        f"{html.escape(result.driver)}. Success rates in %, 95 % intervals, paired episodes.</p>",
        shown.to_html(index=False, border=0),
    ]
    for figure in drawn.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append(f'<p><img alt="" src="data:image/png;base64,{data}"></p>')
    verdicts = [
        f"<li>{html.escape(name)}: {html.escape(each['verdict'])}</li>"
        for name, each in _differences(result).items()
    ]
    parts.append(f"<h2>Differences, paired</h2><ul>{''.join(verdicts)}</ul>")
    if result.notes:
        parts.append("<h2>Notes</h2><ul>")
        parts += [f"<li>{html.escape(note)}</li>" for note in result.notes]
        parts.append("</ul>")
    settings = html.escape(json.dumps(_finite(_settings(result)), indent=2, default=str))
    parts.append(f"<h2>Settings</h2><pre>{settings}</pre>")
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd}"
        "td:first-child,th:first-child{text-align:left}img{max-width:100%}"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Offline to online</title>'
        f"<style>{style}</style><body>{''.join(parts)}</body></html>\n"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
