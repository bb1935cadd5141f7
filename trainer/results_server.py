"""``python -m trainer.results_server FOLDER... --port PORT``: hand out the results of a trainer.

Runs in a pod that has the trainer's volume. It listens on the loopback interface of that pod, where
only port-forwards through the API server arrive. Checkpoints and data sets are left out: they are
large, and good for nothing but to go on.
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

FOLDERS: Final = ("report", "policies")
"""Folders of an experiment that are results, with figures and policies."""


FILES: Final = ("*.json", "curve.*")
"""Documents, and the curve of ``testbed learn`` as data and as pictures."""


def results(folder: Path) -> Iterator[Path]:
    """Yield what is handed out of a trainer's folder: ``FILES`` and ``FOLDERS``."""
    for pattern in FILES:
        yield from sorted(folder.glob(pattern))
    for name in FOLDERS:
        if (folder / name).is_dir():
            yield folder / name


def server(folders: Sequence[Path], port: int) -> ThreadingHTTPServer:
    """Return a server that answers every request with the results in ``folders``, as a tar file.

    ``port`` 0 is any that is free. Without results it answers 404.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = [path for folder in folders for path in results(folder)]
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
    parser = argparse.ArgumentParser(description="Hand out the results of a trainer.")
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    server(arguments.folders, arguments.port).serve_forever()


if __name__ == "__main__":
    main()
