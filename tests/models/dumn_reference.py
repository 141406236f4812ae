"""DUMN in plain numpy, float64: one candidate, one head, one slot at a time.

Written from the paper's equations and the readings in docs/deviations.md; shares no code with the
package: weights and embedding rows come in as arrays.
"""

import dataclasses
import math
from typing import Any

import numpy as np

EXPLICIT = {"click": "dislike", "unclick": "like"}
NEGATIVE = {"click": "unclick", "unclick": "click", "like": "dislike", "dislike": "like"}
KERNELS = ("query", "key", "value", "output", "target")
HEADS = ("read_key", "write_key", "erase", "add")
SMALLEST_NORM = 1e-3


@dataclasses.dataclass(frozen=True)
class Variant:
    """What an ablation changes; the defaults are the printed model."""

    histories: tuple[str, ...] = ("click", "unclick", "like", "dislike")
    purify: bool = True
    memory: str = "own"  # or "shared", "none"
    learned_strength: bool = False
    triplet_weight: float = 1.0
    margin: float = 0.2
    mining: str = "batch_hard"
    pair: str = "gate"
    rule: str = "mean"

    def memory_of(self, name):
        return "shared" if self.memory == "shared" else name


@dataclasses.dataclass
class Candidate:
    """One candidate of one request, as it goes through the network."""

    request: int
    position: int
    label: float
    share: float
    has: dict[str, bool]
    pooled: dict[str, np.ndarray]
    short_term: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    access: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    logit: float = 0.0


def softmax(logits):
    weights = np.exp(np.array(logits) - max(logits))
    return weights / weights.sum()


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def cosine(a, b):
    return a @ b / max(math.sqrt(a @ a), SMALLEST_NORM) / max(math.sqrt(b @ b), SMALLEST_NORM)


def fields(table, rows, weights, widths):
    """The vectors of all fields of one position side by side; several values are averaged."""
    vectors, slot = [], 0
    for width in widths:
        vector = np.zeros(table.shape[1])
        for s in range(slot, slot + width):
            vector = vector + weights[s] * table[rows[s]]
        vectors.append(vector)
        slot += width
    return np.concatenate(vectors)


def interaction_attention(user, item, events, kernels, num_heads, max_length):
    """f of one candidate and the valid events of one history, `[n, E]`."""
    w_q, w_k, w_v, w_f, w_target = kernels
    if not len(events):
        return np.zeros(w_f.shape[1])
    width = events.shape[1] // num_heads
    attended = []
    for event in events:
        heads = []
        for h in range(num_heads):
            columns = slice(h * width, (h + 1) * width)
            query = event[columns] @ w_q[h]
            logits = [query @ (other[columns] @ w_k[h]) / math.sqrt(max_length) for other in events]
            values = [other[columns] @ w_v[h] for other in events]
            heads.append(sum(w * v for w, v in zip(softmax(logits), values, strict=True)))
        attended.append(np.concatenate(heads) @ w_f)
    alphas = [max(0.0, (np.concatenate([user, item, o]) @ w_target)[0]) for o in attended]
    return sum(w * o for w, o in zip(softmax(alphas), attended, strict=True))


def purified(implicit, explicit):
    return implicit - implicit @ explicit / max(explicit @ explicit, SMALLEST_NORM**2) * explicit


def access(short_term, user, weights, prefix, learned_strength):
    """One access of one memory: what is read, what would be written, and the anchor."""
    memory = weights[f"{prefix}/memory"]
    inputs = np.concatenate([user, short_term])
    hidden = inputs @ weights[f"{prefix}/hidden_kernel"] + weights[f"{prefix}/hidden_bias"]
    heads = np.maximum(hidden, 0.0) @ weights[f"{prefix}/heads_kernel"]
    found = dict(zip(HEADS, np.split(heads + weights[f"{prefix}/heads_bias"], 4), strict=True))
    found["erase"], found["add"] = sigmoid(found["erase"]), np.tanh(found["add"])
    for head, use in enumerate(("read", "write")):
        key, strength = found[f"{use}_key"], 1.0
        if learned_strength:
            kernel = weights[f"{prefix}/strength_kernel"][:, head]
            strength += math.log1p(
                math.exp(key @ kernel + weights[f"{prefix}/strength_bias"][head])
            )
        found[f"{use}_weights"] = softmax([strength * cosine(key, slot) for slot in memory])
    found["read"] = sum(w * slot for w, slot in zip(found["read_weights"], memory, strict=True))
    found["written"] = written_alone(memory, found, 1.0)
    found["anchor"] = sum(
        w * slot for w, slot in zip(found["write_weights"], found["written"], strict=True)
    )
    return found


def written_alone(memory, found, share):
    slots = [
        (1.0 - share * w * found["erase"]) * slot + share * w * found["add"]
        for w, slot in zip(found["write_weights"], memory, strict=True)
    ]
    return np.stack(slots)


def paired(f, r, w, variant):
    """The fusion of short-term interest f and long-term interest r; `w` finds its weights."""
    if variant.memory == "none":
        return f * sigmoid(f @ w("short_term_gate_kernel"))
    if variant.pair == "gate":
        gated = f * sigmoid(f @ w("short_term_gate_kernel"))
        return np.concatenate([gated, r * sigmoid(r @ w("long_term_gate_kernel"))])
    if variant.pair == "concat":
        return np.concatenate([f, r])
    if variant.pair == "ffn":
        hidden = f @ w("of_short_term_kernel") + w("of_short_term_bias")
        other = r @ w("of_long_term_kernel") + w("of_long_term_bias")
        return np.maximum(np.concatenate([hidden, other]), 0.0)
    projected = f @ w("projection_kernel")
    if variant.pair == "cross":
        return np.concatenate([projected + r, projected - r, projected * r])
    tokens = (projected, r)
    scores = [(np.tanh(x @ w("hidden_kernel")) @ w("score_kernel"))[0] for x in tokens]
    return sum(s * x for s, x in zip(softmax(scores), tokens, strict=True))


def forward(weights, schema, encoded, labels, variant, num_heads):
    """All valid candidates of a batch, and the samples `{feedback: [(request, item, vector)]}`."""
    table = weights["embeddings"]
    e = {name: np.asarray(value) for name, value in encoded.items()}
    groups = {"context": schema.context, "candidate": schema.candidate}
    for sequence in (*schema.histories, *schema.samples):
        groups[sequence.name] = [schema.feature(name) for name in sequence.features]
    widths = {group: [f.max_values for f in used] for group, used in groups.items()}

    def vector(group, *position):
        rows, shares = e[f"{group}_rows"][position], e[f"{group}_weights"][position]
        return fields(table, rows, shares, widths[group])

    candidates, samples = [], {name: [] for name in variant.histories}
    for r, count in enumerate(e["num_candidates"]):
        user = vector("context", r)
        events = {
            x: np.array([vector(x, r, j) for j in range(e[f"{x}_length"][r])])
            for x in variant.histories
        }
        for x in variant.histories:
            for k in range(e[f"{x}_sample_length"][r]):
                item = tuple(e[f"{x}_sample_rows"][r, k])
                samples[x].append((r, item, vector(f"{x}_sample", r, k)))
        for n in range(count):
            item = vector("candidate", r, n)
            pooled = {}
            for x in variant.histories:
                kernels = [weights[f"{x}/{name}_kernel"] for name in KERNELS]
                longest = schema.history(x).max_length
                pooled[x] = interaction_attention(
                    user, item, events[x], kernels, num_heads, longest
                )
            has = {x: len(events[x]) > 0 for x in variant.histories}
            found = Candidate(r, n, labels[r, n], 1.0 / count, has, pooled)
            score(found, user, item, weights, variant)
            candidates.append(found)
    return candidates, samples


def score(candidate, user, item, weights, variant):
    """Purification, memories, fusion and output network of one candidate, in place."""
    parts = [user, item]
    for x in variant.histories:
        f = candidate.pooled[x]
        if variant.purify and x in EXPLICIT:
            f = purified(f, candidate.pooled[EXPLICIT[x]])
        candidate.short_term[x], read = f, None
        if variant.memory != "none":
            prefix = variant.memory_of(x)
            candidate.access[x] = access(f, user, weights, prefix, variant.learned_strength)
            read = candidate.access[x]["read"]
        parts.append(paired(f, read, lambda name, x=x: weights[f"{x}/pair_{name}"], variant))
    vector, layers = np.concatenate(parts), 0
    while f"deep_{layers + 1}/kernel" in weights:
        vector = vector @ weights[f"deep_{layers}/kernel"] + weights[f"deep_{layers}/bias"]
        vector, layers = np.maximum(vector, 0.0), layers + 1
    output = vector @ weights[f"deep_{layers}/kernel"] + weights[f"deep_{layers}/bias"]
    candidate.logit = output[0]
