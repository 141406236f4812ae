from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import FeedbackClient
from serving.server import FeedbackServer
from tests.serving.scaled_model import export_scaled_model
from tests.serving.tiny_model import export_tiny_model


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one version, 7, of the tiny model."""
    base = tmp_path_factory.mktemp("models") / "tiny"
    export_tiny_model(base / "7")
    return base


@pytest.fixture(scope="session")
def server(base_path: Path) -> Iterator[FeedbackServer]:
    with FeedbackServer(base_path, "tiny") as server:
        yield server


@pytest.fixture
def client(server: FeedbackServer) -> Iterator[FeedbackClient]:
    with FeedbackClient(server.target, "tiny") as client:
        yield client


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Exported models by scale, to be published as versions."""
    folder = tmp_path_factory.mktemp("templates")
    return {scale: export_scaled_model(folder / str(scale), scale) for scale in (1, 2)}
