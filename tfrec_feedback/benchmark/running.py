"""Makes the cells of a study: every row tuned, trained with several seeds, and scored."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrec_feedback.benchmark.cells import CELL_FILE, Cell, save_cell
from tfrec_feedback.benchmark.rows import Row
from tfrec_feedback.benchmark.study import Say, Study, free_memory
from tfrec_feedback.config import Config
from tfrec_feedback.data.manifest import Manifest, load_manifest

_ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run_study(
    study: Study, rows: Sequence[Row], workers: int = 1, say: Say = lambda line: None
) -> None:
    """Makes every cell of a study that is not there yet.

    Args:
        study: what the rows share.
        rows: of the table.
        workers: processes that models are spread over; 1 trains in this one.
        say: told one line for each finished trial and cell; a function of a module's top level,
            where there are several workers.

    Raises:
        ValueError: see `Study.check`.
        KeptResultError: when the folder holds results of other settings or data.
        NonFiniteLossError: when the best settings diverge with a reported seed.
    """
    study.check(rows, load_manifest(study.data))
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    missing = [
        found for found in by_model.values() if not all(study.is_finished(row) for row in found)
    ]
    if workers == 1:
        for found in missing:
            run_rows(study, found, say)
        return
    with _environment(_ONE_THREAD), concurrent.futures.ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(_in_own_process, study, found, say) for found in missing]
    for job in jobs:
        job.result()


def run_rows(study: Study, rows: Sequence[Row], say: Say) -> None:
    """Makes the missing cells of one model: its trials, then its rows and seeds.

    Args:
        study: what the rows share.
        rows: of one model.
        say: told one line for each finished trial and cell.
    """
    manifest = load_manifest(study.data)
    for row in rows:
        if study.is_finished(row):
            continue
        settings = study.settings(row, manifest, say)
        for seed in range(study.seeds):
            if not (study.cell_folder(row.label, seed) / CELL_FILE).is_file():
                config = study.resolved(row, settings, seed)
                cell = make_cell(
                    config,
                    manifest,
                    study.cell_folder(row.label, seed),
                    row.label,
                    settings,
                    study.cell_made_with(row, manifest),
                    study.test_batch_size,
                )
                say(_cell_line(cell, config.train.impression_monitor))
                free_memory()


def make_cell(  # noqa: PLR0913 - one argument an entry of the cell
    config: Config,
    manifest: Manifest,
    folder: Path,
    label: str,
    settings: Mapping[str, Any],
    made_with: Mapping[str, Any],
    test_batch_size: int,
) -> Cell:
    """Trains one run, scores the test split and keeps both.

    Args:
        config: of the run.
        manifest: prepared data.
        folder: of the cell; what an interrupted run left there is removed.
        label: row of the table.
        settings: those found by tuning.
        made_with: see `save_cell`.
        test_batch_size: requests a batch when the test split is scored.
    """
    from tfrec_feedback.data.dataset import naming_damage, request_dataset
    from tfrec_feedback.evaluation import predict
    from tfrec_feedback.training import train

    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    result = train(config, manifest, folder / "run")
    seconds = time.perf_counter() - start
    model = result.model
    dataset = request_dataset(
        manifest, "test", test_batch_size, encoder=model.encoder, metadata=True
    )
    with naming_damage(manifest, "test"):
        predictions = predict(model, dataset)
    parameters = int(sum(np.prod(weight.shape) for weight in model.trainable_weights))
    cell = Cell(
        label=label,
        seed=config.train.seed,
        parameters=parameters,
        settings=dict(settings),
        history=result.history,
        best_epoch=result.best_epoch,
        predictions=predictions,
        seconds=seconds,
    )
    save_cell(folder, cell, made_with)
    return cell


def _in_own_process(study: Study, rows: Sequence[Row], say: Say) -> None:
    """Runs one model in a fresh interpreter, whose end frees all its memory."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=end_with_parent
    ) as pool:
        pool.submit(run_rows, study, rows, say).result()


def end_with_parent() -> None:
    """Ends this worker when the process that started it ends, however that ended.

    A killed benchmark would otherwise train on for hours, and write beside the next one.
    """

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for child processes; what the user has set stays."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _cell_line(cell: Cell, monitor: str) -> str:
    value = cell.history[cell.best_epoch][monitor]
    return f"{cell.label}, seed {cell.seed}: {monitor} {value:.4f}, {cell.seconds:.0f} s"
