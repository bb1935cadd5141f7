"""The generated protocol code is what ``make proto`` makes of the .proto files now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RPC = ROOT / "testbed" / "rpc"
WRITTEN_BY_HAND = {"__init__.py"}


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    protos = [f"testbed/rpc/generated/{path.name}" for path in RPC.glob("*.proto")]
    mapping = f"testbed/rpc/generated={RPC}"
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]

    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", mapping, *outputs, *protos],
        check=True,
        timeout=60,
    )

    fresh = {p.name: p.read_text() for p in (tmp_path / "testbed/rpc/generated").iterdir()}
    kept = {
        path.name: path.read_text()
        for path in (RPC / "generated").iterdir()
        if path.is_file() and path.name not in WRITTEN_BY_HAND
    }
    assert fresh == kept, "run `make proto`"
