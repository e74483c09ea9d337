"""A timeline as a page: one HTML file that loads nothing, the picture and a table of what it shows."""

from __future__ import annotations

import html
import re

from edge_ser.events import Emotion, Rejected
from edge_ser.timeline import Timeline, picture
from edge_ser.timeline.layout import clock
from edge_ser.timeline.words import headline, printable

_DARK_PAPER = "#16181b"
_DARK = {
    picture.PAPER: _DARK_PAPER,
    picture.INK: "#e8eaed",
    picture.FAINT: "#a0a6ae",
    picture.LANE: "#212428",
    picture.BAND: "#2c3a4b",
    picture.OTHER: "#5a616a",
    picture.WAVE: "#c5ccd5",
    picture.GRID: "#363b42",
    picture.HATCH: "#646c76",
}
_TINT = 0.25
_STYLE = """
:root { color-scheme: light dark; LIGHT }
@media (prefers-color-scheme: dark) { :root { DARK } }
body { background: var(--PAPER); color: var(--INK); font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }
.details { color: var(--FAINT); margin: 0 0 1rem; }
figure, .table { margin: 0 0 2rem; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 56rem; max-width: 96rem; height: auto; }
svg * { pointer-events: none; }
svg [id^="utterance-"] * { pointer-events: all; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.5rem; }
th, td { border-bottom: 1px solid var(--GRID); padding: 0.2rem 0.9rem 0.2rem 0; text-align: left; font-weight: 400; }
thead th { color: var(--FAINT); }
.number { text-align: right; }
.answer { font-weight: 700; }
"""


def html_page(timeline: Timeline) -> str:
    """Return the page; the same timeline gives the same text.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    title, details = (html.escape(text) for text in headline(timeline))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_style()}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="details">{details}</p>
<figure tabindex="0" role="group" aria-label="Timeline">
{_themed(picture.svg_picture(timeline))}</figure>
{_table(timeline)}
</main>
</body>
</html>
"""


def _colours() -> dict[str, tuple[str, str]]:
    """Return light and dark form of each of the picture's colours, by the name of its variable."""
    dark = {**_DARK, **{colour: colour for colour in picture.LABEL_COLOURS}}
    dark |= {tint: _mixed(colour, _DARK_PAPER) for colour, tint in picture.LABEL_COLOURS.items()}
    return {f"--c{light[1:]}": (light, dark[light]) for light in dark}


def _mixed(colour: str, paper: str) -> str:
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(paper[1:]), strict=True)
    return "#" + bytes(round(_TINT * over + (1 - _TINT) * under) for over, under in pairs).hex()


def _style() -> str:
    colours = _colours()
    style = _STYLE.replace("LIGHT", " ".join(f"{name}: {light};" for name, (light, _) in colours.items()))
    style = style.replace("DARK", " ".join(f"{name}: {dark};" for name, (_, dark) in colours.items()))
    for word in ("PAPER", "INK", "FAINT", "GRID"):
        style = style.replace(f"--{word}", f"--c{getattr(picture, word)[1:]}")
    return style


def _themed(svg: str) -> str:
    """Return an SVG, ready for a page, whose colours follow the page's."""
    known = _colours()
    body = svg[svg.index("<svg") :]
    # Only a style may name a variable.
    body = re.sub(r' fill="(#[0-9a-f]{6})"', r' style="fill: \1"', body)
    body = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", body))
    return re.sub(
        r'(style="[^"]*")',
        lambda style: re.sub(
            r"#([0-9a-f]{6})", lambda found: f"var(--c{found[1]})" if f"--c{found[1]}" in known else found[0], style[0]
        ),
        body,
    )


def _table(timeline: Timeline) -> str:
    if not timeline.results:
        return ""
    names = ["utterance", "from", "to", "answer", *map(printable, timeline.labels)]
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    rows = "\n".join(_row(result, timeline.labels) for result in timeline.results)
    return f"""<div class="table" tabindex="0" role="region" aria-label="Utterances">
<table>
<caption>Utterances, with the probability of each emotion</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""


def _row(result: Emotion | Rejected, labels: tuple[str, ...]) -> str:
    head = f'<th scope="row" class="number">{result.utterance}</th>'
    times = "".join(f'<td class="number">{clock(seconds)}</td>' for seconds in (result.start_s, result.end_s))
    if isinstance(result, Rejected):
        why = html.escape(result.reason.replace("_", " "))
        return f'<tr>{head}{times}<td>rejected: {why}</td><td colspan="{len(labels)}"></td></tr>'
    if result.uncertain:
        answer = f"<td>uncertain: {html.escape(' or '.join(map(printable, result.candidates)))}</td>"
    else:
        answer = f'<td class="answer">{html.escape(printable(result.emotion))}</td>'
    shares = "".join(f'<td class="number">{result.probabilities[label]:.2f}</td>' for label in labels)
    return f"<tr>{head}{times}{answer}{shares}</tr>"
