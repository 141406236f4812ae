"""Small DUMNs and random training batches of them."""

import dataclasses

import numpy as np
import tensorflow as tf

from tests.examples import HISTORIES, TAGS, random_request, small_schema, tensors
from tests.models.conformance import perturbed
from tests.models.dumn_reference import KERNELS
from tfrec_feedback.models import build_model

SMALL = {"embedding_dim": 4, "num_heads": 2, "deep_units": (5, 3)}
MEMORY = {"memory_size": 6, "word_size": 5, "controller_units": 7}
FIRST_ITEM, NUM_ITEMS = 100, 9


def small_dumn(name="dumn", schema=None, seed=0, **options):
    """A small model with weights away from their start; `options` are those of its memory."""
    tf.keras.utils.set_random_seed(seed)
    memory = {} if name == "dumn_no_umn" else {"user_memory": {**MEMORY, **options}}
    model = build_model(name, schema or small_schema(), **SMALL, **memory)
    return perturbed(model, seed)


def some_items(rng, count, first=FIRST_ITEM, several=NUM_ITEMS):
    """Items of few identities, so that one is often both positive and negative."""
    ids = rng.integers(first, first + several, count)
    return {
        "item_id": ids.tolist(),
        "tag": [[*TAGS, TAGS[0]][i % 4 : i % 4 + 1 + i % 2] for i in ids],
    }


def training_batch(
    schema=None, seed=0, num_requests=5, longest=7, shortest=0, same_size=None, disjoint=False
):
    """`(features, labels)` of requests with samples: histories and samples of random lengths.

    Args:
        schema: `small_schema` by default.
        seed: of the random requests.
        num_requests: R.
        longest: of histories before they are cut.
        shortest: of histories and samples.
        same_size: N of every request; random from 1 to 4 otherwise.
        disjoint: whether no item is a sample of two feedbacks.
    """
    schema = schema or small_schema()
    plain = [dataclasses.replace(history, num_samples=0) for history in schema.histories]
    both = dataclasses.replace(schema, histories=(*plain, *schema.samples))
    rng = np.random.default_rng(seed)
    requests = []
    for _ in range(num_requests):
        request = random_request(rng)
        count = same_size or int(rng.integers(1, 5))
        drawn = {x: some_items(rng, rng.integers(shortest, longest + 1)) for x in HISTORIES}
        for number, x in enumerate(HISTORIES):
            own = (FIRST_ITEM + 4 * number, 4) if disjoint else ()
            drawn[f"{x}_sample"] = some_items(rng, rng.integers(shortest, 4), *own)
        candidates = {**some_items(rng, count), "duration": rng.uniform(0, 100, count).tolist()}
        requests.append({**request, "histories": drawn, "candidates": candidates})
    features = tensors(both, requests)
    clicks = rng.integers(0, 2, features["item_id"].shape)
    labels = {
        "ctr": tf.constant(clicks, tf.float32),
        "dislike": tf.constant((1 - clicks) * rng.integers(0, 2, clicks.shape), tf.float32),
    }
    return features, labels


def memories(model):
    """The memories of a model, as arrays."""
    return [memory.memory.numpy() for memory in model.user_memory.memories]


def weight_variables(model, variant):
    """The variables of a model, by the names that `step` knows them by."""
    found = {"embeddings": model.embedding.embeddings}
    for position, name in enumerate(variant.histories):
        attention = model.attentions[name]
        for kernel in KERNELS[:4]:
            found[f"{name}/{kernel}_kernel"] = getattr(
                attention._self_attention, f"{kernel}_kernel"
            )
        found[f"{name}/target_kernel"] = attention._target_attention.kernel
        for path, variable in _pair_variables(model.pairs[position], variant):
            found[f"{name}/pair_{path}"] = variable
        if variant.memory != "none":
            memory, prefix = model.user_memory.memory(name), variant.memory_of(name)
            found[f"{prefix}/hidden_kernel"] = memory._hidden.kernel
            found[f"{prefix}/hidden_bias"] = memory._hidden.bias
            for kernel in ("memory", "heads_kernel", "heads_bias"):
                found[f"{prefix}/{kernel}"] = getattr(memory, kernel)
            if variant.learned_strength:
                found[f"{prefix}/strength_kernel"] = memory.strength_kernel
                found[f"{prefix}/strength_bias"] = memory.strength_bias
    if variant.memory != "none" and variant.triplet_weight:
        found["sample_projection"] = model.user_memory._sample_projection.kernel
    for number, layer in enumerate([*model._deep, model._click_output]):
        found[f"deep_{number}/kernel"], found[f"deep_{number}/bias"] = layer.kernel, layer.bias
    return found


def _pair_variables(layer, variant):
    parts = {
        "gate": ("short_term_gate", "long_term_gate"),
        "concat": (),
        "cross": ("projection",),
        "ffn": ("of_short_term", "of_long_term"),
        "attention": ("projection", "hidden", "score"),
    }[variant.pair]
    for part in parts[:1] if variant.memory == "none" else parts:
        yield f"{part}_kernel", getattr(layer, f"_{part}").kernel
        if variant.pair == "ffn":
            yield f"{part}_bias", getattr(layer, f"_{part}").bias
