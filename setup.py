"""Metadata and dependencies, in one place. The base install is the light gRPC client."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "tfrec_feedback/__init__.py").read_text("utf-8"), re.M
)

# One release for trainer, exporter and server: the newest public tensorflow/serving image.
TENSORFLOW = ["tensorflow==2.20.*", "tf-keras==2.20.*"]
SERVER = [*TENSORFLOW, "grpcio-health-checking>=1.70", "typer>=0.15", "rich>=13"]
TRAIN = [
    *TENSORFLOW,
    "tensorflow-recommenders==0.7.*",
    "tensorboard>=2.20",
    "google-crc32c>=1.6",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "optuna>=4",
    "pandas>=2.2",
    "pyarrow>=18",
    "scikit-learn>=1.5",
    "scipy>=1.14",
    "tomli-w>=1.1",
    "typer>=0.15",
    "rich>=13",
]
DEV = [
    "tensorflow-serving-api==2.20.*",
    "build>=1.2",
    "hypothesis>=6.100",
    "mypy>=1.13",
    "pandas-stubs>=2.2",
    "prometheus-client>=0.20",
    "pytest>=8.3",
    "pytest-xdist>=3.7",
    "pyyaml>=6",
    "ruff>=0.8",
]

setup(
    name="tfrec-feedback",
    version=VERSION.group(1) if VERSION else "0",
    description="Click and dislike prediction from several kinds of user feedback",
    long_description=(ROOT / "README.md").read_text("utf-8")
    if (ROOT / "README.md").exists()
    else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["tfrec_feedback*", "serving*", "pipelines*"]),
    package_data={
        "pipelines": ["configs/*.toml"],
        "tfrec_feedback": ["py.typed", "benchmark/templates/*.j2"],
    },
    install_requires=["numpy>=1.26", "protobuf>=5.28", "grpcio>=1.70", "pydantic>=2.9"],
    extras_require={
        "train": TRAIN,
        "server": SERVER,
        "dev": sorted({*TRAIN, *SERVER, *DEV}),
    },
)
