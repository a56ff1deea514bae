"""Draws the dashboard's panels as one SVG, from any Prometheus that has their data, where there is no Grafana.

python scripts/draw_dashboard.py http://localhost:9090 --namespace knative-lambda-dev --minutes 60 > dashboard.svg
"""

import argparse
import http.client
import json
import math
import time
from dataclasses import dataclass
from html import escape
from itertools import cycle, takewhile
from typing import Any
from urllib.parse import urlencode, urlsplit

import dashboard

WIDTH, HEIGHT, GAP, TITLE = 1200, 150, 10, 24
PLOT_TOP, PLOT_BOTTOM, MARGIN = 28, 112, 10
POINTS = 120
LETTER = 4.6
"""About the width of a small letter: a legend ends where the panel does."""
COLOURS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#5195ce", "#ba43a9", "#a99bdb")

Series = tuple[str, list[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at: whose data, and when. Times are in seconds since 1970."""

    server: str
    namespace: str
    start: float
    end: float
    rate_over: str


def ask(view: View, expression: str) -> list[dict[str, Any]]:
    """The series of an expression between two moments."""
    place = urlsplit(view.server)
    step = max(1, round((view.end - view.start) / POINTS))
    parameters = urlencode({"query": expression, "start": view.start, "end": view.end, "step": step})
    connection = http.client.HTTPConnection(place.netloc, timeout=30)
    try:
        connection.request("GET", f"/api/v1/query_range?{parameters}")
        found: list[dict[str, Any]] = json.loads(connection.getresponse().read())["data"]["result"]
    finally:
        connection.close()
    return found


def series_of(panel: dashboard.Panel, view: View) -> list[Series]:
    """A panel's lines, by their legends; the highest first."""
    lines = []
    values = {"$namespace": view.namespace, "$pod": ".*", "$__rate_interval": view.rate_over}
    for legend, expression in panel.queries.items():
        for variable, value in values.items():
            expression = expression.replace(variable, value)  # noqa: PLW2901 -- one after the other
        for found in ask(view, expression):
            name = legend
            for label, value in found["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            points = [(float(at), float(value)) for at, value in found["values"]]
            lines.append((name, [point for point in points if math.isfinite(point[1])]))
    return sorted((line for line in lines if line[1]), key=lambda line: -max(value for _, value in line[1]))


def spoken(value: float, unit: str) -> str:
    """A value as people write it; ``unit`` is Grafana's word."""
    match unit:
        case "bool_yes_no":
            return "yes" if value else "no"
        case "percentunit":
            return f"{value:.1%}"
        case "bytes":
            return f"{value / 2**20:.0f} MiB"
        case "s":
            return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
        case "cps":
            return f"{value:.3g}/s"
    return f"{value:.3g}"


def drawn(panel: dashboard.Panel, view: View, width: float) -> str:
    """One panel: its title, its scale, its lines, and their names."""
    lines = series_of(panel, view)
    top = max((value for _, points in lines for _, value in points), default=0) or 1.0
    plot = width - 2 * MARGIN

    def place(at: float, value: float) -> str:
        x = MARGIN + (at - view.start) / (view.end - view.start) * plot
        return f"{x:.0f},{PLOT_BOTTOM - value / top * (PLOT_BOTTOM - PLOT_TOP):.0f}"

    parts = [f'<rect width="{width:.0f}" height="{HEIGHT}" rx="3" fill="#1f1f24"/>']
    parts.append(f'<text x="{MARGIN}" y="17" fill="#d8d9da">{escape(panel.title)}</text>')
    right = f'x="{width - MARGIN:.0f}" fill="#8e8e8e" text-anchor="end" font-size="9"'
    parts.append(f'<text {right} y="17">{spoken(top, panel.unit)}</text>')
    heights = PLOT_TOP, (PLOT_TOP + PLOT_BOTTOM) // 2, PLOT_BOTTOM
    parts += [f'<path d="M{MARGIN} {y}h{plot:.0f}" stroke="#33343a"/>' for y in heights]
    for colour, (_, points) in reversed(list(zip(cycle(COLOURS), lines, strict=False))):
        places = " ".join(place(at, value) for at, value in points)
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
    names = [
        f'<tspan fill="{colour}">{escape(name)}</tspan>'
        for colour, name in zip(cycle(COLOURS), fitting([name for name, _ in lines], plot), strict=False)
    ]
    parts.append(f'<text x="{MARGIN}" y="{HEIGHT - 14}" font-size="9">{" &#160; ".join(names)}</text>')
    return "".join(parts)


def fitting(names: list[str], width: float) -> list[str]:
    """As many of them as one line has room for; three dots stand for the others."""
    ends = [LETTER * (sum(map(len, names[:count])) + 4 * count) for count in range(1, len(names) + 1)]
    there = len(list(takewhile(lambda end: end < width, ends)))
    return names if there == len(names) else [*names[:there], "…"]


def picture(view: View) -> str:
    """All panels, row by row."""
    boxes, y = [], GAP
    for title, row in dashboard.ROWS.items():
        boxes.append(f'<text x="{GAP}" y="{y + 14}" fill="#d8d9da" font-weight="bold">{escape(title)}</text>')
        y += TITLE
        width = (WIDTH - GAP) / len(row) - GAP
        for number, panel in enumerate(row):
            x = GAP + number * (width + GAP)
            boxes.append(f'<g transform="translate({x:.0f},{y})">{drawn(panel, view, width)}</g>')
        y += HEIGHT + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif"'
    return f'{head} font-size="11"><rect width="100%" height="100%" fill="#111217"/>{"".join(boxes)}</svg>'


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the dashboard's panels from a Prometheus.")
    parser.add_argument("server", help="such as http://localhost:9090")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate-over", default="1m", help="four scrape intervals, as Grafana does it (default: 1m)")
    known = parser.parse_args()
    now = time.time()
    print(picture(View(known.server, known.namespace, now - 60 * known.minutes, now, known.rate_over)))
