"""UMN, the user memory network: one memory a feedback, and the loss that teaches it to write."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfrec_feedback.layers import MemoryAccess, UserMemory
from tfrec_feedback.layers.memory_addressing import Sums
from tfrec_feedback.losses import MININGS, SampledItems, triplet_loss
from tfrec_feedback.models.arguments import check_types
from tfrec_feedback.schema import Schema, SchemaError, suggest

_OPPOSITES = {
    "click": ("unclick",),
    "unclick": ("click",),
    "like": ("dislike", "unclick"),
    "dislike": ("like", "click"),
}

Tensors = dict[str, tf.Tensor]
_HASH = 0x1E3779B97F4A7C15
_POSITIVE = 2**62 - 1


class UserInterests(NamedTuple):
    """What a model knows of the users of a batch, by feedback.

    Attributes:
        pooled: `[R, N, E]`, each history read for the candidate.
        short_term: the same after purification, where the model purifies.
        long_term: accesses to the memories; empty without memories.
        samples: items drawn from the users' earlier logs, as vectors `[P, E]`, where the batch
            has them.
    """

    pooled: Tensors
    short_term: Tensors
    long_term: dict[str, MemoryAccess]
    samples: dict[str, SampledItems]


def opposites(histories: Sequence[str]) -> dict[str, str | None]:
    """Returns the feedback whose items are the negatives of each feedback's triplets.

    As printed where it is read; for a model without likes, clicks are the opposite of dislikes,
    and unclicks of likes without dislikes. None where there is no opposite.

    Example:
        >>> opposites(["click", "unclick", "dislike"])
        {'click': 'unclick', 'unclick': 'click', 'dislike': 'click'}
    """
    found = {}
    for name in histories:
        read = [other for other in _OPPOSITES.get(name, ()) if other in histories]
        found[name] = read[0] if read else None
    return found


def add_sums(first: Any, second: Any) -> Any:
    """Adds the write sums of two parts of a batch."""
    return tf.nest.map_structure(tf.add, first, second)


def sampled_items(
    schema: Schema, events: Mapping[str, tf.RaggedTensor], encoded: Tensors
) -> dict[str, SampledItems]:
    """Lists the items drawn for a batch of requests, by feedback.

    Args:
        schema: what the requests hold.
        events: for each feedback, ragged float tensor `[R, (k), F, D]`, the fields of its items:
            `EmbeddedRequest.samples`.
        encoded: output of `FeatureEncoder`, for the identity of the items.
    """
    items = {}
    for name, ragged in events.items():
        sequence, flat = schema.history(name).samples, ragged.flat_values
        # What pads a multi-valued field has weight 0 and says nothing about the item.
        weights = tf.cast(encoded[f"{sequence.name}_weights"] > 0.0, tf.int32)
        rows = tf.RaggedTensor.from_tensor(
            encoded[f"{sequence.name}_rows"] * weights, encoded[sequence.length]
        )
        vectors = tf.reshape(flat, [-1, flat.shape[-2] * flat.shape[-1]])
        items[name] = SampledItems(vectors, ragged.value_rowids(), _keys(rows.flat_values))
    return items


def _keys(rows: tf.Tensor) -> tf.Tensor:
    """Returns one number an item: every slot's row times its own odd number, summed.

    The odd numbers are powers, not multiples of one another, lest few rows up in one slot be made
    up for by few rows down in the next.
    """
    odd = [pow(_HASH, slot + 1, 2**62) for slot in range(rows.shape[-1])]
    keys = tf.reduce_sum(tf.cast(rows, tf.int64) * tf.constant(odd, tf.int64), axis=-1)
    return tf.bitwise.bitwise_and(keys, _POSITIVE)


def make_user_memory(
    schema: Schema, histories: Sequence[str], embedding_dim: int, options: Mapping[str, Any]
) -> UserMemoryNetwork:
    """Returns a memory for each of a schema's histories.

    Args:
        schema: what a request holds.
        histories: the feedbacks.
        embedding_dim: width of a field of the samples.
        options: of `UserMemoryNetwork`.

    Raises:
        SchemaError: when the triplet loss needs samples that the schema does not have.
        ValueError: for an unknown option, or one of another type.
    """
    known = list(inspect.signature(UserMemoryNetwork.__init__).parameters)[3:-1]
    for key in options:
        if key not in known:
            raise ValueError(
                f"user_memory has no option {key!r}; it takes {known}.{suggest(key, known)}"
            )
    check_types("user_memory", options, UserMemoryNetwork.__init__)
    if not histories:
        raise ValueError("user_memory needs at least one history to remember.")
    pairs = opposites(histories)
    compared = [name for pair in pairs.items() if pair[1] for name in pair if name]
    width = len(schema.history(compared[0]).features) * embedding_dim if compared else None
    network = UserMemoryNetwork(pairs, width, **options, name="user_memory")
    lacking = [name for name in network.sampled if not schema.history(name).num_samples]
    if lacking:
        raise SchemaError(
            f"The triplet loss needs samples of the histories {lacking}, which the data do not "
            "hold. Prepare them with `--samples 4`, or train without the loss "
            "(--set model.user_memory.triplet_weight=0)."
        )
    check_same_features(schema, network.sampled, "The triplet loss compares their items")
    if network.shared:
        check_same_features(schema, histories, "One memory is shared by them")
    return network


def check_same_features(schema: Schema, histories: Sequence[str], why: str) -> None:
    """Raises `SchemaError` when histories do not repeat the same features in the same order.

    Args:
        schema: what a request holds.
        histories: their names.
        why: what they need it for; begins the message.
    """
    features = {name: schema.history(name).features for name in histories}
    if len(set(features.values())) > 1:
        raise SchemaError(
            f"{why}, so these histories must repeat the same features in the same order, got "
            f"{ {name: list(of) for name, of in features.items()} }."
        )


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class UserMemoryNetwork(tf.keras.layers.Layer):
    """One `UserMemory` a feedback, read and written with that feedback's short-term interest.

    A triplet loss pulls what is written towards items the user gave this feedback, and away from
    items of the opposite feedback. Items are drawn from the user's whole earlier log (`samples`
    of the schema's histories) and enter through one projection into the memories' space.

    Args:
        opposites: for every feedback with a memory, the feedback of its triplets' negatives, or
            None for no triplet; see `opposites`.
        sample_width: width of the samples; None without triplets. A width other than `word_size`
            is projected to it, by one projection for all feedbacks: an item looks the same to
            every memory.
        memory_size: see `UserMemory`.
        word_size: see `UserMemory`.
        controller_units: see `UserMemory`.
        key_strength: see `UserMemory`.
        write_rule: see `UserMemory`.
        max_norm: see `UserMemory`.
        shared: one memory and one controller for all feedbacks (UMN1).
        triplet_weight: weight of the sum of the triplet losses; 0 leaves them out.
        margin: of the triplet loss.
        mining: `batch_hard`, `user_hard` or `random`, see `triplet_loss`.

    Call arguments:
        short_term: for each feedback, float tensor `[R, N, E]`.
        user: float tensor `[R, U]`.

    Returns:
        for each feedback, float tensor `[R, N, W]`: the long-term interest.

    Example:
        >>> network = UserMemoryNetwork({"click": None}, memory_size=8, word_size=4)
        >>> network({"click": tf.ones([2, 3, 5])}, tf.ones([2, 6]))["click"].shape
        TensorShape([2, 3, 4])

    Reference: Bian et al., 2021 (DUMN), sections 3.4 and 3.6.
    """

    def __init__(
        self,
        opposites: Mapping[str, str | None],
        sample_width: int | None = None,
        memory_size: int = 256,
        word_size: int = 64,
        controller_units: int = 512,
        key_strength: float | str = 1.0,
        write_rule: str = "mean",
        max_norm: float | None = None,
        shared: bool = False,
        triplet_weight: float = 1.0,
        margin: float = 0.2,
        mining: str = "batch_hard",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if mining not in MININGS:
            raise ValueError(f"mining must be one of {list(MININGS)}, got {mining!r}.")
        if triplet_weight < 0:
            raise ValueError(f"triplet_weight must not be negative, got {triplet_weight}.")
        self.opposites = dict(opposites)
        self._options: dict[str, Any] = {
            "memory_size": memory_size,
            "word_size": word_size,
            "controller_units": controller_units,
            "key_strength": key_strength,
            "write_rule": write_rule,
            "max_norm": max_norm,
        }
        self.shared = shared
        self.triplet_weight = triplet_weight
        self.margin = margin
        self.mining = mining
        names = ["shared"] if shared else list(self.opposites)
        memories = [UserMemory(**self._options, name=f"{name}_memory") for name in names]
        self.memories = memories
        self.sample_width = sample_width
        self._sample_projection = None
        if self.sampled and sample_width != word_size:
            self._sample_projection = tf.keras.layers.Dense(
                word_size, use_bias=False, name="sample_projection"
            )
            self._sample_projection.build((None, sample_width))

    @property
    def sampled(self) -> list[str]:
        """Feedbacks whose samples the triplet losses need."""
        if not self.triplet_weight:
            return []
        pairs = [pair for pair in self.opposites.items() if pair[1] is not None]
        return sorted({str(name) for pair in pairs for name in pair})

    def memory(self, name: str) -> UserMemory:
        """Returns the memory of a feedback."""
        return self.memories[0 if self.shared else list(self.opposites).index(name)]

    def call(self, short_term: Tensors, user: tf.Tensor) -> Tensors:
        """Reads every memory."""
        return {name: self.memory(name)(short_term[name], user) for name in self.opposites}

    def access(self, short_term: Tensors, user: tf.Tensor) -> dict[str, MemoryAccess]:
        """Reads every memory and prepares its write; see `UserMemory.access`."""
        return {name: self.memory(name).access(short_term[name], user) for name in self.opposites}

    def objective(
        self, interests: UserInterests, lengths: Tensors, valid: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, Sums]]:
        """Returns the triplet loss of a batch, and what `commit` needs to write it.

        Accesses without a history of their feedback are neither anchors nor written; the writes
        of a request's candidates weigh 1 / N each. Short-term interests that no candidate enters
        access a memory once a request, N = 1.

        Args:
            interests: with accesses, and samples where there is a triplet loss.
            lengths: for each feedback, integer tensor `[R]`.
            valid: float tensor `[R, N]`, 0 at padded candidates.
        """
        valid = valid[:, : tf.shape(interests.pooled[next(iter(self.opposites))])[1]]
        valid_of = {
            name: valid * tf.cast(lengths[name] > 0, tf.float32)[:, tf.newaxis]
            for name in self.opposites
        }
        share = 1.0 / tf.maximum(tf.reduce_sum(valid, axis=1, keepdims=True), 1.0)
        writes = {name: of_feedback * share for name, of_feedback in valid_of.items()}
        loss = self._triplet_losses(interests, valid_of)
        return loss, self._write_sums(interests.long_term, writes)

    def _triplet_losses(self, interests: UserInterests, valid: Tensors) -> tf.Tensor:
        missing = [name for name in self.sampled if name not in interests.samples]
        if missing:
            raise ValueError(
                f"The batch holds no samples of {missing} for the triplet loss. Read it with "
                "request_dataset(..., samples=True), from data prepared with samples."
            )
        samples = {name: self._project(interests.samples[name]) for name in self.sampled}
        losses = [tf.constant(0.0)]
        for name, opposite in self.opposites.items():
            if not samples or opposite is None:
                continue
            where = tf.where(valid[name] > 0.0)
            loss = triplet_loss(
                tf.gather_nd(interests.long_term[name].anchor, where),
                where[:, 0],
                samples[name],
                samples[opposite],
                margin=self.margin,
                mining=self.mining,
            )
            losses.append(loss)
        return self.triplet_weight * tf.add_n(losses)

    def _project(self, items: SampledItems) -> SampledItems:
        if self._sample_projection is None:
            return items
        return items._replace(vectors=self._sample_projection(items.vectors))

    def _write_sums(self, accesses: dict[str, MemoryAccess], weights: Tensors) -> dict[str, Sums]:
        sums: dict[str, Sums] = {}
        for name in self.opposites:
            memory = self.memory(name)
            found = memory.write_sums(accesses[name], weights[name])
            before = sums.get(memory.name)
            sums[memory.name] = found if before is None else add_sums(before, found)
        return sums

    def commit(self, sums: Mapping[str, Sums]) -> None:
        """Writes every memory, once an optimiser step.

        Args:
            sums: of `objective`; those of parts of a batch, added by `add_sums`.
        """
        for memory in self.memories:
            memory.commit(sums[memory.name])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "opposites": dict(self.opposites),
            "sample_width": self.sample_width,
            **self._options,
            "shared": self.shared,
            "triplet_weight": self.triplet_weight,
            "margin": self.margin,
            "mining": self.mining,
        }
