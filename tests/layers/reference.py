"""The printed equations of DFN in plain numpy, one candidate at a time."""

import numpy as np


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def internal(target, behaviours, kernels, num_heads, scale, transform=None, pooling="mean"):
    """f of one target [D] and its valid behaviours [n, D]; kernels are W_Q, W_K, W_V, W_O."""
    w_q, w_k, w_v, w_o = kernels
    rows = np.concatenate([target[None], behaviours])
    width = rows.shape[1] // num_heads
    heads = []
    for h in range(num_heads):
        columns = slice(h * width, (h + 1) * width)
        q, k, v = rows @ w_q[:, columns], rows @ w_k[:, columns], rows @ w_v[:, columns]
        heads.append(softmax(q @ k.T / scale) @ v)
    result = np.concatenate(heads, axis=1)
    if transform is not None:
        result = transform(result)
    pooled = result.mean(axis=0) if pooling == "mean" else result.sum(axis=0)
    return pooled if w_o is None else pooled @ w_o


def external(instructor, behaviours, weights, scale=1.0):
    """f of one instructor [D] and its valid behaviours [n, D], softmax normalisation."""
    kernel, bias, score_kernel, score_bias = weights
    if not len(behaviours):
        return np.zeros_like(instructor)
    g = np.broadcast_to(instructor, behaviours.shape)
    inputs = np.concatenate([g, behaviours, g - behaviours, g * behaviours], axis=1)
    scores = np.maximum(inputs @ kernel + bias, 0.0) @ score_kernel[:, 0] + score_bias[0]
    return softmax(scores * scale) @ behaviours
