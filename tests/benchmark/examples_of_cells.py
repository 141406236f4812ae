"""Cells made of numbers, without training."""

import numpy as np

from tfrec_feedback.benchmark.cells import Cell
from tfrec_feedback.evaluation import Predictions


def cell(label, seed, logits, labels, users, *, dislike=None, history=None, settings=None):
    """A cell whose model gave `logits`; `dislike` is a pair of labels and logits."""
    by_task = {"ctr": (labels, logits)} | ({} if dislike is None else {"dislike": dislike})
    zeros = np.zeros(len(users), np.int64)
    predictions = Predictions(
        labels={task: np.asarray(x, np.float32) for task, (x, _) in by_task.items()},
        logits={task: np.asarray(x, np.float32) for task, (_, x) in by_task.items()},
        users=np.asarray(users),
        weights=np.ones(len(users)),
        history=zeros,
        clicks=zeros,
        request_size=zeros + 1,
    )
    return Cell(
        label=label,
        seed=seed,
        parameters=1000,
        settings={} if settings is None else settings,
        history=[{"loss": 0.6, "ctr_auc": 0.6}, {"loss": 0.5, "ctr_auc": 0.7}]
        if history is None
        else history,
        best_epoch=1,
        predictions=predictions,
        seconds=1.0,
    )


def study(noises, *, seeds=2, rows=600, users=60, seed=0, dislike=()):
    """Cells of models that see one truth through noise: the less of it, the better."""
    rng = np.random.default_rng(seed)
    groups = np.arange(rows) % users
    truth = rng.normal(size=rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-2 * truth))).astype(np.float32)
    dislikes = (np.arange(rows) % 10 == 0).astype(np.float32)
    made = []
    for label, noise in noises.items():
        own = rng.normal(size=rows)
        for number in range(seeds):
            logits = truth + noise * (own + 0.2 * rng.normal(size=rows))
            other = (dislikes, dislikes + rng.normal(size=rows)) if label in dislike else None
            made.append(cell(label, number, logits, labels, groups, dislike=other))
    return made
