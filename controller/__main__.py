"""``python -m controller``: read the plan, serve until SIGTERM, exit with the error's code.

The task log, whose URL may hold a password, is better given in the environment, as
``TESTBED_PROCESS_STORAGE``: arguments are seen by all users of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from testbed import environment, logs
from testbed.errors import PrerequisiteMissing, TestbedError, UsageError
from testbed.rpc.identity import CONTROLLER
from testbed.rpc.loop import new_event_loop
from testbed.rpc.token import PLAINTEXT, add_access_arguments, find_credentials
from testbed.scenario.plan import PlanHead
from testbed.scenario.plan import load as load_plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a controller; the process's exit status."""
    options = _parser().parse_args(arguments)
    # Whatever it writes is for its user alone.
    os.umask(0o077)
    _configure_log()
    report = _reporter(options.ready_fd)
    try:
        me = find_credentials(CONTROLLER, options.credentials, plaintext=options.insecure_plaintext)
        if options.insecure_plaintext:
            structlog.get_logger("controller").warning(PLAINTEXT)
        plan, scenario = _plan_and_scenario(options.plan, options.scenario)
        if artifacts := options.artifacts or environment.read(environment.PROCESS_ARTIFACTS):
            plan = dataclasses.replace(plan, artifacts_url=artifacts)
        options.run_dir.mkdir(parents=True, exist_ok=True)
        # Imported late: what is wrong with the arguments is said at once.
        from controller.process import Controller, ControllerSettings

        settings = ControllerSettings(
            plan=plan,
            name=options.name or plan.name,
            bind=options.bind,
            directory=options.run_dir,
            store=options.store
            or environment.read(environment.PROCESS_STORAGE)
            or plan.storage_url
            or str(options.run_dir / "tasks.db"),
            me=me,
            probes=options.probes,
            metrics=options.metrics,
            scenario=scenario,
            store_patience_s=options.store_patience,
            keep_nodes=options.keep_nodes,
            claims=options.claims,
        )

        async def serve() -> None:
            await Controller(settings).serve(lambda address: report({"address": address}))

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve())
    except TestbedError as error:
        report({"error": error.to_document()})
        structlog.get_logger("controller").error("cannot serve", problem=str(error))
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controller", description=__doc__)
    parser.add_argument(
        "--plan", type=Path, help="JSON of the plan; if not given, it is drawn from --scenario"
    )
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of this testbed")
    parser.add_argument(
        "--bind", default="127.0.0.1:0", help="host:port, port 0 for any; or unix:/path"
    )
    parser.add_argument("--name", default="", help="name of the testbed; the plan's if not given")
    parser.add_argument(
        "--store",
        default="",
        help=f"task log, or the variable {environment.PROCESS_STORAGE}; tasks.db in --run-dir if "
        "not given",
    )
    parser.add_argument(
        "--store-patience",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait for the task log's server, where both are started at the same time",
    )
    parser.add_argument(
        "--keep-nodes",
        action="store_true",
        help="leave the nodes to the next controller when this one ends, instead of ending them",
    )
    parser.add_argument(
        "--claims",
        type=Path,
        metavar="DIR",
        help="folder outside --run-dir where others see which runs are still carried on",
    )
    parser.add_argument(
        "--artifacts",
        default="",
        help=f"store of policies, or the variable {environment.PROCESS_ARTIFACTS}; the plan's if "
        "not given",
    )
    parser.add_argument(
        "--scenario",
        help="scenario file the plan was made from; without --plan, a file or a shipped name",
    )
    add_access_arguments(parser, "the controller")
    parser.add_argument(
        "--ready-fd", type=int, help="descriptor on which to say, in JSON, the address or the error"
    )
    return parser


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PrerequisiteMissing(
            f"{path} cannot be read: {error.strerror}", "name a file that can be read"
        ) from None


def _plan_and_scenario(plan: Path | None, scenario: str | None) -> tuple[PlanHead, str | None]:
    """Return the plan, and the text of the scenario file if there is one.

    Raises: UsageError: neither is given, or one cannot be understood.
    """
    if plan is not None:
        return _read_plan(plan), None if scenario is None else _text(Path(scenario))
    if scenario is None:
        raise UsageError("the controller needs a --plan, or a --scenario to draw one from")
    # Imported here: a controller that is given its plan needs neither YAML nor pydantic.
    from testbed.scenario.load import draw, dumps, load

    loaded = load(scenario)
    return draw(loaded), dumps(loaded)


def _read_plan(path: Path) -> PlanHead:
    try:
        return load_plan(_text(path))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def _reporter(descriptor: int | None) -> Callable[[dict[str, Any]], None]:
    def report(message: dict[str, Any]) -> None:
        if descriptor is not None:
            # Whoever waited may have gone; the log says it all.
            with contextlib.suppress(OSError):
                os.write(descriptor, json.dumps(message).encode() + b"\n")

    return report


class _Format(logging.Formatter):
    """An entry as keys and values, also where another library has made it."""

    def __init__(self) -> None:
        super().__init__("timestamp='%(asctime)s.%(msecs)03dZ' %(message)s", "%Y-%m-%dT%H:%M:%S")

    converter = staticmethod(time.gmtime)

    def formatMessage(self, record: logging.LogRecord) -> str:
        if not getattr(record, _RENDERED, False):
            level = record.levelname.lower()
            record.message = f"level={level!r} event={record.message!r} logger={record.name!r}"
        return super().formatMessage(record)


_RENDERED: Final = "rendered"


def _to_logging(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    """Hand an entry to ``logging``, which knows what to do with a traceback."""
    error = event.pop("exc_info", None)
    return (_render(None, "", event),), {"exc_info": error, "extra": {_RENDERED: True}}


_render = structlog.processors.KeyValueRenderer(key_order=["level", "event"])


def _configure_log() -> None:
    logs.configure(_Format())
    for ours in ("controller", "testbed"):
        logging.getLogger(ours).setLevel(logging.DEBUG)
    structlog.configure(
        processors=[structlog.processors.add_log_level, _to_logging],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


if __name__ == "__main__":
    sys.exit(main())
