"""Rules of the pages about what is over, besides those of all pages."""

from __future__ import annotations

from typing import Final

from testbed.experiment import timeline

_RULES: Final = """
.filters { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 8px; }
.filters .search { grid-column: span 2; }
.command { display: flex; align-items: center; gap: 4px; min-width: 0; }
.command code { flex: 0 1 auto; overflow-x: auto; white-space: nowrap; padding: 4px 8px;
  border-radius: 6px; border: 1px solid var(--line); background: var(--page); }
main > h1 { margin: 2px 0 10px; }
.card ul, .q-card ul { margin: 0; padding-left: 1.3em; }
body.body--dark { color-scheme: dark; }
.tag + .tag { margin-left: 4px; }
.link .block { color: var(--accent); text-decoration: underline; font-size: 15px; }
.q-btn.link { min-height: 0; padding: 0 2px; }
.tag { display: inline-block; padding: 0 8px; border: 1px solid var(--line); border-radius: 10px;
  font-size: 0.8rem; white-space: nowrap; }
.state::before { content: "\\25cf"; margin-right: 0.35em; }
.running { color: var(--accent); }
table.plain td { vertical-align: top; }
table.plain td.number { white-space: nowrap; }
table.plain tr.chosen td { background: color-mix(in srgb, var(--accent) 12%, var(--card)); }
table.plain td.tick { width: 1%; padding: 2px 6px 0 0; }
a.nowrap { white-space: nowrap; }
table.plain td.nowrap, table.plain th.nowrap { white-space: nowrap; }
dl.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 16px;
  margin: 0; }
dl.facts dt { color: var(--muted); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
.pair { display: grid; gap: 12px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); }
.narrow { display: none; }
.indent { white-space: nowrap; }
.timeline { color: var(--text); }
.timeline .buttons button { color: var(--text); background: var(--page);
  border: 1px solid var(--line); border-radius: 6px; padding: 0 9px; margin-left: 4px;
  min-height: 26px; }
.timeline .ticks, .timeline .labels { color: var(--muted); }
.timeline .rule { fill: var(--line); }
@media (max-width: 900px) {
  .wide { display: none; }
  .narrow { display: block; }
  .filters .search { grid-column: 1 / -1; }
  dl.facts { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dl.facts dd { margin-bottom: 5px; }
}
"""


def sheet() -> str:
    """Return the style sheet."""
    return timeline.STYLE + _RULES
