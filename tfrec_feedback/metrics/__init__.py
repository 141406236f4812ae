"""Exact ranking and calibration metrics in numpy; nothing here loads TensorFlow."""

from tfrec_feedback.metrics.calibration import expected_calibration_error, log_loss
from tfrec_feedback.metrics.exact_auc import auc, rela_impr
from tfrec_feedback.metrics.grouped import GroupedAUC, grouped_auc, grouped_auc_report
from tfrec_feedback.metrics.intervals import (
    DeLongTest,
    Interval,
    auc_interval,
    delong_test,
    grouped_auc_difference,
    grouped_auc_interval,
)
from tfrec_feedback.metrics.top_k import ndcg_at_k, ndcg_per_user, recall_at_k, recall_per_user
from tfrec_feedback.metrics.user_means import PairedUserTest, mean_interval, paired_user_test

__all__ = [
    "DeLongTest",
    "GroupedAUC",
    "Interval",
    "PairedUserTest",
    "auc",
    "auc_interval",
    "delong_test",
    "expected_calibration_error",
    "grouped_auc",
    "grouped_auc_difference",
    "grouped_auc_interval",
    "grouped_auc_report",
    "log_loss",
    "mean_interval",
    "ndcg_at_k",
    "ndcg_per_user",
    "paired_user_test",
    "recall_at_k",
    "recall_per_user",
    "rela_impr",
]
