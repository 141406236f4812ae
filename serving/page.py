"""A page for people: paste or pick a request, see its candidates ranked, and by what.

Plain HTML over any HTTP server: `ScoringPage.handle` takes a method, a path and a body, and
returns a status, a content type and bytes. It holds no state but the golden requests.

Example:
    >>> page = ScoringPage(lambda request: {"ctr": np.array([0.5])}, schema=None)
    >>> page.handle("GET", "/", b"")[:2]
    (200, 'text/html; charset=utf-8')
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np

from serving.batching import Scores
from serving.client import FeedbackClient
from serving.client_requests import load_requests, parse_json
from serving.errors import ServingError
from serving.page_html import FORM_SCRIPT, context, document, forms, history, join, ranked, tag
from serving.records import decode_record, golden_file, read_records
from tfrec_feedback.requests import RequestError, encode_requests
from tfrec_feedback.schema import Schema

Request = Mapping[str, Any]
Scorer = Callable[[Request], Scores]
Response = tuple[int, str, bytes]

MAX_BODY_BYTES = 1 << 20
"""Largest body taken. The HTTP server should refuse to read more."""
MOST_CANDIDATES = 10_000
_HTML = "text/html; charset=utf-8"
_LOG = logging.getLogger(__name__)
_PATHS = {"/": ("GET", "HEAD"), "/score": ("POST",)}


class ScoringPage:
    """Answers the requests of browsers.

    Args:
        scorer: returns the scores `[N]` of a request's candidates by task; called from any thread.
        schema: what a request holds; requests are checked against it, and histories shown in its
            order. None to leave the checks to the scorer.
        golden: requests to pick from.
        title: of the page.
    """

    def __init__(
        self,
        scorer: Scorer,
        schema: Schema | None,
        golden: Sequence[Request] = (),
        title: str = "Score a request",
    ):
        self._scorer = scorer
        self._schema = schema
        self._title = title
        self._golden = [pretty(request) for request in golden]
        self._names = [_name(index, request) for index, request in enumerate(golden)]

    @classmethod
    def of_client(
        cls,
        factory: Callable[[], FeedbackClient],
        schema: Schema | None = None,
        golden: Sequence[Request] = (),
        title: str = "Score a request",
    ) -> Self:
        """Returns a page that scores with a client, made on first use and kept."""
        lock, made = threading.Lock(), list[FeedbackClient]()

        def score(request: Request) -> Scores:
            with lock:
                if not made:
                    made.append(factory())
            return made[0].rank_many([request])[0]

        return cls(score, schema, golden, title)

    def handle(self, method: str, path: str, body: bytes) -> Response:
        """Answers one HTTP request.

        Args:
            method: `GET`, `HEAD` or `POST`.
            path: with its query: `/`, `/?golden=2` or `/score`.
            body: form with the field `request`, of `POST /score`.

        Returns:
            Status, content type and body. Never raises: errors are pages too.
        """
        try:
            address = urlsplit(path)
        except ValueError:
            return self._page(400, error="The address cannot be read.")
        if address.path not in _PATHS:
            return self._page(404, error="There is no such page. The form below is at /.")
        if method not in _PATHS[address.path]:
            allowed = " or ".join(_PATHS[address.path])
            return self._page(405, error=f"{address.path} is asked for with {allowed}.")
        if len(body) > MAX_BODY_BYTES:
            return self._page(413, error=f"A request may have {MAX_BODY_BYTES:,} bytes at most.")
        if address.path == "/":
            return self._show(address.query)
        return self._score(body)

    def _show(self, query: str) -> Response:
        try:
            chosen = _field(query, "golden")
        except RequestError as error:
            return self._page(400, error=str(error))
        if not chosen:
            return self._page(200)
        number = int(chosen) if chosen.isascii() and chosen.isdecimal() and len(chosen) < 10 else -1
        if not 0 <= number < len(self._golden):
            return self._page(404, error=f"There is no golden request {chosen[:20]!r}.")
        return self._page(200, text=self._golden[number], picked=number)

    def _score(self, body: bytes) -> Response:
        text = ""
        try:
            text = _field(body.decode("utf-8"), "request").replace("\r\n", "\n")
            request = parse_json(text, "request")
            self._check(request)
            result = self._result(request, self._scorer(request))
        except UnicodeDecodeError:
            return self._page(400, error="The form is not UTF-8 text.")
        except RequestError as error:
            return self._page(400, text, error=str(error))
        except ServingError as error:
            return self._page(502, text, error=f"The model server failed. {error}")
        except Exception:
            _LOG.exception("The scoring page failed")
            return self._page(500, text, error="Scoring failed; see the server's log.")
        return self._page(200, text, result=result)

    def _check(self, request: Any) -> None:
        """Raises `RequestError` for a request that does not fit."""
        if not isinstance(request, dict):
            raise RequestError(f"A request is a JSON object, not {type(request).__name__}.")
        if self._schema is not None:
            count = encode_requests(self._schema, [request])["num_candidates"][0]
            if count > MOST_CANDIDATES:
                raise RequestError(f"The page scores up to {MOST_CANDIDATES:,} candidates.")
        if not request.get("candidates"):
            raise RequestError("The request has no candidates: there is nothing to rank.")

    def _result(self, request: Request, scores: Scores) -> object:
        columns = as_columns(request["candidates"])
        count = len(next(iter(columns.values()), ()))
        if not count:
            raise RequestError("The request has no candidates: there is nothing to rank.")
        given = request.get("histories") or {}
        names = [h.name for h in self._schema.histories] if self._schema else list(given)
        parts: list[object] = [
            tag("h2", f"{count:,} candidate{'' if count == 1 else 's'}, best first"),
            ranked(columns, {task: np.asarray(values) for task, values in scores.items()}),
        ]
        if names:
            tables = [history(name, as_columns(given.get(name))) for name in names]
            parts.append(tag("h2", "Scored against these histories, most recent first"))
            parts.append(tag("div", *tables, class_="grid"))
        if request.get("context"):
            parts += [tag("h2", "Context"), context(request["context"])]
        return join(parts)

    def _page(
        self,
        status: int,
        text: str = "",
        *,
        picked: int | None = None,
        error: str = "",
        result: object = "",
    ) -> Response:
        intro = "Paste a request as JSON, or pick a golden one. Ctrl+Enter scores it."
        content = [
            tag("p", intro, class_="soft"),
            tag("p", error, class_="error", role="alert") if error else "",
            forms(self._names, picked, text),
            result,
        ]
        return status, _HTML, document(self._title, *content, script=FORM_SCRIPT)


def golden_requests(path: Path, schema: Schema) -> list[dict[str, Any]]:
    """Reads golden requests from `.tfrecord`, `.json` or `.jsonl`, or those of a published model.

    Args:
        path: the file, or a folder as `golden_file` takes it.
        schema: what the records of a `.tfrecord` hold.

    Raises:
        RequestError: for a file that is missing or holds no requests.
    """
    path = golden_file(path)
    if path.suffix == ".tfrecord" and path.is_file():
        records = enumerate(read_records(path))
        return [decode_record(schema, record, index) for index, record in records]
    return load_requests(path)


def as_columns(value: Any) -> dict[str, list[Any]]:
    """Returns candidates or a history as columns, whichever way they were written."""
    if isinstance(value, Mapping):
        return {str(name): list(column) for name, column in value.items()}
    if isinstance(value, Sequence) and value and all(isinstance(row, Mapping) for row in value):
        return {str(name): [row.get(name) for row in value] for name in value[0]}
    return {}


def pretty(request: Request) -> str:
    """Returns a request as JSON that a person can edit: one line a column, not one a value."""
    return _pretty(request, "")


def _pretty(value: Any, indent: str) -> str:
    nested = isinstance(value, Mapping) and any(
        isinstance(v, Mapping | list | tuple) for v in value.values()
    )
    if not nested:
        return json.dumps(value, ensure_ascii=False)
    inner = indent + "  "
    lines = [f"{inner}{json.dumps(str(k))}: {_pretty(v, inner)}" for k, v in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _name(index: int, request: Request) -> str:
    count = len(next(iter(as_columns(request.get("candidates")).values()), ()))
    first = next(iter((request.get("context") or {}).items()), None)
    user = f", {first[0]} {first[1]}" if first else ""
    return f"{index}{user}: {count} candidate{'' if count == 1 else 's'}"


def _field(form: str, name: str) -> str:
    try:
        return parse_qs(form, max_num_fields=10).get(name, [""])[0]
    except ValueError as error:
        raise RequestError("The form has too many fields.") from error
