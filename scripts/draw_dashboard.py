"""Draws the dashboard's panels as one SVG, from any Prometheus that has their data, where there is no Grafana.

python scripts/draw_dashboard.py http://localhost:9090 --namespace knative-lambda-dev --minutes 60 > dashboard.svg
"""

import argparse
import http.client
import json
import math
import time
from html import escape
from itertools import cycle
from typing import Any
from urllib.parse import urlencode, urlsplit

import dashboard

WIDTH, HEIGHT, GAP, COLUMNS = 300, 120, 16, 4
POINTS = 120
COLOURS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0")

UNITS = {"cps": "/s", "s": "s", "bytes": "B"}
"""Grafana's words for units, as people write them."""

Series = tuple[str, list[tuple[float, float]]]


def ask(server: str, expression: str, start: float, end: float) -> list[dict[str, Any]]:
    """The series of an expression between two moments."""
    place = urlsplit(server)
    step = max(1, round((end - start) / POINTS))
    parameters = urlencode({"query": expression, "start": start, "end": end, "step": step})
    connection = http.client.HTTPConnection(place.netloc, timeout=30)
    try:
        connection.request("GET", f"/api/v1/query_range?{parameters}")
        found: list[dict[str, Any]] = json.loads(connection.getresponse().read())["data"]["result"]
    finally:
        connection.close()
    return found


def series_of(panel: dashboard.Panel, server: str, namespace: str, start: float, end: float) -> list[Series]:
    """A panel's lines, by their legends."""
    lines = []
    for legend, expression in panel.queries.items():
        filled = expression.replace("$namespace", namespace).replace("$pod", ".*").replace("$__rate_interval", "1m")
        for found in ask(server, filled, start, end):
            name = legend
            for label, value in found["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            points = [(float(at), float(value)) for at, value in found["values"]]
            lines.append((name, [point for point in points if math.isfinite(point[1])]))
    return [line for line in lines if any(value for _, value in line[1])]


def drawn(panel: dashboard.Panel, lines: list[Series], start: float, end: float) -> str:
    """One panel: its title, its highest value, its lines, and their names."""
    top = max((value for _, points in lines for _, value in points), default=1.0)
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" rx="3" fill="#1f1f20"/>']
    parts.append(f'<text x="8" y="15" fill="#d8d9da">{escape(panel.title)}</text>')
    parts.append(
        f'<text x="{WIDTH - 8}" y="15" fill="#8e8e8e" text-anchor="end">{top:.3g} {UNITS.get(panel.unit, "")}</text>'
    )
    names = []
    for colour, (name, points) in zip(cycle(COLOURS), lines, strict=False):
        places = " ".join(
            f"{8 + (at - start) / (end - start) * (WIDTH - 16):.0f},{96 - value / top * 72:.0f}" for at, value in points
        )
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}"/>')
        names.append(f'<tspan fill="{colour}">{escape(name)}</tspan>')
    parts.append(f'<text x="8" y="113" font-size="8">{"  ".join(names[:5])}</text>')
    return "".join(parts)


def picture(server: str, namespace: str, start: float, end: float) -> str:
    """All panels."""
    panels = [panel for row in dashboard.ROWS.values() for panel in row]
    boxes = []
    for number, panel in enumerate(panels):
        x, y = number % COLUMNS * (WIDTH + GAP) + GAP, number // COLUMNS * (HEIGHT + GAP) + GAP
        content = drawn(panel, series_of(panel, server, namespace, start, end), start, end)
        boxes.append(f'<g transform="translate({x},{y})">{content}</g>')
    width, height = COLUMNS * (WIDTH + GAP) + GAP, math.ceil(len(panels) / COLUMNS) * (HEIGHT + GAP) + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    return f'{head} font-size="10"><rect width="100%" height="100%" fill="#111217"/>{"".join(boxes)}</svg>'


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the dashboard's panels from a Prometheus.")
    parser.add_argument("server", help="such as http://localhost:9090")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    known = parser.parse_args()
    now = time.time()
    print(picture(known.server, known.namespace, now - 60 * known.minutes, now))
