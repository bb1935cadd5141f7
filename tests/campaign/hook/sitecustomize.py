"""Loaded by Python's start in the processes of a testbed under campaign, from PYTHONPATH.

``CAMPAIGN_SWITCHBOARD`` names a socket: channels to other processes then go through the
switchboard, which can cut and delay them. ``CAMPAIGN_TWICE`` is the share of unary calls that are
made twice, as a retry would. ``CAMPAIGN_CLOCK`` names a file with the seconds by which the clock of
the machine has been stepped.
"""

from __future__ import annotations

import os
import sys


def _switch(path: str) -> None:
    import functools
    import json
    import random
    import socket

    import grpc.aio

    share = float(os.environ.get("CAMPAIGN_TWICE", "0"))

    def me() -> str:
        # Asked when it is needed: nodes get their names after the start of the interpreter.
        return os.environ.get("TESTBED_PROCESS_NAME", "cli")

    @functools.cache
    def draws(name: str) -> random.Random:
        return random.Random(f"{name}/{os.environ.get('CAMPAIGN_SEED', '')}")

    class Twice(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
        async def intercept_unary_unary(self, continuation, details, request):  # type: ignore[no-untyped-def]
            first = await continuation(details, request)
            if draws(me()).random() >= share:
                return first
            await first
            second = await continuation(details, request)
            # A command counts once: a node refuses the repetition, and the first answer stands.
            repeated = "has been here already" in (await second.details() or "")
            return first if repeated else second

    def switched(target: str) -> str:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(path)
            asking.sendall(json.dumps({"caller": me(), "target": target}).encode() + b"\n")
            with asking.makefile() as answer:
                return "unix:" + answer.readline().strip()

    for name in ("insecure_channel", "secure_channel"):
        original = getattr(grpc.aio, name)

        def channel(target, *args, _original=original, **kwargs):  # type: ignore[no-untyped-def]
            if share:
                kwargs["interceptors"] = [*(kwargs.get("interceptors") or ()), Twice()]
            return _original(switched(target), *args, **kwargs)

        setattr(grpc.aio, name, channel)


def _step(path: str) -> None:
    import types
    from datetime import UTC, datetime
    from time import time as real

    import psutil
    import psutil._pslinux as linux

    def offset() -> float:
        try:
            with open(path) as file:
                return float(file.read() or 0)
        except (OSError, ValueError):
            return 0.0

    class Stepped(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return datetime.fromtimestamp(real() + offset(), tz or UTC)

    stepped = types.SimpleNamespace(**vars(__import__("time")))
    stepped.time = lambda: real() + offset()

    def step(module: types.ModuleType) -> None:
        """Give a module of the product the stepped clock; gRPC counts deadlines by the real one."""
        if getattr(module, "datetime", None) is datetime:
            module.datetime = Stepped  # type: ignore[attr-defined]
        if getattr(getattr(module, "time", None), "__name__", "") == "time":
            module.time = stepped  # type: ignore[attr-defined]

    class Finder:
        """Steps modules of the product once they are imported."""

        def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
            if name.split(".")[0] not in ("testbed", "controller", "edgenode", "trainer"):
                return None
            sys.meta_path.remove(self)
            try:
                spec = importlib.util.find_spec(name)
            finally:
                sys.meta_path.insert(0, self)
            if spec is not None and spec.loader is not None:
                original = spec.loader.exec_module

                def execute(module: types.ModuleType) -> None:
                    original(module)
                    step(module)

                spec.loader.exec_module = execute  # type: ignore[method-assign]
            return spec

    import importlib.util

    sys.meta_path.insert(0, Finder())
    # The kernel counts the time since boot; what it says of the boot moves with the clock.
    booted = linux.boot_time
    linux.boot_time = lambda: booted() + round(offset())
    psutil.boot_time = linux.boot_time


if found := os.environ.get("CAMPAIGN_CLOCK"):
    _step(found)
if (found := os.environ.get("CAMPAIGN_SWITCHBOARD")) and "TESTBED_PROCESS_NAME" in os.environ:
    _switch(found)
