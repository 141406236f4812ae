"""Runs the benchmarks: `python -m benchmarks [NAME ...] [--json FILE]`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import time
from pathlib import Path

# Before TensorFlow is loaded: its start-up messages would stand between the tables.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console

NAMES = (
    *("dfn_training", "dumn", "din", "din_logs", "speed", "recommenders"),
    *("input_pipeline", "prepare", "optimizer", "serving"),
)
_WIDTH = 120  # Headings stay readable where output is piped.


def main() -> None:
    """Runs the named benchmarks, or all, and prints a table each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; expected some of {', '.join(NAMES)}")
    console = Console()
    console.width = max(console.width, _WIDTH)
    reports = {}
    for name in arguments.names or NAMES:
        start = time.perf_counter()
        found = importlib.import_module(f"benchmarks.{name}").run()
        for report in found if isinstance(found, list) else [found]:
            console.print(report.table())
            key = f"{name}: {report.title}" if isinstance(found, list) else name
            reports[key] = dataclasses.asdict(report)
        console.print(f"{name} took {time.perf_counter() - start:.0f} s\n", style="dim")
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
