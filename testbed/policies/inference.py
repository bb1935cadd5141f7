"""Runs a policy's actor with ONNX Runtime: one observation in, one distribution out.

ONNX Runtime and NumPy are imported when the first policy is loaded, so that nodes which only run
heuristics stay small. A session has one thread and no memory arena; sessions are shared within a
process, because running one changes nothing in it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from testbed.errors import PrerequisiteMissing, Problem, UsageError
from testbed.files import try_lock
from testbed.model.encoders import ENCODERS
from testbed.model.per_destination import COLUMNS_OF
from testbed.policies.artifact import Policy
from testbed.policies.card import Kind, PolicyCard
from testbed.policies.graph import problems_of
from testbed.policies.trial import tried

OUTPUT: Final = "probabilities"
MASK: Final = "mask"
FEEDS: Final = {"flat": "observation", "per-destination": "features"}
"""Name of the input that is not the mask, by kind."""

KEPT_ACTORS: Final = 4
"""Number of loaded actors a process caches: in use, being deployed, rolled back to."""

GENTLE_S: Final = 0.001
"""Seconds after which an import gives way to the event loop; also between looks for a turn."""

TURN_S: Final = 3.0


class _Bound:
    """Inputs and output of a session in memory that stays: only numbers move when it runs."""

    __slots__ = ("_binding", "_mask", "_numbers", "_out", "_pack", "_run", "_value_of")

    def __init__(self, session: Any, kind: Kind, width: int, actions: int) -> None:
        onnxruntime, numpy = import_runtime()
        shape = (1, width) if kind == "flat" else (1, actions, width)
        features = numpy.zeros(shape, numpy.float32)
        mask = numpy.zeros((1, actions), numpy.bool_)
        self._out = numpy.zeros((1, actions), numpy.float32)
        self._binding = session.io_binding()
        # On a CPU these are the arrays themselves, not copies.
        self._value_of = [
            onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in (features, mask, self._out)
        ]
        given, allowed, out = self._value_of
        self._binding.bind_ortvalue_input(FEEDS[kind], given)
        self._binding.bind_ortvalue_input(MASK, allowed)
        self._binding.bind_ortvalue_output(OUTPUT, out)
        self._run = session.run_with_iobinding
        # Faster than numpy's own conversions of lists, and rounds alike.
        self._pack = struct.Struct(f"{features.size}f").pack_into
        self._numbers = memoryview(features).cast("B")
        self._mask = memoryview(mask).cast("B")

    def run(self, features: Iterable[float], mask: Iterable[bool]) -> list[float]:
        self._pack(self._numbers, 0, *features)
        self._mask[:] = bytes(mask)
        self._run(self._binding)
        found: list[float] = self._out[0].tolist()
        return found


class OnnxActor:
    """A loaded policy with its ``card``; thread-safe."""

    __slots__ = ("_bound", "_session", "_width", "card")

    def __init__(self, card: PolicyCard, session: Any) -> None:
        self.card = card
        self._session = session
        self._width = _width_of(card)
        self._bound = threading.local()

    def probabilities(
        self, features: Sequence[float] | Sequence[Sequence[float]], mask: Sequence[bool]
    ) -> list[float]:
        """Return the distribution [A] for ``features`` under ``mask`` [A] (True: allowed).

        Features are [D] for a flat policy (A = N + 1, the last is "no task"), and for a
        per-destination one (A = N) [A, F], or [A * F] row by row, which is faster. At least one
        entry of the mask has to be True.
        """
        actions = len(mask)
        try:
            bound: _Bound = getattr(self._bound, f"of_{actions}")
        except AttributeError:
            bound = _Bound(self._session, self.card.kind, self._width, actions)
            setattr(self._bound, f"of_{actions}", bound)
        if self.card.kind != "flat" and len(features) == actions:
            rows: Any = features
            return bound.run([number for row in rows for number in row], mask)
        numbers: Any = features
        return bound.run(numbers, mask)


def _width_of(card: PolicyCard) -> int:
    """Return how many features a policy takes: in all, or in a row of a destination."""
    if card.kind != "flat":
        return len(COLUMNS_OF[card.encoder])
    assert card.nodes is not None
    return ENCODERS[card.encoder].size(card.nodes)


@cache
def import_runtime() -> tuple[Any, Any]:
    """Import ``onnxruntime`` and ``numpy`` and return them; shortens the delay of other threads.

    Raises: PrerequisiteMissing: ONNX Runtime cannot be imported.
    """
    # Read when it is imported. It would keep an id of this machine below the user's home and report
    # its use to its maker.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    interval = sys.getswitchinterval()
    try:
        with _turn():
            sys.setswitchinterval(GENTLE_S)
            _map_libraries()
            import numpy
            import onnxruntime
    except ImportError as error:
        raise PrerequisiteMissing(
            f"policies need onnxruntime, which cannot be imported: {error}",
            "install it: pip install onnxruntime",
        ) from error
    finally:
        sys.setswitchinterval(interval)
    # Its warnings are about graphs, not about what a user could change.
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime, numpy


@contextmanager
def _turn() -> Iterator[None]:
    """Wait until fewer processes of this host import than it has processors; not for long.

    All nodes of a host are told to load at the same moment, while they run tasks. One that holds
    the interpreter lock and waits for a processor holds up its own timers; so they take turns. The
    lock ends with the process, and one that was stopped is waited for a bounded time only.
    """
    folder = Path(tempfile.gettempdir())
    names = [f"edge-testbed-{os.getuid()}-{i}.lock" for i in range(os.cpu_count() or 1)]
    until = time.monotonic() + TURN_S
    with ExitStack() as held:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            files = [os.open(folder / name, flags, 0o600) for name in names]
        except OSError:
            files = []
        for file in files:
            held.callback(os.close, file)
        while files and time.monotonic() < until and not any(map(_locked, files)):
            # There is no waiting for the first of several locks.
            time.sleep(GENTLE_S)
        yield


def _locked(file: int) -> bool:
    try:
        return try_lock(file)
    except OSError:
        return False


def _map_libraries() -> None:
    """Load the large shared libraries without holding the interpreter lock.

    Importing them would hold the lock for as long as the system maps and links 50 MB, and with it
    every timer of a node that is running tasks. Only a head start: failing here fails nothing.
    """
    try:
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.restype = ctypes.c_void_p
        dlopen.argtypes = (ctypes.c_char_p, ctypes.c_int)
        for package, library in _LIBRARIES:
            found = importlib.util.find_spec(package)
            if found is None or not found.submodule_search_locations:
                continue
            for path in Path(next(iter(found.submodule_search_locations))).glob(library):
                dlopen(str(path).encode(), ctypes.DEFAULT_MODE | os.RTLD_NOW)
    except (OSError, AttributeError, StopIteration):
        return


_LIBRARIES: Final = (
    ("numpy", "_core/_multiarray_umath*.so"),
    ("numpy", "linalg/_umath_linalg*.so"),
    ("onnxruntime", "capi/onnxruntime_pybind11_state*.so"),
)


def open_actor(policy: Policy) -> OnnxActor:
    """Return the actor of a verified policy; shared by all who open the same one. May take a while.

    Raises: UsageError: the graph is none, or not of the policy's kind, encoder and N, keeps data
    elsewhere, has operators that are not ONNX's, or needs too much memory or time.
    PrerequisiteMissing: ONNX Runtime is not installed.
    """
    key = policy.card.id, policy.card.sha256
    with _opening:
        actor = _open.pop(key, None)
        if actor is None:
            accept(policy)
            actor = load_actor(policy)
        _open[key] = actor  # the latest used at the end
        while len(_open) > KEPT_ACTORS:
            del _open[next(iter(_open))]
    return actor


_open: Final[dict[tuple[str, str], OnnxActor]] = {}
_opening: Final = threading.Lock()


def accept(policy: Policy) -> None:
    """Look through the file of a policy's actor, then have it tried in a process of its own.

    Raises: UsageError: it must not be loaded, with the reasons.
    """
    card = policy.card
    encoders = ENCODERS if card.kind == "flat" else COLUMNS_OF
    if card.encoder not in encoders:
        known = ", ".join(encoders)
        raise _unusable(policy, [Problem("encoder", repr(card.encoder), f"known are {known}")])
    # Refused without a process where a look is enough.
    if problems := problems_of(policy.actor):
        raise _unusable(policy, problems)
    tried(policy)


def open_session(policy: Policy) -> Any:
    """Return an ONNX Runtime session for a policy that was accepted.

    Raises: UsageError: the graph is none. PrerequisiteMissing: ONNX Runtime is not installed.
    """
    onnxruntime, _ = import_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    # Else it would also take its own format, which nothing here has looked through.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            policy.actor, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        reason = _first_line(error)
        raise _unusable(policy, [Problem("actor.onnx", reason, "an ONNX model")]) from error


def load_actor(policy: Policy) -> OnnxActor:
    """Load an accepted policy here and now, and decide with it a few times; see ``open_actor``."""
    session = open_session(policy)
    _check_interface(policy, session)
    actor = OnnxActor(policy.card, session)
    _try_out(policy, actor)
    return actor


def _check_interface(policy: Policy, session: Any) -> None:
    """Check names, types and sizes of inputs and outputs.

    Raises: UsageError: they are not those of the policy's kind and encoder.
    """
    card = policy.card
    width = _width_of(card)
    if card.kind == "flat":
        assert card.nodes is not None
        actions = card.nodes + 1
        shapes = {"observation": (1, width), MASK: (1, actions), OUTPUT: (1, actions)}
    else:
        shapes = {"features": (2, width)}
    types = {FEEDS[card.kind]: "tensor(float)", MASK: "tensor(bool)", OUTPUT: "tensor(float)"}
    inputs = {each.name: each for each in session.get_inputs()}
    outputs = {each.name: each for each in session.get_outputs()}
    expected = {FEEDS[card.kind], MASK}
    problems = []
    if set(inputs) != expected:
        seen, needed = ", ".join(sorted(inputs)), ", ".join(sorted(expected))
        problems.append(Problem("inputs", seen, f"those of a {card.kind} policy: {needed}"))
    if OUTPUT not in outputs:
        problems.append(Problem("outputs", ", ".join(sorted(outputs)), f"one called {OUTPUT}"))
    for name, found in {**inputs, **outputs}.items():
        if name in types and found.type != types[name]:
            problems.append(Problem(name, found.type, types[name]))
        if name in shapes:
            axis, size = shapes[name]
            known = found.shape[axis] if len(found.shape) > axis else 0
            # A size that is a name is free.
            if isinstance(known, int) and known != size:
                problems.append(
                    Problem(name, f"shape {found.shape}", f"{size} on axis {axis}, by its card")
                )
    if problems:
        raise _unusable(policy, problems)


def _try_out(policy: Policy, actor: OnnxActor) -> None:
    """Make a few decisions; also what is prepared on first use is then done.

    Raises: UsageError: one fails, or gives no distribution.
    """
    card = policy.card
    width = _width_of(card)
    if card.kind == "flat":
        assert card.nodes is not None
        mask = [True] * card.nodes + [False]
        for row in ([0.0] * width, _ramp(width)):
            _decide(policy, actor, row, mask)
        return
    for candidates in (3, 8):
        mask = [True] * (candidates - 1) + [False]
        for rows in ([[0.0] * width] * candidates, [_ramp(width)] * candidates):
            _decide(policy, actor, rows, mask)


def _ramp(width: int) -> list[float]:
    """As unlike each other as features are, from 0 to 1."""
    return [(7 * i % width) / width for i in range(width)]


def _decide(policy: Policy, actor: OnnxActor, features: list[Any], mask: list[bool]) -> None:
    try:
        given: Any = actor.probabilities(features, mask)
    except Exception as error:
        reason = _first_line(error)
        allowed = "a graph that runs and gives probabilities that add up to 1"
        raise _unusable(policy, [Problem("actor.onnx", reason, allowed)]) from error
    fine = isinstance(given, list) and len(given) == len(mask)
    fine = fine and all(isinstance(p, float) and 0.0 <= p <= 1.0 for p in given)
    if not fine or abs(sum(given) - 1.0) >= 1e-3 or given[-1] > 1e-6:
        raise _unusable(
            policy,
            [
                Problem(
                    OUTPUT,
                    f"{str(given)[:80]} for the mask {mask[:8]}",
                    "probabilities that add up to 1 and are 0 where masked",
                )
            ],
        )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _unusable(policy: Policy, problems: list[Problem]) -> UsageError:
    return UsageError(f"policy {policy.card.id} cannot be used", problems)
