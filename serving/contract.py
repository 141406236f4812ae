"""The agreement between client and served model: a schema read from, or checked against, it."""

from __future__ import annotations

from collections.abc import Mapping

from serving.signatures import ModelMetadata, Signature, TensorSpec
from tfrec_feedback.schema import (
    Buckets,
    Encoding,
    Feature,
    FeedbackSequence,
    Hashing,
    Identity,
    InputSpec,
    Schema,
    SchemaError,
    Task,
)

# Encodings that stand for the type of a raw value: rows are looked up in the served model.
_ENCODINGS: dict[str, Encoding] = {
    "int64": Identity(1),
    "string": Hashing(1),
    "float32": Buckets((0.0,)),
}
# Signatures leave T open, and the model keeps its own T: this only bounds the message. The same
# for sessions: the model knows how many it tells apart.
_LONGEST_HISTORY = 1024
_MOST_SESSIONS = 1024


def signature_of(metadata: ModelMetadata, name: str) -> Signature:
    """Returns the signature `name`, or raises `SchemaError` listing those there are."""
    if name not in metadata.signatures:
        raise SchemaError(
            f"Model {metadata.name!r} version {metadata.version} has no signature {name!r}; it "
            f"has {sorted(metadata.signatures)}."
        )
    return metadata.signatures[name]


def derive_schema(signature: Signature) -> Schema:
    """Builds from a signature a schema that suffices to encode requests for it.

    The shapes and names say it all: `[R]` is context, `[R, N]` a candidate feature, a further
    axis of fixed width with a companion `<name>_count` a multi-valued feature, and
    `<sequence>_<candidate feature>` beside `<sequence>_length` `[R]` a history, and
    `<sequence>_session` its session numbers. Vocabularies, tables, the true T and how many sessions
    are told apart stay unknown. A candidate feature whose own name reads like a history
    (`click_rate` beside `rate` and `click_length`) is taken for one: pass the schema then.

    Args:
        signature: inputs and outputs of a `rank` signature.

    Returns:
        A schema with the signature's inputs, and one task for each of its outputs.

    Raises:
        SchemaError: when the inputs are not those of any schema.
    """
    inputs = signature.inputs
    if "num_candidates" not in inputs:
        raise SchemaError(
            f"The signature takes {sorted(inputs)}, without 'num_candidates': it does not rank "
            "the candidates of requests. Export the model with `rank` as serving_default."
        )
    widths = {name: _num_values(name, inputs) for name in inputs}
    counts = {f"{name}_count" for name, width in widths.items() if width > 1}
    features: dict[str, Feature] = {}
    ranks: dict[str, int] = {}
    for name, spec in inputs.items():
        if name not in counts and name != "num_candidates":
            features[name] = _feature(name, spec, widths[name])
            ranks[name] = len(spec.shape or ()) - (widths[name] > 1)
    open_rank = sorted(name for name, rank in ranks.items() if rank not in (1, 2))
    if open_rank:
        raise SchemaError(
            f"Inputs {open_rank} are neither [R], [R, N] nor [R, T] (nor multi-valued with a "
            "fixed last axis and a `_count`): they belong to no schema."
        )
    listed = {n: f for n, f in features.items() if ranks[n] == 2}
    sequences = _sequences(features, listed)
    sessions = _sessions(listed, sequences)
    _, histories = _split({n: f for n, f in listed.items() if n not in sessions}, sequences)
    # Only now is it known which sequences are histories: what else is so called is a feature.
    sessions = {n for n in sessions if n.removesuffix("_session") in histories}
    candidate, histories = _split({n: f for n, f in listed.items() if n not in sessions}, sequences)
    lengths = {f"{name}_length" for name in histories}
    return Schema(
        context=tuple(f for n, f in features.items() if ranks[n] == 1 and n not in lengths),
        candidate=tuple(candidate.values()),
        histories=tuple(
            FeedbackSequence(
                name,
                tuple(names),
                _max_length(inputs[f"{name}_{names[0]}"]),
                num_sessions=_MOST_SESSIONS if f"{name}_session" in sessions else 0,
            )
            for name, names in histories.items()
        ),
        tasks=tuple(Task(name, positive=(name,)) for name in signature.outputs),
    )


def _num_values(name: str, inputs: Mapping[str, TensorSpec]) -> int:
    """Returns the width of a multi-valued input, 1 for any other."""
    shape, count = inputs[name].shape, inputs.get(f"{name}_count")
    if not shape or count is None or count.dtype != "int64" or count.shape != shape[:-1]:
        return 1
    return max(1, shape[-1])


def _feature(name: str, spec: TensorSpec, width: int) -> Feature:
    if spec.dtype not in _ENCODINGS:
        raise SchemaError(
            f"Input {name!r} is {spec.dtype}; schemas know {sorted(_ENCODINGS)} only."
        )
    return Feature(name, _ENCODINGS[spec.dtype], max_values=width)


def _sequences(features: Mapping[str, Feature], listed: Mapping[str, Feature]) -> list[str]:
    """Returns what may be a history: all that has a length."""
    suffix = "_length"
    return [
        name.removesuffix(suffix)
        for name, feature in features.items()
        if name.endswith(suffix) and name not in listed and feature.dtype == "int64"
    ]


def _sessions(listed: Mapping[str, Feature], sequences: list[str]) -> set[str]:
    """Returns the inputs that may be session numbers and repeat no candidate feature."""
    names = {f"{s}_session" for s in sequences if f"{s}_session" in listed}
    return {
        name
        for name in names
        if (listed[name].dtype, listed[name].max_values) == ("int64", 1)
        and not _repeats(listed[name], listed, name.removesuffix("session"))
    }


def _split(
    listed: Mapping[str, Feature], sequences: list[str]
) -> tuple[dict[str, Feature], dict[str, list[str]]]:
    """Separates `[R, N]` candidate features from the `[R, T]` histories that repeat them."""
    candidate: dict[str, Feature] = {}
    histories: dict[str, list[str]] = {}
    # Shorter names first: `click_item_id` is a history of `item_id` only once that is known.
    for name in sorted(listed, key=lambda n: (len(n), n)):
        feature = listed[name]
        owners = [s for s in sequences if _repeats(feature, candidate, f"{s}_")]
        if len(owners) > 1:
            raise SchemaError(
                f"Input {name!r} may belong to any of the histories {owners}: pass the schema "
                "exported with the model."
            )
        if owners:
            histories.setdefault(owners[0], []).append(name.removeprefix(f"{owners[0]}_"))
        else:
            candidate[name] = feature
    return candidate, histories


def _repeats(feature: Feature, candidate: Mapping[str, Feature], prefix: str) -> bool:
    original = candidate.get(feature.name.removeprefix(prefix))
    if original is None or not feature.name.startswith(prefix):
        return False
    return (original.dtype, original.max_values) == (feature.dtype, feature.max_values)


def _max_length(spec: TensorSpec) -> int:
    length = spec.shape[1] if spec.shape else -1
    return length if length > 0 else _LONGEST_HISTORY


def check_schema(schema: Schema, signature: Signature) -> None:
    """Raises `SchemaError`, listing every difference, when a schema is not the signature's.

    Args:
        schema: what the client was given.
        signature: what the server says it takes and gives.
    """
    expected = {spec.name: spec for spec in schema.inputs()}
    problems = []
    if missing := sorted(set(expected) - set(signature.inputs)):
        problems.append(f"the model does not take {missing}")
    if extra := sorted(set(signature.inputs) - set(expected)):
        problems.append(f"the model also needs {extra}")
    for name in sorted(set(expected) & set(signature.inputs)):
        problems += _differences(expected[name], signature.inputs[name])
    if lost := sorted({task.name for task in schema.tasks} - set(signature.outputs)):
        problems.append(f"the model does not predict {lost} but {sorted(signature.outputs)}")
    if problems:
        raise SchemaError(
            f"Schema and served model do not belong together: {'; '.join(problems)}. Use the "
            "schema.json exported with the model, or leave the schema out."
        )


def _differences(expected: InputSpec, served: TensorSpec) -> list[str]:
    problems = []
    if served.dtype != expected.dtype:
        problems.append(f"{expected.name!r} is {served.dtype}, not {expected.dtype}")
    sizes = tuple(axis if isinstance(axis, int) else -1 for axis in expected.axes)
    if served.shape is None:
        return problems
    fits = len(served.shape) == len(sizes) and all(
        -1 in (ours, theirs) or ours == theirs
        for ours, theirs in zip(sizes, served.shape, strict=True)
    )
    if not fits:
        problems.append(f"{expected.name!r} has shape {list(served.shape)}, not {list(sizes)}")
    return problems
