"""How the report's page looks: one style sheet, light and dark, for screen and print."""

from __future__ import annotations

CHIPS = {
    "pass": "good",
    "met": "good",
    "fail": "bad",
    "missed": "bad",
    "inconclusive": "open",
    "unknown": "open",
    "not measured": "open",
}

STYLE = """
:root{--ink:#1c2024;--soft:#5c6670;--paper:#fbfaf7;--card:#fff;--line:#e3e0d8;--good:#1f7a4d;--bad:#b3261e;--open:#96690a;
--good-bg:#e3f3ea;--bad-bg:#fbe6e4;--open-bg:#fbf0d9;--accent:#9c3b2e}
@media(prefers-color-scheme:dark){:root{--ink:#e7e5e0;--soft:#a2a8ae;--paper:#15181b;--card:#1d2125;--line:#32383d;
--good:#6fcf9b;--bad:#ff8a80;--open:#e8bd5c;--good-bg:#1c3327;--bad-bg:#3a2220;--open-bg:#36301d;--accent:#e58a78}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:960px;margin:0 auto;padding:32px 20px 64px}
header{border-left:6px solid var(--tone);padding:4px 0 4px 20px;margin-bottom:24px}
.good{--tone:var(--good);--tone-bg:var(--good-bg)}.bad{--tone:var(--bad);--tone-bg:var(--bad-bg)}
.open{--tone:var(--open);--tone-bg:var(--open-bg)}
.kicker{margin:0;color:var(--soft);font-size:12px;letter-spacing:.08em;text-transform:uppercase}
h1{margin:2px 0 4px;font-size:28px;line-height:1.2;overflow-wrap:anywhere}
.advice{margin:0;font-size:20px;font-weight:600;color:var(--tone)}
.lead{margin:6px 0;max-width:70ch;overflow-wrap:anywhere}.sub{margin:0;color:var(--soft);font-size:13px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-bottom:12px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tile b{display:block;font-size:21px;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:12.5px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:6px 20px 16px;margin-top:16px}
h2{font-size:17px;margin:12px 0 8px}section>p{margin:4px 0 10px;color:var(--soft);max-width:80ch}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--soft);font-weight:600;font-size:12px;padding:6px 12px 6px 0;
border-bottom:2px solid var(--line)}
td{padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:break-word}
.scroll+.scroll{margin-top:18px}ol{margin:4px 0;padding-left:22px}li{margin:3px 0;overflow-wrap:anywhere}
tbody tr:last-child td{border-bottom:0}td:first-child{font-weight:500}
.chip{display:inline-block;padding:0 9px;border-radius:99px;background:var(--tone-bg);color:var(--tone);font-weight:600;
font-size:12.5px;white-space:nowrap}
figure{margin:8px 0 14px}svg{width:100%;height:auto;display:block}
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}
svg .name{fill:var(--ink);font-size:13px}.grid{stroke:var(--line)}.margin{stroke:var(--bad);stroke-dasharray:4 4}
.area{fill:var(--accent);opacity:.13}.line{fill:none;stroke:var(--accent);stroke-width:2.5;stroke-linejoin:round}
.dot{fill:var(--card);stroke:var(--accent);stroke-width:2.5}
.whisker{stroke:var(--tone);stroke-width:3;stroke-linecap:round}circle.good,circle.bad,circle.open,.spot{fill:var(--tone)}
@media print{section,.tile{break-inside:avoid}body{background:#fff}}
"""
