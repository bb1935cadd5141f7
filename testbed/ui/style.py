"""The style sheet of all pages."""

from __future__ import annotations

from typing import Final

from testbed.ui.palette import DARK, LIGHT

_RULES: Final = """
body { margin: 0; background: var(--page); color: var(--text); font-size: 15px; line-height: 1.45; }
a { color: var(--accent); }
h1 { font-size: 1.35rem; font-weight: 600; margin: 0; line-height: 1.3; }
h2 { font-size: 1rem; font-weight: 600; margin: 0; line-height: 1.3; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: 0.85em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 1px; }
.top { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 20px; width: 100%;
  padding: 8px 16px; background: var(--card); border-bottom: 1px solid var(--line); }
.top .brand { font-weight: 700; color: var(--text); text-decoration: none; }
.top nav { display: flex; flex-wrap: wrap; gap: 2px 4px; flex: 1; }
.top nav a { padding: 4px 10px; border-radius: 6px; text-decoration: none; color: var(--text); }
.top nav a:hover { background: var(--page); }
.top nav a[aria-current="page"] { font-weight: 600; box-shadow: inset 0 -2px var(--accent); }
.content { width: 100%; max-width: 1680px; margin: 0 auto; padding: 12px 16px 32px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 14px; min-width: 0; }
.muted { color: var(--muted); }
.good { color: var(--good); }
.warning { color: var(--warning); }
.bad { color: var(--bad); }
/* Quasar has elements of this class too. */
.row:not([class*="q-"]) { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; }
.stack { display: flex; flex-direction: column; gap: 12px; }
.grid { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
.chart { width: 100%; height: 260px; }
.number { font-variant-numeric: tabular-nums; }
table.plain { border-collapse: collapse; width: 100%; }
table.plain th { text-align: left; font-weight: 600; color: var(--muted); }
table.plain th, table.plain td { padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); }
table.plain td.number, table.plain th.number { text-align: right; }
.scroll { overflow-x: auto; }
.q-card, .q-menu, .q-dialog__inner > div { background: var(--card); color: var(--text); }
@media (max-width: 600px) {
  .content { padding: 8px 8px 24px; }
  .top { padding: 6px 8px; }
}
@media (prefers-reduced-motion: reduce) {
  * { transition: none !important; animation: none !important; }
}
"""


def sheet() -> str:
    """Return the style sheet, for light and dark pages."""
    return f"body {{ {LIGHT.variables()} }} body.body--dark {{ {DARK.variables()} }}{_RULES}"
