"""What `python -m pipelines.prepare` prints when it is done."""

from __future__ import annotations

import resource
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tfrec_feedback.data.manifest import Manifest, Report


def summarise_requests(console: Console, manifest: Manifest, seconds: dict[str, float]) -> None:
    """Prints what a log became.

    Args:
        console: where to.
        manifest: of the folder.
        seconds: how long each stage took.
    """
    report = manifest.report
    _list_dropped(console, report)
    table = Table(title=f"{manifest.source} in {manifest.directory}")
    for heading in ("", *manifest.splits):
        table.add_column(heading, justify="right" if heading else "left")
    splits = manifest.splits.values()
    table.add_row("requests", *(f"{split.requests:,}" for split in splits))
    table.add_row("candidates", *(f"{split.candidates:,}" for split in splits))
    for kind in ("click", "unclick", "like", "dislike"):
        table.add_row(kind, *(f"{split.feedback[kind]:,}" for split in splits))
    table.add_row("shards", *(f"{len(split.shards)}" for split in splits))
    console.print(table)
    requests = sum(split.requests for split in splits)
    kept = sum(split.candidates for split in splits)
    malformed = sum(report.malformed.values())
    peak = _peak_megabytes()
    console.print(
        f"rows read {report.rows:,}, malformed {malformed:,}, duplicates dropped "
        f"{report.duplicates:,}, kept {kept:,}\n"
        f"histories {_rate(kept, seconds, 'histories')} rows/s, "
        f"writing {_rate(requests, seconds, 'writing')} records/s, "
        f"{sum(seconds.values()):.1f} s in all, peak memory {peak:,.0f} MB",
        soft_wrap=True,
    )


def summarise_interactions(console: Console, manifest: Manifest, seconds: float) -> None:
    """Prints what interactions became.

    Args:
        console: where to.
        manifest: of the folder.
        seconds: how long all of it took.
    """
    report = manifest.report
    _list_dropped(console, report)
    table = Table(title=f"{manifest.source} in {manifest.directory}")
    for heading in ("", "rows", "users", "items", "false positives"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, split in manifest.splits.items():
        counts = (split.requests, split.users, split.items, split.feedback["false_positive"])
        table.add_row(name, *(f"{count:,}" for count in counts))
    console.print(table)
    console.print(
        f"rows read {report.rows:,}, malformed {sum(report.malformed.values()):,}, duplicates "
        f"dropped {report.duplicates:,}; {seconds:.1f} s in all, peak memory "
        f"{_peak_megabytes():,.0f} MB",
        soft_wrap=True,
    )


def _list_dropped(console: Console, report: Report) -> None:
    for reason, count in report.malformed.items():
        console.print(f"[yellow]{count:,} rows dropped[/yellow]: {escape(reason)}")
    for example in report.examples:
        console.print(f"  {escape(example)}", soft_wrap=True)


def _rate(count: int, seconds: dict[str, float], stage: str) -> str:
    return f"{count / max(seconds[stage], 1e-6):,.0f}"


def _peak_megabytes() -> float:
    """Returns the peak resident memory of this process, and of its largest worker where larger."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(w).ru_maxrss for w in who)
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
