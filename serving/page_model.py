"""The scoring page of a served model: of whichever version answers now.

A model server mounts it at its HTTP port. What the page needs is beside the model: the schema and
the golden requests of `assets.extra/`. Scores come from the server's own methods, without a
connection: neither certificates nor a second set of limits are needed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.batching import Scores
from serving.client_core import ClientCore
from serving.errors import ServingError
from serving.page import MOST_CANDIDATES, Request, Response, Scorer, ScoringPage, golden_requests
from serving.records import GOLDEN_FILE
from serving.wire import Method
from tfrec_feedback.requests import RequestError
from tfrec_feedback.schema import Schema, SchemaError

SCHEMA_FILE = "assets.extra/schema.json"
_LOG = logging.getLogger(__name__)

Answer = Callable[[Method, Any], Any]
"""Answers a message of a method with its response, or raises `ServingError`."""


class ModelPage:
    """A `ScoringPage` that follows its model from version to version.

    Args:
        model: name the model is served under.
        folder: returns the folder of the version that answers now, `<base>/<version>`; called for
            every request of a browser.
        answer: answers Predict and GetModelMetadata as the server does.

    Example:
        page = ModelPage("dfn", lambda: newest_folder(), server_answer)
        status, content_type, body = page.handle("GET", "/", b"")
    """

    def __init__(self, model: str, folder: Callable[[], Path], answer: Answer):
        self._model = model
        self._folder = folder
        self._answer = answer
        self._lock = threading.Lock()
        self._made: tuple[Path, ScoringPage] | None = None

    def handle(self, method: str, path: str, body: bytes) -> Response:
        """Answers one HTTP request, see `ScoringPage.handle`."""
        return self._page(self._folder()).handle(method, path, body)

    def _page(self, folder: Path) -> ScoringPage:
        with self._lock:
            if self._made is None or self._made[0] != folder:
                self._made = (
                    folder,
                    page_of_version(
                        folder, local_scorer(self._model, self._answer), self._title(folder)
                    ),
                )
            return self._made[1]

    def _title(self, folder: Path) -> str:
        return f"{self._model}, version {folder.name}"


def page_of_version(folder: Path, scorer: Scorer, title: str) -> ScoringPage:
    """Returns the page of one published version.

    Files that are missing or damaged cost the page what they hold, and nothing else: requests are
    then checked by the scorer, and there are none to pick from.

    Args:
        folder: `<base>/<version>`.
        scorer: see `ScoringPage`.
        title: see `ScoringPage`.
    """
    try:
        path = folder / SCHEMA_FILE
        schema = Schema.from_json(path) if path.is_file() else None
        golden = []
        if schema is not None and (folder / GOLDEN_FILE).is_file():
            golden = golden_requests(folder / GOLDEN_FILE, schema)
    except (SchemaError, RequestError, OSError, ValueError) as error:
        _LOG.warning("The scoring page of %s has no golden requests: %s", folder, error)
        schema, golden = None, []
    return ScoringPage(scorer, schema, golden, title)


def local_scorer(model: str, answer: Answer) -> Scorer:
    """Returns what scores requests as a client does, without a connection.

    Args:
        model: name the model is served under.
        answer: see `ModelPage`.
    """
    core = ClientCore(model, None, None, None, MOST_CANDIDATES)

    def score(request: Request) -> Scores:
        steps = core.rank_many([request])
        try:
            call = next(steps)
            while True:
                try:
                    response = answer(call.method, call.request)
                except ServingError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(response)
        except StopIteration as done:
            scores: Scores = done.value[0]
            return scores

    return score
