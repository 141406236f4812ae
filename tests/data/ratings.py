"""A small folder in the ADT benchmark format."""

from pathlib import Path

import numpy as np


def write_ratings(folder: Path, num_users: int = 30, num_items: int = 40, seed: int = 0) -> Path:
    """Writes ratings of 1 to 5; users mostly meet items of their own parity, and like those."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows: dict[str, list[str]] = {}
    for user in range(num_users):
        order = rng.permutation(num_items)
        liked_first = order[np.argsort((user + order) % 2, kind="stable")]
        chosen = rng.permutation(np.concatenate([liked_first[:16], liked_first[-4:]]))
        for n, item in enumerate(chosen.tolist()):
            liked = (user + item) % 2 == 0
            rating = int(rng.integers(4, 6) if liked else rng.integers(1, 4))
            line = f"{user}\t{item}\t{rating}"
            split = "train.rating" if n < 12 else "valid.noisy" if n < 15 else "test.noisy"
            rows.setdefault(split, []).append(line)
            if split == "test.noisy" and rating == 5:
                rows.setdefault("test.negative", []).append(line)
    for split, lines in rows.items():
        (folder / f"tiny.{split}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
