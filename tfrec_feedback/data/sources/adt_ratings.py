"""Interactions in the benchmark format of adaptive denoising training (Wang et al., WSDM 2021).

A folder of tab-separated files without header, rows `user item value`:

| file | split |
|---|---|
| `<name>.train.rating` | `train`, with false positives |
| `<name>.valid.noisy` | `validation`, with false positives |
| `<name>.valid.rating` | `validation_clean`; where there is no `.valid.noisy`, `validation` |
| `<name>.test.negative` | `test`, clean rows (the name is historical) |
| `<name>.test.noisy` (optional) | `test_noisy`, with false positives |

The value is a rating (1 to 5: MovieLens), or a flag (Adressa, Amazon-book, Yelp as published: 0 is
a false positive, 1 is clean); where there is none, the row counts as clean. The published
`adressa.test.negative` writes user and item as a tuple, `(user, item)`, into the first column; what
follows it is ignored. An interaction is a false positive when its value is below `clean_rating`.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from tfrec_feedback.data.events import FILE, LINE, EventLogError, Malformed
from tfrec_feedback.data.interactions import Interactions, drop_repeated
from tfrec_feedback.data.manifest import Report

TRAIN, TEST, TEST_NOISY = ".train.rating", ".test.negative", ".test.noisy"
VALID_NOISY, VALID = ".valid.noisy", ".valid.rating"
_TUPLE = r"\s*\(\s*(?P<user>[0-9]{1,18})\s*,\s*(?P<item>[0-9]{1,18})\s*\)\s*"
_WHOLE = "[0-9]{1,18}"
_NUMBER = r"\s*[0-9]+(\.[0-9]*)?\s*"


def read_ratings(
    path: str | Path, *, clean_rating: float | None = None, strict: bool = False
) -> Interactions:
    """Reads a folder in the benchmark format.

    Rows that repeat an earlier (user, item) of their split are dropped: the first value counts.

    Args:
        path: the folder.
        clean_rating: lowest value of an interaction that is no false positive. Default: 3 where
            some value of the folder exceeds 1 (ratings), else 1 (flags).
        strict: stop at a malformed row instead of dropping it.

    Raises:
        EventLogError: when files are missing or of several names, when nothing is left to train on,
            and for malformed rows when `strict`.

    Example:
        >>> source = read_ratings("data/ml-100k")  # doctest: +SKIP
        >>> len(source.splits["train"])  # doctest: +SKIP
        79619
    """
    files, report = find_splits(Path(path)), Report()
    read = {name: _read(file, report, strict) for name, file in files.items()}
    if clean_rating is None:
        # The maximum of a split whose values are all missing is NaN, which exceeds nothing.
        ratings = any(frame["value"].max() > 1 for frame in read.values())
        clean_rating = 3.0 if ratings else 1.0
    splits = {}
    for name, frame in read.items():
        frame = drop_repeated(frame, report)
        # A missing value is not below anything: clean.
        clean = ~(frame["value"] < clean_rating)
        splits[name] = frame[["user", "item"]].assign(clean=clean)
    return Interactions(
        "adt-ratings",
        splits,
        report,
        files=tuple(files.values()),
        settings={"clean_rating": float(clean_rating)},
    )


def find_splits(folder: Path) -> dict[str, Path]:
    """Returns the files of a folder by split; the module says which file is which.

    Raises:
        EventLogError: when there is no such folder, or not one complete set of files in it.
    """
    if not folder.is_dir():
        raise EventLogError(f"No such folder: {folder}. Pass the benchmark's with `--input`.")
    found = sorted(file.name for file in folder.iterdir() if file.is_file())
    names = [file.removesuffix(TRAIN) for file in found if file.endswith(TRAIN)]
    if len(names) != 1:
        listed = f"several data sets, {names}" if names else "none"
        raise EventLogError(
            f"{folder} must hold one file <name>{TRAIN}, beside <name>{VALID_NOISY} or "
            f"<name>{VALID}, and <name>{TEST}; it holds {listed}. Files there: {found[:10]}."
        )
    present = {end: folder / f"{names[0]}{end}" for end in (VALID_NOISY, VALID, TEST, TEST_NOISY)}
    present = {end: file for end, file in present.items() if file.is_file()}
    if TEST not in present or not {VALID_NOISY, VALID} & set(present):
        raise EventLogError(
            f"{folder} holds {names[0]}{TRAIN}, but not both {names[0]}{TEST} and one of "
            f"{names[0]}{VALID_NOISY} and {names[0]}{VALID}. Files there: {found[:10]}."
        )
    noisy = VALID_NOISY if VALID_NOISY in present else VALID
    ends = {"validation": noisy, "test": TEST, "test_noisy": TEST_NOISY}
    if noisy == VALID_NOISY:
        ends["validation_clean"] = VALID
    splits = {split: present[end] for split, end in ends.items() if end in present}
    return {"train": folder / f"{names[0]}{TRAIN}", **splits}


def _read(file: Path, report: Report, strict: bool) -> pd.DataFrame:
    """Returns the well-formed rows of a file: `user` and `item` int64, `value` float64 or NaN."""
    raw = _read_text(file)
    report.rows += len(raw)
    pairs = raw["user"].str.startswith("(")
    if pairs.any():
        parts = raw.loc[pairs, "user"].str.extract(_TUPLE)
        parts["value"] = ""
        # What is no such tuple stays as it is, to be shown.
        parts["user"] = parts["user"].fillna(raw["user"])
        raw.loc[pairs, ["user", "item", "value"]] = parts[["user", "item", "value"]].fillna("")
    malformed = Malformed(raw)
    for name in ("user", "item"):
        malformed.add(name, ~raw[name].str.fullmatch(_WHOLE), "a whole number")
    valued = raw["value"].str.fullmatch(_NUMBER) | (raw["value"] == "")
    malformed.add("value", ~valued, "a number (a rating, or 0 or 1), or nothing")
    rows = malformed.drop(report, strict)
    return pd.DataFrame(
        {
            "user": rows["user"].astype("int64"),
            "item": rows["item"].astype("int64"),
            "value": pd.to_numeric(rows["value"].where(rows["value"] != "")).astype("float64"),
        }
    )


def _read_text(file: Path) -> pd.DataFrame:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise EventLogError(f"{file} is not UTF-8 text: {error}.") from error
    # With a header, a row may have fewer columns than others, and the first row as well.
    raw = pd.read_csv(
        io.StringIO(f"user\titem\tvalue\n{text}"),
        sep="\t",
        usecols=["user", "item", "value"],
        index_col=False,
        dtype="str",
        keep_default_na=False,
        skip_blank_lines=False,
        quoting=csv.QUOTE_NONE,
    ).fillna("")
    raw[FILE], raw[LINE] = file.name, np.arange(1, len(raw) + 1)
    return raw
