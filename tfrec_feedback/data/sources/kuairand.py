"""KuaiRand logs (Gao et al., CIKM 2022; CC BY-SA 4.0): short videos with clicks, likes and hates.

Like: any of `is_like`, `is_follow`, `is_comment`, `is_forward`. Dislike: `is_hate`. Requests: rows
of one user with one `time_ms`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrec_feedback.data.columns import MISSING_NUMBER, split_values
from tfrec_feedback.data.events import FILE, LINE, EventLogError, Malformed, Source
from tfrec_feedback.data.manifest import Report
from tfrec_feedback.data.sources.files import read_text
from tfrec_feedback.schema import Buckets, Encoding, Identity

LOG_FILE = "log_standard_4_22_to_5_08_pure.csv"
USER_FILE = "user_features_pure.csv"
VIDEO_FILE = "video_features_basic_pure.csv"
FEEDBACK_FILE = "like_hate_15core.tsv"

POST_EXPOSURE = (
    "play_time_ms",
    "long_view",
    "profile_stay_time",
    "comment_stay_time",
    "is_profile_enter",
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "label",
)
_LIKES = ("is_like", "is_follow", "is_comment", "is_forward")
_MAX_TAGS = 3
_LAST_TRAIN_DATE, _LAST_VALIDATION_DATE = 20220503, 20220505

# The first bucket of a Buckets feature is "missing" (-1): its boundary is 0.
ENCODINGS: dict[str, Encoding] = {
    "context_hour": Identity(24),
    "context_weekday": Identity(7),
    "item_duration": Buckets((0, 7, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300, 600)),
    "item_age_days": Buckets((0, 1, 3, 7, 14, 21, 30)),
}
_USER_TEXT = (
    "user_active_degree",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
)
_USER_NUMBERS = (
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    *(f"onehot_feat{i}" for i in range(18)),
)
_VIDEO_COLUMNS = (
    "video_id",
    "author_id",
    "video_type",
    "upload_dt",
    "upload_type",
    "video_duration",
    "music_type",
    "tag",
)


def read_pure(path: str | Path, *, strict: bool = False) -> Source:
    """Reads a KuaiRand-Pure folder: log, users and videos.

    Split by date: train up to 3 May 2022, validation 4 and 5 May, test from 6 May.

    Args:
        path: folder with the published file names.
        strict: stop at a malformed row instead of dropping it.
    """
    folder = Path(path)
    files = tuple(folder / name for name in (LOG_FILE, USER_FILE, VIDEO_FILE))
    _require(files)
    report = Report()
    raw, flags = _read_log(files[0], (*_LIKES, "is_click", "is_hate"), ("tab",), report, strict)
    like = flags[list(_LIKES)].max(axis=1)
    log = _canonical(raw, flags["is_click"], like, flags["is_hate"])
    date = _integers(raw["date"])
    names = np.select([date <= _LAST_TRAIN_DATE, date <= _LAST_VALIDATION_DATE], [0, 1], 2)
    # A request whose rows carry two dates goes where its earliest date says.
    first = pd.Series(names).groupby([log["user_id"], log["timestamp"]]).transform("min")
    log["split"] = pd.Series(["train", "validation", "test"]).iloc[first].to_numpy()
    log["context_tab"] = _integers(raw["tab"])
    log = _join(log, "user_id", _users(files[1]))
    log = _join(log, "item_id", _videos(files[2]))
    age = (pd.to_datetime(date.astype("str")) - log.pop("upload")).dt.days
    log["item_age_days"] = age.where(age >= 0, MISSING_NUMBER).astype("float64")
    return Source(
        "kuairand-pure",
        log,
        report,
        files=files,
        encodings=ENCODINGS,
        history_features=("item_id", "item_author_id", "item_tag", "item_duration"),
        post_exposure=POST_EXPOSURE,
    )


def read_feedback(path: str | Path, *, strict: bool = False) -> Source:
    """Reads the explicitly rated rows of KuaiRand-27K: label 1 is a like, 0 a hate.

    Split by user: the first 70 % of his rows in time train, the next 10 % validation, the rest
    test (a request goes where its first row falls). User features are joined from
    `user_features_pure.csv` beside the file or in `../kuairand-pure`, where there is one.

    Args:
        path: the file, or its folder.
        strict: stop at a malformed row instead of dropping it.
    """
    file = Path(path) / FEEDBACK_FILE if Path(path).is_dir() else Path(path)
    _require((file,))
    report = Report()
    raw, flags = _read_log(file, ("is_click", "label"), ("duration_ms",), report, strict)
    log = _canonical(raw, flags["is_click"], flags["label"], 1 - flags["label"])
    log["split"] = _split_by_user(log)
    log["item_duration"] = _known(pd.to_numeric(raw["duration_ms"], errors="coerce") / 1000)
    places = (file.parent / USER_FILE, file.parent.parent / "kuairand-pure" / USER_FILE)
    users = next((place for place in places if place.is_file()), None)
    if users is not None:
        log = _join(log, "user_id", _users(users))
    return Source(
        "kuairand-27k-feedback",
        log,
        report,
        files=(file,) if users is None else (file, users),
        encodings={k: v for k, v in ENCODINGS.items() if k in log},
        history_features=("item_id", "item_duration"),
        post_exposure=POST_EXPOSURE,
    )


def _require(files: tuple[Path, ...]) -> None:
    for file in files:
        if not file.is_file():
            raise EventLogError(
                f"{file} is missing. Pass `--input` the folder of the published KuaiRand files."
            )


def _check_columns(file: Path, raw: pd.DataFrame, needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in raw]
    if missing:
        raise EventLogError(
            f"{file} has no columns {missing}; it has {list(raw.columns[:-2])}. Pass the files as "
            "KuaiRand published them."
        )


def _read_log(
    file: Path, flags: tuple[str, ...], others: tuple[str, ...], report: Report, strict: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the distinct well-formed rows of a log: as text, and `flags` as numbers."""
    raw = read_text(file, report, strict)
    needed = ("user_id", "video_id", "date", "hourmin", "time_ms", *flags, *others)
    _check_columns(file, raw, needed)
    repeated = raw.duplicated(subset=[c for c in raw.columns if c not in (FILE, LINE)])
    report.duplicates += int(repeated.sum())
    raw = raw[~repeated]
    malformed = Malformed(raw)
    for name in ("user_id", "video_id", "date", "hourmin", "time_ms"):
        malformed.add(name, ~raw[name].str.fullmatch("[0-9]{1,18}"), "a whole number")
    malformed.add("date", pd.to_datetime(raw["date"], errors="coerce").isna(), "a date (YYYYMMDD)")
    for name in flags:
        malformed.add(name, ~raw[name].isin(["0", "1"]), "0 or 1")
    raw = malformed.drop(report, strict).reset_index(drop=True)
    return raw, raw[list(flags)].astype("int64")


def _canonical(
    raw: pd.DataFrame, click: pd.Series, like: pd.Series, dislike: pd.Series
) -> pd.DataFrame:
    day = pd.to_datetime(raw["date"], format="%Y%m%d").dt.weekday
    return pd.DataFrame(
        {
            "user_id": _integers(raw["user_id"]),
            "item_id": _integers(raw["video_id"]),
            "timestamp": _integers(raw["time_ms"]),
            "click": click,
            "like": like,
            "dislike": dislike,
            "context_hour": _integers(raw["hourmin"]) // 100,
            "context_weekday": day.astype("int64"),
        }
    )


def _integers(text: pd.Series) -> pd.Series:
    """Returns whole numbers, -1 where there is none (`1.0` is how the files write 1)."""
    return _known(pd.to_numeric(text, errors="coerce")).astype("int64")


def _known(numbers: pd.Series) -> pd.Series:
    return numbers.astype("float64").where(np.isfinite(numbers), MISSING_NUMBER)


def _split_by_user(log: pd.DataFrame) -> np.ndarray:
    by_time = log.sort_values("timestamp", kind="stable").groupby("user_id")["timestamp"]
    position = by_time.cumcount().reindex(log.index)
    first = position.groupby([log["user_id"], log["timestamp"]]).transform("min")
    tenths = first * 10 // log.groupby("user_id")["timestamp"].transform("size")
    return np.select([tenths < 7, tenths < 8], ["train", "validation"], "test")


def _users(file: Path) -> pd.DataFrame:
    raw = read_text(file, Report())
    _check_columns(file, raw, ("user_id", *_USER_TEXT, *_USER_NUMBERS))
    columns = {name: raw[name] for name in _USER_TEXT}
    columns |= {name: _integers(raw[name]) for name in _USER_NUMBERS}
    named = {n if n.startswith("user_") else f"user_{n}": c for n, c in columns.items()}
    return pd.DataFrame(named).set_index(_integers(raw["user_id"]))


def _videos(file: Path) -> pd.DataFrame:
    raw = read_text(file, Report())
    _check_columns(file, raw, _VIDEO_COLUMNS)
    columns = {
        "item_author_id": _integers(raw["author_id"]),
        "item_video_type": raw["video_type"],
        "item_upload_type": raw["upload_type"],
        "item_music_type": _integers(raw["music_type"]),
        "item_tag": split_values(raw["tag"], ",").map(lambda tags: tags[:_MAX_TAGS]),
        "item_duration": _known(pd.to_numeric(raw["video_duration"], errors="coerce") / 1000),
        "upload": pd.to_datetime(raw["upload_dt"], errors="coerce"),
    }
    return pd.DataFrame(columns).set_index(_integers(raw["video_id"]))


def _join(log: pd.DataFrame, key: str, features: pd.DataFrame) -> pd.DataFrame:
    """Adds features by id; what an unknown id has is missing."""
    features = features[~features.index.duplicated()]
    at = features.index.get_indexer(pd.Index(log[key]))
    joined = {}
    for name, column in features.items():
        missing = pd.Series([_missing(column)], dtype=column.dtype)
        # An unknown id is at -1, the row appended last.
        joined[str(name)] = pd.concat([column, missing]).take(at).array
    return log.assign(**joined)


def _missing(column: pd.Series) -> Any:
    if column.dtype == object:
        return ()
    return {"i": MISSING_NUMBER, "f": MISSING_NUMBER, "M": pd.NaT}.get(column.dtype.kind, "")
