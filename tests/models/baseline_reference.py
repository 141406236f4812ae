"""The baselines in plain numpy, float64: one candidate at a time, all its fields in one list.

Written from the papers' equations; shares no code with the package: weights and rows of the
embedding table come in as arrays. A feature of a history is one field with several values.
"""

import dataclasses

import numpy as np

from tests.layers.reference import softmax

DICE_EPSILON, NORMALIZATION_EPSILON = 1e-9, 1e-3


@dataclasses.dataclass
class Fields:
    """The vectors of one candidate's fields, and w0 + the sum of their scalars."""

    user: list
    candidate: list
    linear: float
    position: tuple

    @property
    def all(self):
        return [*self.user, *self.candidate]


class Referee:
    """Logits of one model.

    Args:
        weights: float64 arrays by name.
        schema: of the requests.
        encoded: rows and weights of a batch, as arrays.
        num_heads: of AutoInt.
        crosses: pairs of features of Wide & Deep.
    """

    def __init__(self, weights, schema, encoded, num_heads=2, crosses=()):
        self.weights, self.schema, self.encoded = weights, schema, encoded
        self.num_heads, self.crosses = num_heads, crosses
        self.groups = {"context": schema.context, "candidate": schema.candidate}
        for history in schema.histories:
            self.groups[history.name] = [schema.feature(name) for name in history.features]
        counts = encoded["num_candidates"]
        self.candidates = [(r, n) for r, count in enumerate(counts) for n in range(count)]
        self.tables, total = {}, 0
        for name, feature in schema.tables.items():
            self.tables[name], total = total, total + feature.num_rows
        self.scalars, total = {}, 0
        for group, features in self.groups.items():
            for feature in features:
                self.scalars[group, feature.name], total = total, total + feature.num_rows
        self.linear = weights.get("linear", np.zeros([total, 1]))

    def rows(self, group, *position):
        """The rows of each feature's values at one position of a batch."""
        rows = self.encoded[f"{group}_rows"][position]
        shares = self.encoded[f"{group}_weights"][position]
        found, start = {}, 0
        for feature in self.groups[group]:
            slots = slice(start, start + feature.max_values)
            found[feature.name] = [int(row) for row in rows[slots][shares[slots] > 0.0]]
            start += feature.max_values
        return found

    def lookup(self, group, *position):
        """The vector of each feature with its scalar w_k as last entry; values are averaged.

        Fields that share a table of vectors have scalars of their own.
        """
        found, table = [], self.weights["embeddings"]
        for name, rows in self.rows(group, *position).items():
            move = self.scalars[group, name] - self.tables[self.schema.feature(name).table]
            values = [np.append(table[row], self.linear[row + move]) for row in rows]
            found.append(mean(values, table.shape[1] + 1))
        return found

    def vectors(self, group, *position):
        return [field[:-1] for field in self.lookup(group, *position)]

    def events(self, history, r, look=None):
        """What `look` finds of each valid event: by default its fields' vectors side by side."""
        look = look or (lambda *at: np.concatenate(self.vectors(*at)))
        return [look(history, r, j) for j in range(self.encoded[f"{history}_length"][r])]

    def fields(self, r, n):
        context, candidate = self.lookup("context", r), self.lookup("candidate", r, n)
        means, width = [], self.weights["embeddings"].shape[1] + 1
        for history in self.schema.histories:
            events = self.events(history.name, r, self.lookup)
            for f in range(len(history.features)):
                means.append(mean([event[f] for event in events], width))
        groups = ([*context, *means], candidate)
        linear = self.weights.get("linear_bias", 0.0)
        linear += sum(field[-1] for group in groups for field in group)
        return Fields(*([field[:-1] for field in group] for group in groups), linear, (r, n))

    def each(self, logit):
        return np.array([logit(self, self.fields(r, n)) for r, n in self.candidates])

    def dense(self, name, x):
        y = x @ self.weights[f"{name}/kernel"]
        return y + self.weights[f"{name}/bias"] if f"{name}/bias" in self.weights else y

    def mlp(self, name, rows, training=False):
        """ReLU or Dice layers over many rows; Dice is the only one where rows meet."""
        layer = 0
        while f"{name}/{layer}/kernel" in self.weights:
            rows = self.dense(f"{name}/{layer}", rows)
            dice = f"{name}/{layer}/alpha" in self.weights
            rows = self.dice(f"{name}/{layer}", rows, training) if dice else np.maximum(rows, 0.0)
            layer += 1
        return rows

    def dice(self, name, s, training):
        centre, variance = s.mean(axis=0), s.var(axis=0)
        if not training:
            centre = self.weights[f"{name}/moving_mean"]
            variance = self.weights[f"{name}/moving_variance"]
        p = 1.0 / (1.0 + np.exp(-(s - centre) / np.sqrt(variance + DICE_EPSILON)))
        return p * s + (1.0 - p) * self.weights[f"{name}/alpha"] * s

    def output(self, x):
        return float(self.dense("output", x)[..., 0])

    def deep_output(self, x):
        return self.output(self.mlp("deep", x[np.newaxis])[0])


def mean(values, width):
    return np.sum(values, axis=0) / len(values) if len(values) else np.zeros(width)


def pairs(vectors):
    return [(a, b) for i, a in enumerate(vectors) for b in vectors[i + 1 :]]


def fm(referee, fields):
    return fields.linear + sum(a @ b for a, b in pairs(fields.all))


def deepfm(referee, fields):
    return fm(referee, fields) + referee.deep_output(np.concatenate(fields.all))


def nfm(referee, fields):
    w = referee.weights
    vector = sum(a * b for a, b in pairs(fields.all))
    scale = w["gamma"] / np.sqrt(w["moving_variance"] + NORMALIZATION_EPSILON)
    normalized = (vector - w["moving_mean"]) * scale + w["beta"]
    return fields.linear + referee.deep_output(normalized)


def afm(referee, fields):
    products = [a * b for a, b in pairs(fields.all)]
    hidden = [np.maximum(referee.dense("attention", product), 0.0) for product in products]
    weights = softmax(np.array([x @ referee.weights["attention/projection"] for x in hidden])[:, 0])
    pooled = sum(w * product for w, product in zip(weights, products, strict=True))
    return fields.linear + referee.output(pooled)


def wide_deep(referee, fields):
    """A cross has the mean scalar of all combinations of its two features' values."""
    logit = fields.linear + referee.deep_output(np.concatenate(fields.all))
    r, n = fields.position
    rows = {**referee.rows("context", r), **referee.rows("candidate", r, n)}
    for (first, second), table in zip(referee.crosses, referee.weights["crosses"], strict=True):
        mixed = [a * 0x9E3779B1 + b * 0x85EBCA77 for a in rows[first] for b in rows[second]]
        logit += mean([table[(x ^ (x >> 15)) % len(table)] for x in mixed], 1)
    return logit.item()


def pnn(referee, fields):
    """z, inner and outer products; rows of the user's pairs stand beside the user's fields."""
    w, user, items = referee.weights, fields.user, fields.candidate
    kernels = iter(w["outer"]) if "outer" in w else None
    # Inner products stand candidate field by candidate field, kernel products user by user.
    inner = [a @ b for b in items for a in user] + [a @ b for a, b in pairs(items)]
    parts = [*user, [a @ b for a, b in pairs(user)]]
    if kernels is None:
        total = sum(fields.all)
        parts += [*items, inner, np.outer(total, total).ravel()]
    else:
        crosses = [(a, b) for a in user for b in items] + pairs(items)
        parts.append([a @ next(kernels) @ b for a, b in pairs(user)])
        parts += [*items, inner, [a @ next(kernels) @ b for a, b in crosses]]
    return referee.deep_output(np.concatenate(parts))


def dcn(referee, fields):
    w, first = referee.weights, np.concatenate(fields.all)
    x, layer = first, 0
    while f"cross/{layer}/bias" in w:
        kernel, bias = w[f"cross/{layer}/kernel"], w[f"cross/{layer}/bias"]
        x = first * (x @ kernel) + bias + x if kernel.ndim == 1 else first * (x @ kernel + bias) + x
        layer += 1
    deep = referee.mlp("deep", first[np.newaxis])[0]
    return referee.output(np.concatenate([x, deep]))


def autoint(referee, fields):
    w, rows, layer = referee.weights, fields.all, 0
    while f"round/{layer}/query" in w:
        names = ("query", "key", "value")
        q, k, v = ([e @ w[f"round/{layer}/{name}"] for e in rows] for name in names)
        attended = []
        for i, e in enumerate(rows):
            heads = []
            for head in np.split(np.arange(len(q[0])), referee.num_heads):
                shares = softmax(np.array([q[i][head] @ other[head] for other in k]))
                heads.append(sum(a * other[head] for a, other in zip(shares, v, strict=True)))
            joined = np.concatenate(heads)
            if f"round/{layer}/residual" in w:
                joined = joined + e @ w[f"round/{layer}/residual"]
            attended.append(np.maximum(joined, 0.0))
        rows, layer = attended, layer + 1
    return referee.output(np.concatenate(rows))


def din(referee, training=False, normalize=False):
    """Logits of a whole batch: in training Dice's statistics are those of all valid pairs."""
    interests = {at: [] for at in referee.candidates}
    for history in referee.schema.histories:
        slots = [[f.name for f in referee.schema.candidate].index(x) for x in history.features]
        meetings = []  # (candidate, event, [q, k, q - k, q * k])
        for r, n in referee.candidates:
            item = referee.vectors("candidate", r, n)
            q = np.concatenate([item[slot] for slot in slots])
            for k in referee.events(history.name, r):
                meetings.append(((r, n), k, np.concatenate([q, k, q - k, q * k])))
        rows = np.stack([x for _, _, x in meetings])
        hidden = referee.mlp(history.name, rows, training)
        scores = referee.dense(f"{history.name}/score", hidden)[:, 0]
        for at in referee.candidates:
            own = [i for i, (owner, _, _) in enumerate(meetings) if owner == at]
            weights = softmax(scores[own]) if normalize and own else scores[own]
            keys = [meetings[i][1] for i in own]
            pooled = sum((a * k for a, k in zip(weights, keys, strict=True)), np.zeros(len(q)))
            interests[at].append(pooled)
    rows = []
    for r, n in referee.candidates:
        parts = [*referee.vectors("context", r), *referee.vectors("candidate", r, n)]
        rows.append(np.concatenate([*parts, *interests[r, n]]))
    hidden = referee.mlp("deep", np.stack(rows), training)
    return np.array([referee.output(row) for row in hidden])
