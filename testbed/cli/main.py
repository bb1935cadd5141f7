"""The ``testbed`` command: its common options, and errors turned into exit codes.

What it imports every command pays for; the commands themselves are in ``commands``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer

from testbed import environment, foreign
from testbed.api import home, places
from testbed.cli import console, streams
from testbed.cli.commands import MARKUP, Commands
from testbed.cli.exit_codes import INTERRUPTED, TERMINATED, UNEXPECTED
from testbed.errors import PermanentError, PrerequisiteMissing, TestbedError, UsageError

_OBJECTS: Final = 200_000
"""New objects after which cycles among them are looked for."""

app = typer.Typer(
    name="testbed",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="Start with: testbed up quickstart",
)


@app.callback()
def root(
    command: typer.Context,
    home_folder: Annotated[
        Path | None,
        typer.Option(
            "--home",
            metavar="DIR",
            envvar=environment.HOME,
            help="Folder for testbeds and their task log.",
        ),
    ] = None,
    controller: Annotated[
        str | None,
        typer.Option(
            "--controller",
            metavar="HOST:PORT",
            envvar=environment.CONTROLLER,
            help="Talk to this controller, started by other means; TESTBED_CREDENTIALS names the "
            "operator's file.",
        ),
    ] = None,
    insecure_plaintext: Annotated[
        bool,
        typer.Option(
            "--insecure-plaintext",
            envvar=environment.INSECURE_PLAINTEXT,
            help="Talk to --controller without encryption; its token is in TESTBED_TOKEN.",
        ),
    ] = False,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            envvar=environment.RUNTIME,
            help="Where testbeds run: local (processes of this machine), kind (pods of a kind "
            "cluster that is made for them), cluster (pods of a cluster that exists), or the name "
            "that an installed package gives its own. Default: where it was brought up.",
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            envvar=environment.CONTEXT,
            help="Context of the cluster in the kubeconfig. Default: the current one.",
        ),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            "--kubeconfig", metavar="FILE", help="Kubeconfig. Default: as kubectl finds it."
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            metavar="NAME",
            envvar=environment.NAMESPACE,
            help="Namespace that was created for the testbed. Default: `up` creates one.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Results, warnings and errors only.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Bring an edge network up on this machine, run schedulers on it, see what happened.

    The options below may stand before or after the command.
    """
    # First, so that errors about the other options respect --quiet and --debug.
    console.voice.quiet = quiet
    console.voice.debug = debug
    home.choose(home_folder, look=command.invoked_subcommand != "doctor")
    home.choose_controller(controller, plaintext=insecure_plaintext)
    places.choose(runtime, context, kubeconfig, namespace)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; never raises."""
    try:
        try:
            # Typer ends every way of its own (help, wrong usage, Ctrl-C) with SystemExit.
            app(_hoisted(arguments), prog_name="testbed")
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        _tell_notes(_interrupt_behind(end))
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt as error:
        _tell_notes(error)
        return INTERRUPTED
    except TestbedError as error:
        _traceback_if_wanted()
        console.error(str(error))
        _tell_notes(error)
        return error.exit_code
    except BrokenPipeError:
        _drop_output()
        return TestbedError.exit_code
    except UnicodeEncodeError as error:
        _traceback_if_wanted()
        console.error(
            f"{ascii(error.object)[:200]} holds bytes that are not {error.encoding} text; "
            "give arguments and names of files in UTF-8"
        )
        return UsageError.exit_code
    except OSError as error:
        # Commands say more where they expect it; what is left is output to a full disk and alike.
        _traceback_if_wanted()
        _drop_output()
        console.error(f"{error.filename or 'output'}: {(error.strerror or str(error)).lower()}")
        return PermanentError.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort, which says how to see more
        _traceback_if_wanted()
        if isinstance(error, ImportError | AttributeError) and (other := _other_package()):
            console.error(str(other))
            return other.exit_code
        console.error(f"unexpected {type(error).__name__}: {error}")
        _tell_notes(error)
        if not console.voice.debug:
            sys.stderr.write("This is a defect. Repeat the command with --debug to see where.\n")
        return UNEXPECTED
    return 0


def main() -> None:
    """Run the command line of this process; the console script."""
    terminated: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        # A second one must not break into the cleaning up, which is the same as after Ctrl-C.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        terminated.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    # Most of a short command is imports, whose objects all stay: looking for cycles among them
    # takes a twentieth of its time.
    gc.set_threshold(_OBJECTS)
    # What a command makes it has to be able to use, whatever the umask.
    os.umask(os.umask(0o077) & 0o077)
    streams.prepare()
    foreign.guard()
    code = run(sys.argv[1:])
    if terminated or code == INTERRUPTED:
        _leave(TERMINATED if terminated and code == INTERRUPTED else code)
    # At its end the interpreter looks for cycles among all objects, which takes seconds where
    # PyTorch and Ray are loaded. What it would free is freed by the end of the process.
    gc.freeze()
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End the process now, once what is registered for its end is done.

    The interpreter would first wait for all threads, also for those that compute what nobody wants
    any more, and free all objects one by one.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _other_package() -> PrerequisiteMissing | None:
    """Return whose package stands where one of ours should, if that explains a failed import."""
    found = (foreign.problem_of(name, thorough=True) for name in foreign.OWN)
    return next((each for each in found if each is not None), None)


def _drop_output() -> None:
    """Discard further output to stdout, which would be written again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


_VALUED: Final = frozenset(
    {"--home", "--controller", "--runtime", "--context", "--kubeconfig", "--namespace"}
)
_FLAGS: Final = frozenset({"--quiet", "-q", "--debug", "--insecure-plaintext"})
_JOINED: Final = tuple(f"{option}=" for option in sorted(_VALUED))


def _hoisted(arguments: Sequence[str]) -> list[str]:
    """Return ``arguments`` with the root's options before the command, wherever they stood."""
    first: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument in _FLAGS or argument.startswith(_JOINED):
            first.append(argument)
        elif argument in _VALUED:
            first += [argument, *([value] if (value := next(waiting, None)) is not None else [])]
        else:
            rest.append(argument)
    return first + rest


def _interrupt_behind(end: SystemExit) -> BaseException | None:
    """Return the Ctrl-C that Typer has turned into ``end``; None if that is not why it ends."""
    found: BaseException | None = end
    while found is not None and not isinstance(found, KeyboardInterrupt):
        found = found.__context__
    return found


def _tell_notes(error: BaseException | None) -> None:
    """Print what was noted about an error on its way: what is kept, what could not be removed."""
    for note in getattr(error, "__notes__", ()):
        console.warn(note)


def _traceback_if_wanted() -> None:
    if console.voice.debug:
        import traceback

        traceback.print_exc()
