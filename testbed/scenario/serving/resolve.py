"""From a scenario of requests to the plan of a run."""

from __future__ import annotations

import dataclasses

from testbed.model.draws import Purpose
from testbed.model.serving.bus import Bus
from testbed.model.serving.network import Function, ServingNetwork
from testbed.model.serving.node import Timetable
from testbed.model.serving.users import ConstantRate, SinusoidalRate, StepRate, Trace, Users
from testbed.model.units import SECOND
from testbed.scenario.plan import SchedulerSpec, Seeds, ServingPlan
from testbed.scenario.plan.serving import Horizon, ServingLimits, identity
from testbed.scenario.resolve import fault_spec, named, per_node
from testbed.scenario.serving.schema import RateForms, ServingScenario


def plan(
    scenario: ServingScenario,
    *,
    scheduler: SchedulerSpec | None = None,
    episodes: int | None = None,
    time_scale: float | None = None,
    storage_url: str | None = None,
    artifacts_url: str | None = None,
) -> ServingPlan:
    """Return the plan of a run of ``scenario``; arguments go before what the file says."""
    network = draw_network(scenario)
    limits = scenario.fidelity
    names = [function.name for function in network.functions]
    drawn = ServingPlan(
        name=scenario.metadata.name,
        scenario_hash="",
        seeds=Seeds(**scenario.seeds.model_dump()),
        scheduler=scheduler or SchedulerSpec(**named(scenario.scheduler)),
        objective=scenario.objective,
        episodes=scenario.episodes if episodes is None else episodes,
        time_scale=scenario.time_scale if time_scale is None else time_scale,
        storage_url=storage_url or scenario.storage,
        artifacts_url=artifacts_url or scenario.artifacts,
        network=network,
        bus=Bus(scenario.overlay.delay, scenario.overlay.loss, scenario.seeds.faults),
        timetable=Timetable(scenario.routing.period, scenario.routing.offset),
        users=tuple(
            Users(users.node, names.index(users.function), trace(users.rate))
            for users in scenario.users
        ),
        horizon=Horizon(scenario.horizon.length, scenario.horizon.drain),
        log_requests=scenario.log.requests,
        limits=ServingLimits(
            service_error=limits.service,
            forwarding_error=limits.forwarding,
            tick_lateness=limits.ticks,
            generator_lateness=limits.generator_lateness,
            lost_requests=limits.lost_requests,
        ),
        faults=tuple(fault_spec(fault, network.size, network.window) for fault in scenario.faults),
    )
    return dataclasses.replace(drawn, scenario_hash=identity(drawn))


def draw_network(scenario: ServingScenario) -> ServingNetwork:
    """Return the functions and the overlay of ``scenario``, drawn with its topology seed."""
    count, window = scenario.nodes.count, scenario.horizon.window
    overlay = scenario.overlay
    functions = []
    for number, (name, function) in enumerate(scenario.functions.items()):
        rates = per_node(
            function.max_rate, count, scenario.seeds.topology, Purpose.CAPACITY, number
        )
        in_window = tuple(round(rate * window / SECOND) for rate in rates)
        functions.append(Function(name, function.time, in_window))
    return ServingNetwork(
        tuple(functions),
        neighbours(overlay.neighbours, count),
        overlay.expiry,
        overlay.enforce_limits,
        window,
    )


def neighbours(given: str | list[list[int]], count: int) -> tuple[tuple[int, ...], ...]:
    """Return the neighbours of each node in order, as ``overlay.neighbours`` has them."""
    if isinstance(given, str):
        return tuple(tuple(peer for peer in range(count) if peer != node) for node in range(count))
    return tuple(tuple(sorted(row)) for row in given)


def trace(rate: RateForms) -> Trace:
    """Return the trace of users with a rate."""
    if rate.constant is not None:
        return ConstantRate(rate.constant)
    if rate.sinusoidal is not None:
        wave = rate.sinusoidal
        return SinusoidalRate(wave.mean, wave.amplitude, wave.period, wave.phase)
    assert rate.steps is not None
    return StepRate(tuple(step.at for step in rate.steps), tuple(step.rate for step in rate.steps))
