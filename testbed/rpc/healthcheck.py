"""``python -m testbed.rpc.healthcheck ADDRESS [SERVICE]``: whether a process serves.

For container engines and scripts. Exit code 0: it serves; 1: it answers and does not serve, or
does not answer in time; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

TIMEOUT_S: Final = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Ask once; the exit code."""
    arguments = _parser().parse_args(argv)
    code, said = check(arguments.address, arguments.service, arguments.timeout)
    sys.stderr.write(f"{arguments.address}: {said}\n")
    return code


def check(address: str, service: str = "", timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Ask the health service at ``address`` for ``service``; the exit code and what was said."""
    # Read when gRPC is first imported; that nobody answers is said here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from testbed.rpc.channels import connect_unknown

    request = health_pb2.HealthCheckRequest(service=service)
    with connect_unknown(address) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return 1, error.code().name
    serving = reply.status == health_pb2.HealthCheckResponse.SERVING
    return int(not serving), health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m testbed.rpc.healthcheck", description="Ask a gRPC health service once."
    )
    parser.add_argument("address", help="host:port, or unix:/path")
    parser.add_argument("service", nargs="?", default="", help="default: the process as a whole")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
