"""Pages for a web browser: ui."""

from __future__ import annotations

from typing import Annotated

import typer

from testbed.api import home
from testbed.cli import console
from testbed.cli.options import DEFAULT_NAME, Name, Storage
from testbed.errors import PrerequisiteMissing


def ui(
    name: Name = DEFAULT_NAME,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Address to listen on. One that others on the network reach shows them nothing "
            "without the token, but is not encrypted.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port", metavar="N", min=0, max=65535, help="Port to listen on; 0: a free one."
        ),
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address; open no browser.")
    ] = False,
    storage: Storage = None,
) -> None:
    """Show a testbed and its runs in a web browser, live, and steer it; until Ctrl-C.

    The address that is printed admits one browser. Needs `pip install 'edge-testbed[ui]'`.
    """
    try:
        from testbed.ui.context import Settings
        from testbed.ui.server import serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"nicegui", "fastapi", "uvicorn"}:
            raise
        raise PrerequisiteMissing(
            "the pages need NiceGUI", "pip install 'edge-testbed[ui]'"
        ) from None

    settings = Settings(
        name=name,
        task_log=home.choose_task_log(storage),
        artifacts=home.artifacts_url(None),
        data_sets=home.home() / home.DATA_SETS,
        options=home.options(),
    )

    def tell(address: str) -> None:
        # Also where only results are shown: without it the pages cannot be opened.
        console.out(address)
        console.flush()

    serve(settings, host=host, port=port, open_browser=not no_browser, tell=tell)
