"""``make bench``: run benchmarks and write their table to docs/benchmarks.md.

``python -m benchmarks`` runs all sections, ``python -m benchmarks network cli`` only those named;
the sections of the others stay in the page as they are. A section is a module
``benchmarks.bench_NAME`` with a function ``rows()``, and the first line of its docstring describes
it; no list has to be changed for a new one. A row has ``benchmark``, ``value``, ``unit`` and, where
a figure is asked for, ``at_most`` or ``at_least`` and ``met``.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import pkgutil
import platform
import re
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import benchmarks

PAGE: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"

_INTRODUCTION: Final = """# Benchmarks

Figures measured by `make bench` (all) or `.venv/bin/python -m benchmarks NAME...` (some), which
write this page; do not edit it. Each section says when and on what it was measured. A figure that
is asked for and missed says so in the last column; what limits it stands on the page of its
subject.

Times depend on the machine and on what else it does: compare ratios, and repeat on your own.
"""


def names() -> list[str]:
    """Return all benchmarks there are."""
    found = pkgutil.iter_modules(benchmarks.__path__)
    return sorted(m.name.removeprefix("bench_") for m in found if m.name.startswith("bench_"))


def descriptions() -> dict[str, str]:
    """Return the first sentence about each section, without importing it."""
    found = {}
    for name in names():
        source = (Path(__file__).parent / f"bench_{name}.py").read_text(encoding="utf-8")
        found[name] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return found


def _epilog() -> str:
    """Return the sections and their descriptions, one after another, for ``--help``."""
    wide = max(map(len, names())) + 4
    lines = ["sections:"]
    for name, text in descriptions().items():
        lead = f"  {name:{wide - 2}}"
        lines.append(textwrap.fill(text, 96, initial_indent=lead, subsequent_indent=" " * wide))
    return "\n".join(lines)


def section(name: str, rows: Sequence[Mapping[str, Any]], doc: str, seconds: float) -> str:
    """Return one section of the page: what was measured, where and when, and the table."""
    lines = [
        f"## {name}",
        "",
        doc.strip().split("\n\n")[0].replace("\n", " "),
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d} in {seconds:.0f} s: {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, load "
        f"{os.getloadavg()[0]:.1f} at the end.",
        "",
        "| benchmark | measured | asked | met |",
        "|---|---|---|---|",
    ]
    for row in rows:
        asked, met = "", ""
        for key, sign in (("at_most", "≤"), ("at_least", "≥")):
            if row.get(key) is not None:
                asked = f"{sign} {number(row[key])} {row['unit']}".rstrip()
                met = "yes" if row["met"] else "**no**"
        value = f"{number(row['value'])} {row['unit']}".rstrip()
        lines.append(f"| {row['benchmark']} | {value} | {asked} | {met} |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three significant digits, and large numbers with separators."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def merged(page: str, written: Mapping[str, str]) -> str:
    """``page`` with the sections in ``written`` put in or replaced, in order of their names."""
    parts = re.split(r"(?m)^(?=## )", page)
    sections = {part.split("\n", 1)[0][3:].strip(): part.strip() + "\n" for part in parts[1:]}
    sections.update(written)
    return "\n".join([_INTRODUCTION, *(sections[name] for name in sorted(sections))])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks named; exit status 1 if a figure that is asked for is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run benchmarks and write their table to docs/benchmarks.md.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="SECTION", help="default: all of them")
    chosen = parser.parse_args(arguments).names or names()
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(names())}")
    missed = 0
    for name in chosen:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        sys.stderr.write(f"{name} ...\n")
        start = time.perf_counter()
        rows = module.rows()
        written = section(name, rows, module.__doc__ or "", time.perf_counter() - start)
        page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        # After each, so that an interrupted campaign keeps what it has measured.
        PAGE.write_text(merged(page, {name: written}), encoding="utf-8")
        sys.stdout.write(written + "\n")
        missed += sum(row.get("met") is False for row in rows)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
