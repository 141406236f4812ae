"""One training step of DUMN in plain numpy, float64: one anchor, one item, one write at a time."""

import dataclasses
import math

import numpy as np

from tests.models.dumn_reference import NEGATIVE, Candidate, cosine, forward


@dataclasses.dataclass
class Step:
    """What a training step finds: losses before it, memories after it."""

    candidates: list[Candidate]
    logistic: float
    triplets: dict[str, float]
    loss: float
    memories: dict[str, np.ndarray]


def chosen_pair(anchor, request, positives, negatives, mining):
    """The positive and the negative vector of one anchor, None where there is no usable pair.

    Items are `(request, item, vector)`, vectors in the space of the anchors.
    """
    drawn = {item for r, item, _ in positives if r == request}
    if mining != "batch_hard":
        positives = [found for found in positives if found[0] == request]
        negatives = [found for found in negatives if found[0] == request]
    if mining == "random":
        positives, negatives = positives[:1], negatives[:1]
    if not positives:
        return None
    _, item, positive = min(positives, key=lambda found: cosine(anchor, found[2]))
    allowed = [found for found in negatives if found[1] != item and found[1] not in drawn]
    if not allowed:
        return None
    return positive, max(allowed, key=lambda found: cosine(anchor, found[2]))[2]


def triplet(name, candidates, samples, projection, variant):
    """Mean over the usable anchors of one feedback; 0 without any."""
    projected = {
        x: [(r, item, vector @ projection) for r, item, vector in samples[x]]
        for x in (name, NEGATIVE[name])
    }
    losses = []
    for candidate in candidates:
        if not candidate.has[name]:
            continue
        anchor = candidate.access[name]["anchor"]
        pair = chosen_pair(
            anchor, candidate.request, projected[name], projected[NEGATIVE[name]], variant.mining
        )
        if pair is not None:
            gap = (1.0 - cosine(anchor, pair[0])) - (1.0 - cosine(anchor, pair[1]))
            losses.append(max(gap + variant.margin, 0.0))
    return sum(losses) / len(losses) if losses else 0.0


def committed(memory, writes, rule):
    """The memory after a batch; `writes` are pairs of an access and its share v."""
    writes = [(found, share) for found, share in writes if share > 0.0]
    if not writes:
        return memory
    if rule == "mean":
        total = sum(share for _, share in writes)
        return sum(share / total * found["written"] for found, share in writes)
    result = np.empty_like(memory)
    for j, slot in enumerate(memory):
        shares = [share * found["write_weights"][j] for found, share in writes]
        erases, adds = ([found[head] for found, _ in writes] for head in ("erase", "add"))
        if rule == "multi_head":
            kept = math.prod(1.0 - w * e for w, e in zip(shares, erases, strict=True))
            result[j] = kept * slot + sum(w * a for w, a in zip(shares, adds, strict=True))
        else:
            touched = 1.0 - math.prod(1.0 - w for w in shares)
            erase = sum(w * e for w, e in zip(shares, erases, strict=True)) / sum(shares)
            add = sum(w * a for w, a in zip(shares, adds, strict=True)) / sum(shares)
            result[j] = (1.0 - touched * erase) * slot + touched * add
    return result


def step(weights, schema, encoded, labels, variant, num_heads=2):
    """One training step: losses with the weights as given, memories after the write.

    Args:
        weights: float64 arrays by the names of `weight_variables`.
        schema: what the requests hold.
        encoded: output of `FeatureEncoder`, samples included.
        labels: clicks `[R, N]`.
        variant: which model.
        num_heads: H.
    """
    candidates, samples = forward(weights, schema, encoded, labels, variant, num_heads)
    losses = [np.logaddexp(0.0, c.logit) - c.label * c.logit for c in candidates]
    logistic = sum(losses) / len(losses)
    triplets, memories = {}, {}
    if variant.memory != "none":
        writes = {variant.memory_of(x): [] for x in variant.histories}
        for x in variant.histories:
            if variant.triplet_weight:
                projection = weights["sample_projection"]
                triplets[x] = triplet(x, candidates, samples, projection, variant)
            writes[variant.memory_of(x)] += [(c.access[x], c.share * c.has[x]) for c in candidates]
        memories = {
            prefix: committed(weights[f"{prefix}/memory"], found, variant.rule)
            for prefix, found in writes.items()
        }
    loss = logistic + variant.triplet_weight * sum(triplets.values())
    return Step(candidates, logistic, triplets, loss, memories)
