"""The scoring page at `/` of a server's HTTP port, of the version that answers now."""

from __future__ import annotations

import threading
from pathlib import Path

from serving import wire
from serving.http_port import Answer
from serving.manager import ModelManager
from serving.page_model import ModelPage
from serving.servicer import Servicer

_TEXT = "text/plain; charset=utf-8"


class ServedPage:
    """Mounts the page of one of a server's models: the first by name.

    Args:
        manager: the models.
        servicer: answers as it answers callers.
    """

    def __init__(self, manager: ModelManager, servicer: Servicer):
        self._manager = manager
        self._servicer = servicer
        self._lock = threading.Lock()
        self._made: tuple[str, ModelPage] | None = None

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """Answers one HTTP request."""
        names = self._manager.names()
        if not names:
            return 404, _TEXT, b"No model is served.\n"
        return self._page(names[0]).handle(method, path, body)

    def _page(self, name: str) -> ModelPage:
        # The list of models may change while the server runs.
        with self._lock:
            if self._made is None or self._made[0] != name:
                page = ModelPage(name, lambda: self._folder(name), self._servicer.answer)
                self._made = (name, page)
            return self._made[1]

    def _folder(self, name: str) -> Path:
        with self._manager.lease(wire.ModelSpec(name=name)) as model:
            return model.path
