"""What a run keeps of its diagnostics: `denoising.npz`."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from tfrec_feedback.data.manifest import write_atomically
from tfrec_feedback.denoising.analysis import GroupCounts

RECORD_FILE = "denoising.npz"


@dataclasses.dataclass(frozen=True)
class DenoisingRecord:
    """Diagnostics of a run.

    Attributes:
        loss: name of the loss, `"ce"`, `"tce"` or `"rce"`.
        series: see `analysis.Series`.
        groups: `GroupCounts` `[E, G]` of `"users"` and `"items"`, one row an epoch; of a loss that
            drops clicks, and of what the model knows by id.
    """

    loss: str
    series: dict[str, np.ndarray]
    groups: dict[str, GroupCounts]

    def save(self, directory: str | Path) -> None:
        """Writes `denoising.npz` into a folder, in one move: there is never half a file."""
        arrays: dict[str, Any] = {"loss": np.array(self.loss)}
        arrays |= {f"series/{name}": values for name, values in self.series.items()}
        for kind, counts in self.groups.items():
            arrays |= {f"{kind}/{name}": values for name, values in vars(counts).items()}
        file = io.BytesIO()
        np.savez(file, **arrays)
        write_atomically(Path(directory) / RECORD_FILE, file.getvalue())

    @classmethod
    def load(cls, directory: str | Path) -> DenoisingRecord | None:
        """Reads what `save` wrote; None where a run kept nothing."""
        path = Path(directory) / RECORD_FILE
        if not path.is_file():
            return None
        parts: dict[str, dict[str, np.ndarray]] = {}
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = file[key]
        series, loss = parts.pop("series"), str(parts.pop("loss")[""])
        groups = {kind: GroupCounts(**arrays) for kind, arrays in parts.items()}
        return cls(loss, series, groups)
