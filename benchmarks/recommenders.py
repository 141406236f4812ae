"""Speed of the recommenders: training in interactions a second, full ranking in users a second."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.logs import in_own_process, log_folder
from benchmarks.measure import Report, peak_megabytes

MODELS = ("gmf", "neumf", "cdae")
BATCH = {"gmf": 512, "neumf": 512, "cdae": 32}
SIMULATED = (100_000, 100_000)


def run(
    users: int = SIMULATED[0],
    items: int = SIMULATED[1],
    models: tuple[str, ...] = MODELS,
    test_rows: int = 5_000,
    seconds: float = 10.0,
) -> Report:
    """Times GMF, NeuMF and CDAE on ml-100k, and GMF on a simulated log.

    Args:
        users: of the simulated log.
        items: of the simulated log.
        models: timed on ml-100k, where that is at hand.
        test_rows: most test interactions whose users are ranked.
        seconds: of training that are timed.
    """
    report = Report(
        "Recommenders: training and full ranking",
        [
            *("log", "model", "users", "items", "interactions"),
            *("interactions/s", "users ranked/s", "MB loaded", "MB peak"),
        ],
        notes=[
            "An interaction is a positive with its negatives (1; CDAE 5); whole steps with",
            "LazyAdam, fed by tf.data, which draws the negatives. Ranking: K = 50, known items",
            "left out. Memory: of a process that does nothing else, after the log is loaded and",
            "at its peak.",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        real = log_folder("ml-100k")
        if real is not None:
            source = ("adt-ratings", str(real), {})
            for model in models:
                measured = in_own_process(
                    measure, source, f"{folder}/{model}", model, test_rows, seconds
                )
                report.rows.append(["ml-100k", model, *measured])
        source = ("simulated-interactions", None, {"num_users": users, "num_items": items})
        measured = in_own_process(measure, source, f"{folder}/large", "gmf", test_rows, seconds)
        report.rows.append(["simulated", "gmf", *measured])
    return report


def measure(source: Any, folder: str, model_name: str, rows: int, seconds: float) -> list[Any]:
    """Prepares a log, trains on it for a while and ranks some users; in a process of its own.

    Args:
        source: name, path and options of the log.
        folder: where it is prepared.
        model_name: of the recommender.
        rows: most test interactions whose users are ranked.
        seconds: of training that are timed, after a second that is not.

    Returns:
        Users, items, interactions, interactions/s, users/s, megabytes loaded and at the peak.
    """
    import tensorflow as tf

    from tfrec_feedback.data.interaction_dataset import (
        load_interactions,
        pair_dataset,
        user_dataset,
    )
    from tfrec_feedback.data.interactions import prepare_interactions
    from tfrec_feedback.data.sources import load_interaction_source
    from tfrec_feedback.models import build_model
    from tfrec_feedback.optimizers import LazyAdam

    name, path, options = source
    manifest = prepare_interactions(load_interaction_source(name, path, **options), Path(folder))
    table = load_interactions(manifest)
    model = build_model(model_name, manifest.schema())
    model.compile(LazyAdam())
    loaded = peak_megabytes()
    feed = pair_dataset if model.read_history is None else user_dataset
    data = feed(table, model.schema, BATCH[model_name], num_negatives=model.num_negatives)
    step = tf.function(model.train_step, reduce_retracing=True)
    trained, start = 0, 0.0
    begin = time.perf_counter()
    for batch in data.repeat():
        result = step(batch)
        positives = int(tf.reduce_sum(batch[1]["ctr"]))
        if not start:
            if time.perf_counter() - begin > 3:  # traced, and the input is running
                start = time.perf_counter()
            continue
        trained += positives
        if time.perf_counter() - start > seconds:
            break
    result["loss"].numpy()
    rate = trained / (time.perf_counter() - start)
    ranked = _ranking_rate(model, table, rows)
    return [
        *(table.num_users, table.num_items, len(table.split("train"))),
        *(rate, ranked, loaded, peak_megabytes()),
    ]


def _ranking_rate(model: Any, table: Any, rows: int) -> float:
    """Returns users ranked a second, tracing included, for the first rows of the test split."""
    from tfrec_feedback.data.interaction_dataset import InteractionTable, Pairs
    from tfrec_feedback.full_ranking import rank_catalogue

    test = table.split("test")
    cut = Pairs(test.users[:rows], test.items[:rows], test.clean[:rows])
    part = InteractionTable({**table.splits, "test": cut}, table.num_users, table.num_items)
    rank_catalogue(model, part, "test", 50)
    start = time.perf_counter()
    ranked = rank_catalogue(model, part, "test", 50)
    return len(ranked.users) / (time.perf_counter() - start)
