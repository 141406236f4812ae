"""The look of the scoring page: escaped by construction, and nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from serving.batching import Scores
from serving.client_requests import readable

MOST_ROWS = 200
"""Candidates, and events of a history, that are drawn; more make a page nobody reads."""
_LONGEST_CELL = 120
_BAR = 90


class Markup(str):
    """Text that is HTML already. All other text is escaped where it enters the page."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Returns an element.

    Args:
        name: of the element.
        children: markup, or anything else as text.
        attributes: a trailing underscore is dropped, other underscores are dashes; True stands
            for an attribute without a value, False for none.

    Example:
        >>> tag("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    text = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            text.append(f" {key}")
        elif value is not False:
            text.append(f' {key}="{html.escape(str(value))}"')
    inner = join(children)
    return Markup(f"<{name}{''.join(text)}>{inner}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Returns parts one after the other; what is not markup is escaped."""
    return Markup(
        "".join(part if isinstance(part, Markup) else html.escape(str(part)) for part in parts)
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1a1d21; --soft: #5c6570; --line: #d9dee4; --back: #fff;
  --panel: #f6f8fa; --accent: #0b62a8; --bar: #0b7bc4; --bar2: #c2571a; --bad: #a3182b;
  --badback: #fdecee; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #353b43;
  --back: #16181b; --panel: #1e2226; --accent: #6db8f2; --bar: #4aa3e0; --bar2: #e28a52;
  --bad: #ff9aa8; --badback: #3a1c22; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1.25rem 4rem; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
h3 { font-size: .95rem; margin: 0 0 .4rem; }
p { margin: .25rem 0 .75rem; } .soft { color: var(--soft); }
form { margin: .75rem 0; }
label { display: block; font-weight: 600; margin: .75rem 0 .25rem; }
textarea { width: 100%; height: 17rem; resize: vertical; padding: .7rem; line-height: 1.45;
  font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
textarea, select { color: var(--ink); background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; }
select { font: inherit; padding: .4rem .5rem; max-width: 100%; }
button { font: inherit; font-weight: 600; padding: .45rem 1.1rem; border-radius: 6px;
  border: 1px solid var(--accent); background: var(--accent); color: var(--back); cursor: pointer; }
button.quiet { background: none; color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.error { background: var(--badback); color: var(--bad); border-left: 4px solid var(--bad);
  border-radius: 4px; padding: .7rem 1rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .75rem; border-bottom: 1px solid var(--line);
  vertical-align: top; max-width: 22rem; overflow-wrap: break-word; }
thead th { background: var(--panel); font-size: .85rem; color: var(--soft); white-space: nowrap;
  position: sticky; top: 0; }
tbody tr:last-child > * { border-bottom: 0; }
.number { text-align: right; white-space: nowrap; } .score { white-space: nowrap; }
.score svg { vertical-align: middle; margin-left: .6rem; }
svg { max-width: 100%; } .key { display: inline-block; margin-right: 1rem; white-space: nowrap; }
.score0 rect { fill: var(--bar); } .score1 rect { fill: var(--bar2); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
.grid table { font-size: .85rem; } .grid th, .grid td { padding: .3rem .5rem; }
.grid .scroll { max-height: 22rem; overflow-y: auto; }
"""
_PLACEHOLDER = """{
  "context": {"user_id": 7, ...},
  "histories": {"click": {"item_id": [10, 12], ...}, ...},
  "candidates": {"item_id": [11, 13, 17], ...}
}"""
FORM_SCRIPT = """
const pick = document.getElementById("golden");
if (pick) {
  pick.addEventListener("change", () => pick.form.submit());
  document.getElementById("load").hidden = true;
}
document.getElementById("request").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form.requestSubmit();
});
"""


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def document(title: str, *content: object, script: str = "") -> bytes:
    """Returns a whole page.

    Args:
        title: of the page, and its heading.
        content: markup, or text.
        script: the one script that may run. Should a hole ever let markup through, the page's
            policy still stops any other.
    """
    scripts = _hash(script) if script else "'none'"
    policy = f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {scripts}; "
    policy += "form-action 'self'; base-uri 'none'"
    head = join(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            tag("title", title),
            tag("style", Markup(_STYLE)),
        ]
    )
    last = tag("script", Markup(script)) if script else ""
    body = tag("body", tag("h1", title), *content, last)
    text = f"<!doctype html>\n{tag('html', tag('head', head), body, lang='en')}\n"
    # A lone surrogate of a request is no UTF-8; it must not take the page with it.
    return text.encode("utf-8", "replace")


def forms(golden: Sequence[str], picked: int | None, text: str) -> Markup:
    """Returns the two forms: golden requests by name, and the request to score."""
    choices = []
    if golden:
        options = [tag("option", "choose one …", value="", selected=picked is None)]
        options += [
            tag("option", name, value=index, selected=index == picked)
            for index, name in enumerate(golden)
        ]
        choices = [
            tag("label", "Golden request", for_="golden"),
            tag("select", *options, id="golden", name="golden"),
            " ",
            tag("button", "Load", id="load", class_="quiet"),
        ]
    # The parser drops the first newline of a text area: this one, not the request's.
    content = join(["\n", text])
    area = tag(
        "textarea", content, id="request", name="request", spellcheck="false", required=True,
        placeholder=_PLACEHOLDER,
    )  # fmt: skip
    score = join(
        [tag("label", "Request (JSON)", for_="request"), area, tag("p", tag("button", "Score"))]
    )
    return join(
        [
            tag("form", *choices, action="/", method="get") if choices else "",
            tag("form", score, action="/score", method="post"),
        ]
    )


def ranked(columns: Mapping[str, Sequence[Any]], scores: Scores) -> Markup:
    """Returns the table of the candidates `[N]`, best first, all scores beside their features."""
    first = scores["ctr"] if "ctr" in scores else next(iter(scores.values()))
    order = np.argsort(-np.asarray(first), kind="stable").tolist()
    heads = [tag("th", "rank", class_="number"), *(tag("th", name) for name in columns)]
    heads += [tag("th", task) for task in scores]
    rows = []
    for rank, n in enumerate(order[:MOST_ROWS], 1):
        cells = [tag("td", rank, class_="number")]
        cells += [tag("td", cell(column[n])) for column in columns.values()]
        cells += [_score(index, scores[task], n) for index, task in enumerate(scores)]
        rows.append(tag("tr", *cells))
    drawn = table(heads, rows)
    left = len(order) - MOST_ROWS
    note = tag("p", f"and {left:,} more with lower scores", class_="soft") if left > 0 else ""
    return join([drawn, note])


def _score(index: int, values: np.ndarray, n: int) -> Markup:
    low, high = min(0.0, float(np.min(values))), float(np.max(values))
    share = (float(values[n]) - low) / (high - low) if high > low else 0.0
    rect = tag("rect", height=8, width=f"{_BAR * share:.1f}", rx=2)
    bar = tag("svg", rect, width=_BAR, height=8, aria_hidden="true")
    return tag("td", f"{values[n]:.4f}", bar, class_=f"score score{index % 2}")


def history(name: str, columns: Mapping[str, Sequence[Any]]) -> Markup:
    """Returns the table of a history's events `[T]`, the most recent first."""
    length = len(next(iter(columns.values()), ()))
    title = tag("h3", f"{name}: {length:,} event{'' if length == 1 else 's'}")
    if not length:
        return tag("section", title, tag("p", "none", class_="soft"))
    heads = [tag("th", column) for column in columns]
    rows = [
        tag("tr", *(tag("td", cell(column[t])) for column in columns.values()))
        for t in reversed(range(max(0, length - MOST_ROWS), length))
    ]
    return tag("section", title, table(heads, rows))


def context(values: Mapping[str, Any]) -> Markup:
    """Returns the table of the context's features."""
    rows = [tag("tr", tag("th", name), tag("td", cell(v))) for name, v in values.items()]
    return table([tag("th", "feature"), tag("th", "value")], rows)


def table(heads: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
    """Returns a table that scrolls where it is too wide."""
    head, body = tag("thead", tag("tr", *heads)), tag("tbody", *rows)
    return tag("div", tag("table", head, body), class_="scroll")


def cell(value: Any) -> str:
    """Returns a value as a cell shows it: lists with commas, long text cut."""
    listed = isinstance(value, list | tuple)
    text = ", ".join(str(readable(v)) for v in value) if listed else str(readable(value))
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
