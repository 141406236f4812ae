"""Both images, built and run without a daemon: `pytest -m slow tests/deploy`.

Figures (size, seconds) are logged, see them with `--log-cli-level=INFO`. BASE_IMAGE and EXTRA_BUILD
are those of `docker/image.sh`: where pip reaches its index through a configuration of the machine,
EXTRA_BUILD holds a --volume of it.
"""

import json
import logging
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from serving.client import FeedbackClient
from serving.errors import ServingError
from tests.serving.tiny_model import CTR, DISLIKE, REQUEST, export_tiny_model

_LOG = logging.getLogger(__name__)
ROOT = Path(__file__).parents[2]
NAME = "tfrec-feedback-test"
TOOLS = [tool for tool in ("podman", "runc", "debootstrap") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(TOOLS), reason=f"not installed: {TOOLS}, see docker/image.sh"),
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap and chroot builds need root"),
]


def script(*arguments, image=f"localhost/{NAME}"):
    environment = {**os.environ, "IMAGE": image, "CONTAINER": NAME}
    return subprocess.run(
        [ROOT / "docker" / "image.sh", *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout


def podman(*arguments):
    command = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", *arguments]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def two_free_ports():
    """Returns a port whose next one is free, too: image.sh takes both."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def built(which, image):
    """Builds an image; returns what podman knows of it."""
    start = time.perf_counter()
    script("build", which, image=image)
    details = json.loads(podman("image", "inspect", image).stdout)[0]
    seconds = time.perf_counter() - start
    _LOG.info("%s image: %.2f GB in %.0f s", which, details["Size"] / 1e9, seconds)
    return details


@pytest.fixture(scope="module")
def image():
    return built("serving", f"localhost/{NAME}")


@pytest.fixture(scope="module")
def running(image, tmp_path_factory):
    """Port of a server in the image that is ready; and how long it took."""
    folder = tmp_path_factory.mktemp("image")
    base = folder / "tiny"
    export_tiny_model(base / "7")
    # The server's user is another than the one who made the folder.
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    port = two_free_ports()
    start = time.perf_counter()
    try:
        script("start", base, "tiny", port)
        wait_until_ready(port)
        _LOG.info("ready in %.1f s", time.perf_counter() - start)
        yield port
    finally:
        podman("rm", "--force", NAME)


def wait_until_ready(port):
    with FeedbackClient(f"127.0.0.1:{port}", "tiny") as client:
        for _ in range(600):
            try:
                if client.ready(timeout=1):
                    return
            except ServingError:
                pass
            state = podman("inspect", "--format", "{{.State.Status}}", NAME).stdout.strip()
            assert state in ("running", "created"), podman("logs", NAME).stderr
            time.sleep(0.2)
    raise AssertionError(podman("logs", NAME).stderr)


def test_the_image_says_who_runs_it_and_how_it_is_watched(image):
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["StopSignal"] == "SIGTERM"
    assert "serving.probe" in " ".join(image["Healthcheck"]["Test"])


def test_it_serves_as_nobody_on_a_root_that_cannot_be_written(running):
    with FeedbackClient(f"127.0.0.1:{running}", "tiny") as client:
        scores = client.rank(**REQUEST)
    assert (scores["ctr"].tolist(), scores["dislike"].tolist()) == (CTR, DISLIKE)
    assert podman("exec", NAME, "id", "-u").stdout.strip() == "10001"
    written = podman("exec", NAME, "touch", "/tmp/x")
    assert written.returncode != 0
    assert "Read-only file system" in written.stderr


def test_its_health_check_and_http_port_answer(running):
    probed = podman("exec", NAME, "python", "-m", "serving.probe", f"localhost:{running}")
    assert (probed.returncode, probed.stdout.split()[-1]) == (0, "SERVING")
    closed = podman("exec", NAME, "python", "-m", "serving.probe", "localhost:1")
    assert closed.returncode == 1
    for path in ("readyz", "metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{running + 1}/{path}", timeout=10) as answer:
            assert answer.status == 200


def test_it_drains_when_it_is_stopped(running):
    # Last: there is no server after it.
    start = time.perf_counter()
    assert script("stop").strip() == "0"
    _LOG.info("stopped in %.1f s", time.perf_counter() - start)


def test_the_training_image_prepares_trains_publishes_and_serves(tmp_path):
    image = f"localhost/{NAME}-train"
    details = built("train", image)
    assert details["Config"]["User"] == "10001:10001"
    tmp_path.chmod(0o777)
    limits = ["--cap-drop", "all", "--security-opt", "no-new-privileges"]
    # What podman asks for by default is more than a container may have.
    limits += ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=16000:16000"]
    job = ["--volume", f"{tmp_path}:/work", image, "pipelines.run", "--set", "train.epochs=1"]
    done = podman("run", "--rm", "--network", "host", *limits, *job)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "score one request over gRPC" in done.stdout
    (version,) = (tmp_path / "models" / "dfn").iterdir()
    assert (version / "saved_model.pb").stat().st_uid == 10001
