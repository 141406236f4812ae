"""Mixed load on a running server, all at once: `python -m benchmarks.serving_soak --minutes 10`.

Good requests, whose scores are compared bit by bit; malformed ones; calls that are cancelled; a
thousand connections; new versions, corrupt ones, deleted ones, and SIGHUP. No answer may be wrong,
no good request may be lost, and memory may not grow.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.measure import Report
from benchmarks.serving_model import NAME, publish_copy, publish_small_model, quiet, serving
from benchmarks.serving_soak_load import Soak
from benchmarks.serving_soak_plan import Plan, Soaked

_FAULTS = (
    *("good requests lost", "wrong answers", "undocumented answers", "ends of the server"),
    *("versions that never served", "errors of the soak's own"),
)


def soak(plan: Plan) -> Soaked:
    """Publishes two models, serves them in turn, and does what a plan says to the server.

    Returns:
        What happened.
    """
    with tempfile.TemporaryDirectory() as folder:
        templates = [publish_small_model(Path(folder) / name / NAME) for name in ("odd", "even")]
        base = Path(folder) / NAME
        base.mkdir()
        publish_copy(templates[0], base, 1)
        config = Path(folder) / "models.config"
        config.write_text(
            f'model_config_list {{ config {{ name: "{NAME}" base_path: "{base}" }} }}'
        )
        # Room for a thousand calls at once and those of everybody else.
        limits = ("--max-concurrent-calls", "4096", "--poll-seconds", "0.5")
        with serving("--model-config-file", str(config), *limits) as server:
            return Soak(server, base, templates, plan).run()


def main(
    minutes: Annotated[float, typer.Option(min=0.2, help="How long.")] = 10.0,
    connections: Annotated[int, typer.Option(min=1, help="Opened at once.")] = 1000,
    growth: Annotated[
        float, typer.Option(help="Allowed growth of memory after the warm-up, as a share.")
    ] = 0.05,
) -> None:
    """Ends with code 1 when an answer was wrong or lost, or memory has grown."""
    quiet()
    plan = Plan(60 * minutes, connections=connections)
    found = soak(plan)
    names = [name for name in found.counts if name not in _FAULTS]
    grown = found.growth(plan.warmup)
    report = Report(
        f"{minutes:g} minutes of mixed load",
        ["what", "number"],
        [[name, found.counts.get(name, 0)] for name in (*sorted(names), *_FAULTS)],
        [
            f"Memory of the server, the median of a third of the time after the first "
            f"{plan.warmup:.0%}: {found.after_warmup(plan.warmup):.0f} MiB in the first, "
            f"{found.at_the_end(plan.warmup):.0f} MiB in the last ({grown:+.1%}). The most in",
            "tenths of the time: " + ", ".join(f"{mib:.0f}" for mib in found.by_tenths()),
        ],
    )
    console = Console()
    console.print(report.table())
    for fault in found.faults:
        console.print(fault, markup=False)
    if found.faults or grown > growth:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
