"""The load test as one HTML file: tables and inline pictures, nothing loaded from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from serving.page_html import Markup, document, join, table, tag

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 300, 64, 34, 14
_COLOURS = ("#0b7bc4", "#c2571a", "#2a8f5b", "#8a4fbf", "#b3850b", "#c23b6b", "#4b6f8f", "#7a7a2b")


def rows_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what was measured as rows of equal keys, for a table."""
    return [_row(_label(run), run) for run in report["runs"]]


def _row(label: str, run: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"run": label, "calls": run["calls"], "failed": run["failed"]}
    row["calls/s"] = f"{run['throughput']:.1f}"
    for name, value in run["latency_ms"].items():
        row[f"{name} ms"] = "-" if value is None else f"{value:.2f}"
    return row


def _label(run: Mapping[str, Any]) -> str:
    given = run.get("settings", {})
    texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in given.values()]
    names = [str(name).lstrip("-") for name in given]
    return ", ".join(f"{n} {text}" for n, text in zip(names, texts, strict=True)) or "as given"


def html_report(report: Mapping[str, Any]) -> bytes:
    """Returns the page of a report as `serving.loadtest` makes it."""
    content: list[object] = [tag("p", report["summary"], class_="soft")]
    if report["runs"]:
        content += [tag("h2", "Loads"), _table(rows_of(report))]
        lines = {_label(run): _points(run) for run in report["runs"]}
        content += [tag("h2", "Latency by percentile"), _lines(lines), _legend(list(lines))]
    if swap := report.get("rehearsal"):
        content += _swap(swap)
    if notes := report.get("notes"):
        content += [tag("h2", "Notes"), tag("ul", *(tag("li", note) for note in notes))]
    return document(report["title"], *content)


def _swap(swap: Mapping[str, Any]) -> list[object]:
    moments = swap["swap"]
    text = (
        f"Version {moments['from']} to {moments['to']}: published {moments['published_at']:.2f} s "
        f"into the load, answering from {moments['served_at']:.2f} s on. "
        f"{swap['failed']} failed, {swap['wrong']} wrong answers."
    )
    marks = [moments["published_at"], moments["served_at"]]
    caption = tag("p", "Latency over the load (s); lines: published, answering.", class_="soft")
    return [
        tag("h2", "Swap of versions"),
        tag("p", text),
        _dots(swap["timeline"], marks),
        caption,
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> Markup:
    names = list(rows[0]) if rows else []
    kinds = ["" if name == "run" else "number" for name in names]
    heads = [tag("th", n, class_=k) for n, k in zip(names, kinds, strict=True)]
    body = [
        tag("tr", *(tag("td", v, class_=k) for v, k in zip(row.values(), kinds, strict=True)))
        for row in rows
    ]
    return table(heads, body)


def _points(run: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in run["latency_ms"].items() if value is not None]


class _Scale:
    """Latencies on a logarithmic axis of whole decades' thirds: 1, 2, 5, 10, ..."""

    def __init__(self, values: Sequence[float]):
        positive = [max(value, 1e-3) for value in values] or [1.0]
        steps = [m * 10.0**e for e in range(-3, 8) for m in (1, 2, 5)]
        low = max(step for step in steps if step <= min(positive))
        high = min((step for step in steps if step >= max(positive)), default=steps[-1])
        high = high if high > low else steps[steps.index(low) + 1]
        self.ticks = [step for step in steps if low <= step <= high]
        self._low, self._span = math.log(low), math.log(high) - math.log(low)

    def y(self, value: float) -> float:
        share = (math.log(max(value, 1e-3)) - self._low) / self._span
        return _TOP + (1.0 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return tag(
        "text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, font_size=12,
        fill="currentColor",
    )  # fmt: skip


def _axes(scale: _Scale) -> list[Markup]:
    parts = []
    for tick in scale.ticks:
        y = f"{scale.y(tick):.1f}"
        line = {"x1": _LEFT, "x2": _WIDTH - 8, "y1": y, "y2": y}
        parts.append(tag("line", **line, stroke="currentColor", stroke_opacity="0.15"))
        parts.append(_text(_LEFT - 8, scale.y(tick) + 4, f"{tick:g} ms", "end"))
    return parts


def _svg(parts: Sequence[Markup], label: str) -> Markup:
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return tag("svg", *parts, viewBox=box, width=_WIDTH, role="img", aria_label=label)


def _lines(lines: Mapping[str, Sequence[tuple[str, float]]]) -> Markup:
    scale = _Scale([value for points in lines.values() for _, value in points])
    names = [name for name, _ in max(lines.values(), key=len, default=[])]
    step = (_WIDTH - _LEFT - 40) / max(1, len(names) - 1)
    parts = _axes(scale)
    parts += [_text(_LEFT + 16 + i * step, _HEIGHT - 12, n, "middle") for i, n in enumerate(names)]
    for index, points in enumerate(lines.values()):
        places = [(_LEFT + 16 + i * step, scale.y(v)) for i, (_, v) in enumerate(points)]
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(tag("polyline", points=path, fill="none", stroke=colour, stroke_width=2))
        parts += [tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, fill=colour) for x, y in places]
    return _svg(parts, "Latency by percentile, one line a load")


def _legend(labels: Sequence[str]) -> Markup:
    items = []
    for index, label in enumerate(labels):
        square = tag("rect", width=12, height=12, rx=2, fill=_COLOURS[index % len(_COLOURS)])
        sign = tag("svg", square, width=12, height=12, aria_hidden="true")
        items += [tag("span", sign, f" {label}", class_="key"), " "]
    return tag("p", join(items))


def _dots(timeline: Sequence[Sequence[float]], marks: Sequence[float]) -> Markup:
    scale = _Scale([latency for _, latency in timeline])
    end = max([moment for moment, _ in timeline] + list(marks) + [1e-3])

    def x(moment: float) -> float:
        return _LEFT + moment / end * (_WIDTH - _LEFT - 16)

    parts = _axes(scale)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_text(x(share * end), _HEIGHT - 12, f"{share * end:.1f}", "middle"))
    for mark in marks:
        line = {"x1": f"{x(mark):.1f}", "x2": f"{x(mark):.1f}", "y1": _TOP, "y2": _HEIGHT - _BOTTOM}
        parts.append(tag("line", **line, stroke=_COLOURS[1], stroke_width=2))
    parts += [
        tag("circle", cx=f"{x(m):.1f}", cy=f"{scale.y(v):.1f}", r=2, fill=_COLOURS[0],
            fill_opacity="0.6")
        for m, v in timeline
    ]  # fmt: skip
    return _svg(parts, "Latency of every call over the load")
