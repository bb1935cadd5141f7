"""Rules of the live page, besides those of all pages."""

from __future__ import annotations

from typing import Final

_RULES: Final = """
.head { margin-bottom: 10px; }
.headline { overflow-wrap: anywhere; }
.testbeds { min-width: 150px; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); }
.tile h2 { font-size: 0.85rem; font-weight: 500; }
.tile p { margin: 0; }
.tile .value { font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums;
  line-height: 1.35; }
.tile p:last-child { font-size: 0.82rem; min-height: 2.5em; }
.live { display: grid; gap: 12px; grid-template-columns: minmax(0, 5fr) minmax(0, 8fr);
  align-items: start; }
.live .network .chart { height: 560px; }
.live .grid { grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); }
.live .grid .chart { height: 230px; }
.small { font-size: 0.82rem; margin: 0; }
.pre { white-space: pre-line; }
.problem { white-space: pre-wrap; margin: 0; overflow-wrap: anywhere; }
.problem:empty { display: none; }
.end { justify-content: flex-end; }
.dialog { width: min(560px, 92vw); max-width: none; padding: 18px 20px; }
.dialog p { margin: 0; }
.field { width: 100%; }
.command { display: flex; align-items: center; gap: 4px; min-width: 0; }
.command code { flex: 0 1 auto; overflow-x: auto; white-space: nowrap; padding: 4px 8px;
  border-radius: 6px; border: 1px solid var(--line); background: var(--page); }
dl.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 16px;
  margin: 0; }
dl.facts dt { color: var(--muted); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
ol.events { list-style: none; margin: 0; padding: 0; max-height: 300px; overflow-y: auto; }
ol.events li { display: flex; gap: 10px; padding: 3px 0; border-bottom: 1px solid var(--line); }
ol.events li span { overflow-wrap: anywhere; }
@media (max-width: 1000px) {
  .live { grid-template-columns: minmax(0, 1fr); }
  .live .network .chart { height: min(92vw, 520px); }
}
@media (max-width: 600px) {
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .tile { padding: 8px 10px; }
  .tile .value { font-size: 1.1rem; }
  .controls .q-btn { padding: 2px 8px; }
}
"""


def sheet() -> str:
    """Return the style sheet."""
    return _RULES
