"""Holds a server against training: golden requests by every road from record to score.

    python -m serving.skew --run runs/mine --target host:8500 --model dfn --model-base models/dfn

The reference is the Keras model of the run, fed by tf.data. With `--model-base`, the version that
the server says it serves is also run in this process, as SavedModel and as a session of the C++
runtime. See `tfrec_feedback.roads` for the ways requests are sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from serving import wire
from serving.channel import Channel
from serving.client import FeedbackClient
from serving.errors import ServingError
from serving.records import read_records
from serving.tensors import from_proto, to_proto
from tfrec_feedback.golden import GOLDEN_FILE, expected_scores
from tfrec_feedback.roads import Call, Difference, Golden, Scores, compare

TOLERANCE = 1e-5
_SECONDS, _FINDING_SECONDS = 60.0, 10.0


def over_grpc(channel: Channel, model: str, version: int) -> Call:
    """Returns the road to a server: Predict, on a version that is named."""

    def call(signature: str, arrays: Mapping[str, np.ndarray]) -> Scores:
        request = wire.PredictRequest(model_spec={"name": model, "signature_name": signature})
        request.model_spec.version.value = version
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(to_proto(array))
        answer = channel.call(wire.PREDICT, request, time.monotonic() + _SECONDS)
        return {name: from_proto(proto) for name, proto in answer.outputs.items()}

    return call


def measure(
    run: Path, target: str, model: str, model_base: Path | None = None, calibrate: bool = False
) -> tuple[int, list[Difference]]:
    """Takes every road there is to the scores of golden requests.

    Args:
        run: folder of a finished run.
        target: `host:port` of a server.
        model: name the model is served under.
        model_base: folder of its versions, for the roads inside this process.
        calibrate: whether the version was exported with `--calibrate`.

    Returns:
        The version that the server serves, and the differences from Keras.

    Raises:
        ServingError: when the server does not answer.
        RuntimeError: when run or version cannot be loaded.
    """
    from serving.loader import LoadedModel, find_version
    from tfrec_feedback.runs import load_run
    from tfrec_feedback.skew import golden_records, saved_model_runner, score_records

    keras, _ = load_run(run)
    with FeedbackClient(target, model, timeout=_FINDING_SECONDS) as client:
        version = client.metadata().version
    folder = None if model_base is None else find_version(model_base, version)
    if folder is None:
        records = golden_records(keras, calibrate=calibrate)
    else:
        records = list(read_records(folder / "assets.extra" / GOLDEN_FILE))
    reference = score_records(keras, records, calibrate)
    golden = Golden(keras.schema, records, reference)
    found: list[Difference] = []
    if folder is not None:
        recorded = [expected_scores(record) for record in records]
        found.append(compare("golden file", "scores at export", recorded, reference))
        found += golden.differences("SavedModel", saved_model_runner(folder))
        loaded = LoadedModel(model, folder)
        found += golden.differences("C++ session", loaded.run)
        loaded.close()
    channel = Channel(target)
    found += golden.differences("gRPC", over_grpc(channel, model, version))
    channel.close()
    return version, found


def main(
    run: Annotated[Path, typer.Option(help="Run folder of pipelines.train.")],
    target: Annotated[str, typer.Option(help="host:port of the server.")] = "localhost:8500",
    model: Annotated[str, typer.Option(help="Name the model is served under.")] = "dfn",
    model_base: Annotated[
        Path | None,
        typer.Option(help="Folder of its versions: compares them in this process, too."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="The version was exported with --calibrate.")
    ] = False,
) -> None:
    """Compares a served model with its run; ends with code 1 where any score differs by 1e-5."""
    # TF Serving's own way of loading is deprecated in Python: nothing the reader can act on.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        version, found = measure(run, target, model, model_base, calibrate)
    except (ServingError, RuntimeError, ValueError, OSError) as error:
        Console(stderr=True).print(f"Error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(2) from error
    table = Table(title=f"{model} version {version}: largest difference from Keras")
    table.add_column("road")
    table.add_column("requests sent as")
    for task in found[0].largest:
        table.add_column(task, justify="right")
    for index, row in enumerate(found):
        cells = [f"{row.largest[t]:.1e}" if t in row.largest else "" for t in found[0].largest]
        ends = index + 1 == len(found) or found[index + 1].road != row.road
        style = None if row.worst <= TOLERANCE else "red"
        table.add_row(row.road, row.way, *cells, style=style, end_section=ends)
    Console().print(table)
    worst = max(found, key=lambda row: row.worst)
    if not worst.worst <= TOLERANCE:
        Console(stderr=True).print(
            f"Skew: {worst.road}, {worst.way} differs by {worst.worst:.1e} (allowed: "
            f"{TOLERANCE:.0e}). Check that {target} serves the export of {run}, and that both were "
            "made with one TensorFlow.",
            style="red",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
