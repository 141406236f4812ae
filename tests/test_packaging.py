import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def command(*arguments, **options):
    done = subprocess.run(
        [str(a) for a in arguments], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the sources, with tests beside them and one more configuration."""
    source = tmp_path_factory.mktemp("source")
    for name in ("tfrec_feedback", "serving", "pipelines"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("tests", "benchmarks"):
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    (source / "pipelines" / "configs").mkdir(exist_ok=True)
    (source / "pipelines" / "configs" / "example.toml").touch()
    for name in ("setup.py", "pyproject.toml", "README.md"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command(*build, "--wheel-dir", source / "dist", source)
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_the_three_packages_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {
        str(path.relative_to(ROOT))
        for package in ("tfrec_feedback", "serving", "pipelines")
        for path in (ROOT / package).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert "tfrec_feedback/py.typed" in names
    assert "pipelines/configs/example.toml" in names
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"tfrec_feedback", "serving", "pipelines"}


def test_the_base_install_is_the_light_client(wheel):
    files = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
    lines = files.read(metadata).decode().splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line]
    base = {re.match(r"[\w-]+", line).group() for line in required if "extra ==" not in line}
    assert base == {"numpy", "protobuf", "grpcio", "pydantic"}
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if "Provides-Extra" in line}
    assert extras == {"train", "server", "dev"}


@pytest.mark.slow
def test_the_wheel_alone_is_a_working_client(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    command(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    code = (
        "import importlib.util, serving.client, tfrec_feedback.config, tfrec_feedback.requests;"
        "print(importlib.util.find_spec('tensorflow'), importlib.util.find_spec('pandas'))"
    )
    assert command(python, "-c", code, cwd=tmp_path).strip() == "None None"
