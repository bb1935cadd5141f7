"""``python -m trainer.results_server FOLDER --port PORT``: hand out the results of an experiment.

Runs in a pod that has the trainer's volume. It listens on the loopback interface of that pod, where
only port-forwards through the API server arrive. Checkpoints and data sets are left out: they are
large, and good for nothing but to go on.
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

FOLDERS: Final = ("report", "policies")
"""Folders of an experiment that are results, with figures and policies."""


def results(folder: Path) -> Iterator[Path]:
    """Yield what is handed out of the folder of an experiment: documents, and ``FOLDERS``."""
    yield from sorted(folder.glob("*.json"))
    for name in FOLDERS:
        if (folder / name).is_dir():
            yield folder / name


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server that answers every request with the results of ``folder``, as a tar file.

    ``port`` 0 is any that is free. Without results it answers 404.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = list(results(folder))
            if not found:
                self.send_error(HTTPStatus.NOT_FOUND, "no results yet")
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/x-tar")
            self.end_headers()
            with tarfile.open(fileobj=self.wfile, mode="w|gz") as archive:
                for path in found:
                    archive.add(path, arcname=path.name)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="Hand out the results of an experiment.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    server(arguments.folder, arguments.port).serve_forever()


if __name__ == "__main__":
    main()
