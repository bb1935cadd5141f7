"""The home of the toolkit: one folder per user unless told otherwise.

``HOME/artifacts`` holds the policies of all testbeds of the home, ``HOME/datasets`` data sets,
``HOME/o2o`` learning experiments, ``HOME/learn`` what testbeds learned where they run;
``HOME/tasklog.sqlite`` is the task log that all testbeds and simulations of the home share, so
that runs can be compared after the testbeds they were made on are gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from pathlib import Path
from typing import Final

from testbed import environment
from testbed.api import notices
from testbed.errors import Problem, UsageError
from testbed.scenario.secrets import split_password

TASK_LOG: Final = "tasklog.sqlite"
ARTIFACTS: Final = "artifacts"
DATA_SETS: Final = "datasets"
EXPERIMENTS: Final = "o2o"


_chosen: list[Path] = []
_controllers: list[str] = []
_plaintext: list[bool] = []


def choose(path: Path | None, *, look: bool = True) -> None:
    """Make ``path`` (of ``--home``) the home of this command; None: what the environment says.

    Without ``look`` nothing is refused or changed: the command says itself what is wrong.
    """
    # A Path has lost the second slash of a URL.
    if path is not None and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(path)):
        raise UsageError(
            "the home cannot be used",
            [Problem("--home", f"{path} is a URL", "a folder; task logs at URLs: --storage URL")],
        )
    # From the root: whoever reads it later may stand in another folder.
    _chosen[:] = [] if path is None else [_expanded(path, "--home").absolute()]
    if look:
        _check(home())
        _protect(home())


def _expanded(path: Path, where: str) -> Path:
    """``path`` with the home of a user in place of ``~``.

    Raises: UsageError: there is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise UsageError(
            "the home cannot be used",
            [Problem(where, f"{path} begins with a user that this machine does not know", _A_HOME)],
        ) from None


_A_HOME: Final = "a folder, which need not exist yet"


def _check(folder: Path) -> None:
    """Return if ``folder`` is one, or could be made.

    Raises: UsageError: it, or what it lies in, is something else.
    """
    for part in (folder, *folder.parents):
        seen = ""
        try:
            if part.is_symlink() and not part.exists():
                seen = f"{part} is a symbolic link that leads nowhere"
            elif part.exists():
                if part.is_dir():
                    return
                seen = f"{part} is a file"
        except OSError as error:
            seen = f"{(error.strerror or str(error)).lower()}: {part}"
        except ValueError:
            seen = "it has a zero byte"
        if seen:
            raise UsageError("the home cannot be used", [Problem("--home", seen[:300], _A_HOME)])


def _protect(folder: Path) -> None:
    """Keep other users out of a home that is there; others than its owner cannot."""
    # Of one that somebody else owns, or that holds nothing of ours, the mode is theirs to choose.
    marks = (TASK_LOG, ARTIFACTS, DATA_SETS, ".places")
    ours = [folder / name for name in marks if (folder / name).exists()]
    with contextlib.suppress(OSError):
        for path in (folder, *ours) if ours else ():
            status = path.stat()
            if status.st_uid == os.getuid() and status.st_mode & 0o077:
                path.chmod(status.st_mode & 0o700)


def options() -> str:
    """Return the options that lead to this home and controller again, as one would type them.

    Empty where the environment, or the default, does.
    """
    given = []
    if _chosen and os.environ.get(environment.HOME) != str(_chosen[0]):
        given.append(f"--home {shlex.quote(str(_chosen[0]))}")
    if _controllers and os.environ.get(environment.CONTROLLER) != _controllers[0]:
        given.append(f"--controller {shlex.quote(_controllers[0])}")
    if plaintext() and not os.environ.get(environment.INSECURE_PLAINTEXT):
        given.append("--insecure-plaintext")
    return " ".join(given)


def home() -> Path:
    """``--home``, or ``$TESTBED_HOME``, or ``edge-testbed`` in the user's folder for state.

    The folder need not exist yet.
    """
    if _chosen:
        return _chosen[0]
    if given := os.environ.get(environment.HOME):
        return _expanded(Path(given), environment.HOME).absolute()
    state = os.environ.get("XDG_STATE_HOME")
    if state and Path(state).is_absolute():
        return Path(state) / "edge-testbed"
    base = _expanded(Path("~/.local/state"), "HOME").absolute()
    return base / "edge-testbed"


def choose_task_log(given: str | None, of_scenario: str | None = None) -> str:
    """Return the URL of the task log asked for, else the scenario's, else that of the home.

    Moves a password from the URL into the environment of this process, where the task log looks
    for it, so that it is in nothing that is shown, stored or passed on from here. A file gets an
    absolute path, as it may be read later from another folder.
    """
    url, password = split_password(given or of_scenario or str(home() / TASK_LOG))
    if password is not None:
        os.environ[environment.MYSQL_PASSWORD] = password
        if given != os.environ.get(environment.STORAGE):
            notices.warn(
                "others on this machine can see the password in the list of processes; better set "
                f"{environment.MYSQL_PASSWORD}, or name a file: ?password_file=PATH"
            )
    prefix = "sqlite:///" if url.startswith("sqlite:///") else ""
    path = url.removeprefix(prefix)
    return url if "://" in path else f"{prefix}{Path(path).expanduser().absolute()}"


def artifacts_url(given: str | None, of_scenario: str | None = None) -> str:
    """Return the artifact store asked for, else the scenario's, else that of the home.

    ``$TESTBED_ARTIFACTS`` asks for one too, in commands without the option.
    """
    asked = given or os.environ.get(environment.ARTIFACTS)
    url = asked or of_scenario or str(home() / ARTIFACTS)
    return url if "://" in url else str(Path(url).expanduser().absolute())


def choose_controller(address: str | None, *, plaintext: bool = False) -> None:
    """Make ``address`` (of ``--controller``) what this command talks to; None: testbeds here.

    ``plaintext``: without encryption, and with a token that all parties of the testbed share.
    """
    _controllers[:] = [address] if address else []
    _plaintext[:] = [plaintext]


def plaintext() -> bool:
    """Return whether this command may talk to a controller without encryption."""
    return bool(_plaintext and _plaintext[0])


def controller() -> str | None:
    """Return the address of the controller to talk to; None: a testbed of the home, by its name."""
    return _controllers[0] if _controllers else None
