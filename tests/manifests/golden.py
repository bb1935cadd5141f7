"""``python -m tests.manifests.golden``: write anew what each overlay is expected to render."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from tests.manifests.objects import OVERLAYS, WITH_TRAINER, Object, documents, rendered

FOLDER: Final = Path(__file__).parent / "golden"
RENDERINGS: Final = (*OVERLAYS, WITH_TRAINER)
_HEADER: Final = "# Written by `make golden`.\n"


def expected(rendering: str) -> list[Object]:
    """What a rendering is expected to be."""
    return documents(FOLDER / f"{rendering}.yaml")


def main() -> None:
    """Write all files."""
    for rendering in RENDERINGS:
        text = yaml.safe_dump_all(rendered(rendering), width=100)
        (FOLDER / f"{rendering}.yaml").write_text(_HEADER + text)


if __name__ == "__main__":
    main()
