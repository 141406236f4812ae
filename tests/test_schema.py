import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrec_feedback.schema import (
    Buckets,
    Feature,
    FeedbackSequence,
    Hashing,
    Identity,
    InputSpec,
    Schema,
    SchemaError,
    Task,
    Vocabulary,
    suggest,
)

ITEM = Feature("item", Vocabulary(tokens=(10, 11, 12), dtype="int64"))
TAG = Feature("tag", Hashing(50), max_values=2)
HOUR = Feature("hour", Identity(24))
PRICE = Feature("price", Buckets((1.0, 5.0)))
SCHEMA = Schema(
    context=(HOUR, Feature("last_item", ITEM.encoding, table="item")),
    candidate=(ITEM, TAG, PRICE),
    histories=(
        FeedbackSequence("click", ("item", "tag"), max_length=30),
        FeedbackSequence("dislike", ("item",), max_length=5),
    ),
    tasks=(Task("ctr", ("click", "like"), negative=("dislike",)), Task("dislike", ("dislike",))),
)


def file_schema(size: int = 3, directory=None, dtype: str = "string") -> Schema:
    encoding = Vocabulary(file="vocabularies/item.txt", size=size, dtype=dtype)
    return Schema((), (Feature("item", encoding),), directory=directory)


def write_vocabulary(directory, text: str) -> None:
    (directory / "vocabularies").mkdir()
    (directory / "vocabularies" / "item.txt").write_text(text, encoding="utf-8")


# --- tensors -------------------------------------------------------------------------------------


def test_inputs_are_context_candidates_histories_in_order():
    specs = [(s.name, s.dtype, s.axes, s.role, s.sequence) for s in SCHEMA.inputs()]
    assert specs == [
        ("hour", "int64", ("R",), "context", None),
        ("last_item", "int64", ("R",), "context", None),
        ("item", "int64", ("R", "N"), "candidate", None),
        ("tag", "string", ("R", "N", 2), "candidate", None),
        ("tag_count", "int64", ("R", "N"), "candidate", None),
        ("price", "float32", ("R", "N"), "candidate", None),
        ("num_candidates", "int64", ("R",), "candidate", None),
        ("click_item", "int64", ("R", "T"), "history", "click"),
        ("click_tag", "string", ("R", "T", 2), "history", "click"),
        ("click_tag_count", "int64", ("R", "T"), "history", "click"),
        ("click_length", "int64", ("R",), "history", "click"),
        ("dislike_item", "int64", ("R", "T"), "history", "dislike"),
        ("dislike_length", "int64", ("R",), "history", "dislike"),
    ]


def test_inputs_name_the_feature_they_hold_but_counts_and_lengths_hold_none():
    features = {spec.name: spec.feature for spec in SCHEMA.inputs()}
    assert features["click_tag"] is TAG
    assert features["last_item"] is SCHEMA.context[1]
    for name in ("tag_count", "click_tag_count", "click_length", "num_candidates"):
        assert features[name] is None


def test_row_inputs_are_the_same_without_the_candidate_axis():
    rows = {spec.name: spec.axes for spec in SCHEMA.row_inputs()}
    assert set(rows) == {spec.name for spec in SCHEMA.inputs()} - {"num_candidates"}
    assert rows["item"] == ("R",)
    assert rows["tag"] == ("R", 2)
    assert rows["tag_count"] == ("R",)
    assert rows["click_tag"] == ("R", "T", 2)
    assert rows["hour"] == ("R",)
    assert SCHEMA.row_inputs()[2] == InputSpec("item", "int64", ("R",), "candidate", ITEM)


def test_multi_valued_context_has_one_more_axis():
    schema = Schema((Feature("langs", Hashing(9), max_values=4),), (ITEM,))
    assert [(s.name, s.axes) for s in schema.inputs()[:2]] == [
        ("langs", ("R", 4)),
        ("langs_count", ("R",)),
    ]


def test_samples_are_training_inputs_only_and_look_like_a_history():
    histories = (
        FeedbackSequence("click", ("item", "tag"), max_length=30, num_samples=4),
        FeedbackSequence("dislike", ("item",), max_length=5),
    )
    schema = Schema(SCHEMA.context, SCHEMA.candidate, histories, SCHEMA.tasks)
    assert schema.inputs() == SCHEMA.inputs()
    assert schema.row_inputs() == SCHEMA.row_inputs()
    assert schema.samples == (FeedbackSequence("click_sample", ("item", "tag"), max_length=4),)
    training = schema.training_inputs()
    assert training[: len(schema.inputs())] == schema.inputs()
    assert training[len(schema.inputs()) :] == (
        InputSpec("click_sample_item", "int64", ("R", "T"), "history", ITEM, "click_sample"),
        InputSpec("click_sample_tag", "string", ("R", "T", 2), "history", TAG, "click_sample"),
        InputSpec("click_sample_tag_count", "int64", ("R", "T"), "history", None, "click_sample"),
        InputSpec("click_sample_length", "int64", ("R",), "history", None, "click_sample"),
    )


def test_session_numbers_stand_before_the_lengths_and_samples_have_none():
    clicks = FeedbackSequence("click", ("item",), num_samples=4, num_sessions=5)
    schema = Schema((), (ITEM,), (clicks, SCHEMA.histories[1]))
    assert schema.training_inputs()[2:] == (
        InputSpec("click_item", "int64", ("R", "T"), "history", ITEM, "click"),
        InputSpec("click_session", "int64", ("R", "T"), "history", None, "click"),
        InputSpec("click_length", "int64", ("R",), "history", None, "click"),
        InputSpec("dislike_item", "int64", ("R", "T"), "history", ITEM, "dislike"),
        InputSpec("dislike_length", "int64", ("R",), "history", None, "dislike"),
        InputSpec("click_sample_item", "int64", ("R", "T"), "history", ITEM, "click_sample"),
        InputSpec("click_sample_length", "int64", ("R",), "history", None, "click_sample"),
    )
    assert clicks.session == "click_session"
    with pytest.raises(SchemaError, match="'dislike' has no sessions: give it `num_sessions`"):
        schema.history("dislike").session  # noqa: B018


def test_a_schema_can_be_had_without_its_sessions():
    histories = [FeedbackSequence(n, ("item",), 7, 4, num_sessions=5) for n in ("click", "like")]
    plain = Schema((HOUR,), (ITEM,), histories).without_sessions()
    assert [(h.name, h.max_length, h.num_samples, h.num_sessions) for h in plain.histories] == [
        ("click", 7, 4, 0),
        ("like", 7, 4, 0),
    ]
    assert SCHEMA.without_sessions() == SCHEMA


def test_a_schema_without_samples_trains_on_its_inputs():
    assert SCHEMA.samples == ()
    assert SCHEMA.training_inputs() == SCHEMA.inputs()
    with pytest.raises(SchemaError, match="'click' has no samples: give it `num_samples`"):
        SCHEMA.history("click").samples  # noqa: B018


# --- features and tables -------------------------------------------------------------------------


def test_embedding_rows_are_padding_unknown_and_the_values():
    assert ITEM.num_rows == 3 + 2
    assert HOUR.num_rows == 24 + 2
    assert TAG.num_rows == 50 + 2
    # Two boundaries cut three buckets.
    assert PRICE.num_rows == 3 + 2


def test_features_that_name_one_table_share_it():
    assert list(SCHEMA.tables) == ["price", "tag", "item", "hour"]
    assert SCHEMA.tables["item"].encoding == ITEM.encoding
    assert SCHEMA.feature("last_item").table == "item"
    assert HOUR.table == "hour"


def test_features_that_share_a_table_must_encode_alike():
    with pytest.raises(SchemaError, match="'other' and 'item' share table 'item' but encode"):
        Schema((Feature("other", Identity(3), table="item"),), (ITEM,))


def test_names_are_looked_up_and_the_closest_is_suggested():
    assert SCHEMA.feature("hour") is HOUR
    assert SCHEMA.history("click").max_length == 30
    with pytest.raises(SchemaError, match="Unknown feature 'huor'.*Did you mean 'hour'"):
        SCHEMA.feature("huor")
    with pytest.raises(SchemaError, match="Unknown feedback history 'clik'.*mean 'click'"):
        SCHEMA.history("clik")
    with pytest.raises(SchemaError, match="Unknown table 'items'.*mean 'item'"):
        SCHEMA.vocabulary("items")


def test_nothing_close_is_not_suggested():
    assert suggest("zzz", ["hour"]) == ""
    assert suggest("huor", ["hour", "item"]) == " Did you mean 'hour'?"


def test_feedbacks_are_those_of_all_tasks_sorted():
    assert SCHEMA.feedbacks == ("click", "dislike", "like")


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: Schema((HOUR,), ()), "at least one candidate feature"),
        (lambda: Schema((), (ITEM,), tasks=()), "at least one task"),
        (lambda: Schema((ITEM,), (ITEM,)), "Duplicate tensor 'item'"),
        (
            lambda: Schema((), (ITEM, Feature("num_candidates", Identity(3)))),
            "Duplicate tensor 'num_candidates'",
        ),
        (
            lambda: Schema((), (TAG, Feature("tag_count", Identity(3)))),
            "Duplicate tensor 'tag_count'",
        ),
        (
            lambda: Schema(
                (Feature("click_item", Identity(3)),),
                (ITEM,),
                (FeedbackSequence("click", ["item"]),),
            ),
            "Duplicate tensor 'click_item'",
        ),
        (
            lambda: Schema((), (ITEM,), (FeedbackSequence("click", ["item"]),) * 2),
            "Duplicate tensor 'click_item'",
        ),
        (
            lambda: Schema((), (ITEM,), (FeedbackSequence("click", ["item", "item"]),)),
            "Duplicate feature of FeedbackSequence 'click' 'item'",
        ),
        (lambda: Schema((), (ITEM,), tasks=(Task("a", ("b",)),) * 2), "Duplicate task 'a'"),
        (
            lambda: Schema((), (ITEM,), (FeedbackSequence("click", ["itm"]),)),
            "names 'itm', which is not a candidate feature.*mean 'item'",
        ),
        (
            lambda: Schema((HOUR,), (ITEM,), (FeedbackSequence("click", ["hour"]),)),
            "names 'hour', which is not a candidate feature",
        ),
        (lambda: Feature("Item", Identity(3)), "Feature name 'Item' is not usable"),
        (lambda: Feature("item\n", Identity(3)), "is not usable"),
        (lambda: Feature("item", Identity(3), table="a b"), "Table name 'a b'"),
        (lambda: Feature("item", "identity"), "encoding must be one of .*'Identity'"),
        (lambda: Feature("item", Identity(3), max_values=0), "max_values must be a positive"),
        (lambda: FeedbackSequence("click", ()), "lists no candidate features"),
        (lambda: FeedbackSequence("click", ("item",), max_length=0), "max_length must be a pos"),
        (
            lambda: FeedbackSequence("click", ("item",), num_samples=-1),
            "'click': num_samples must be an integer, 0 or more, got -1",
        ),
        (lambda: FeedbackSequence("click", ("item",), num_samples=True), "0 or more, got True"),
        (
            lambda: FeedbackSequence("click", ("item",), num_sessions=-1),
            "'click': num_sessions must be an integer, 0 or more, got -1",
        ),
        (
            lambda: Schema(
                (),
                (ITEM, Feature("session", Identity(3))),
                (FeedbackSequence("click", ("session",), num_sessions=2),),
            ),
            "Duplicate tensor 'click_session'",
        ),
        (lambda: FeedbackSequence("click", ("item",), num_samples=0.0), "0 or more, got 0.0"),
        (
            lambda: Schema(
                (Feature("click_sample_item", Identity(3)),),
                (ITEM,),
                (FeedbackSequence("click", ["item"], num_samples=1),),
            ),
            "Duplicate tensor 'click_sample_item'",
        ),
        (lambda: Task("ctr", ()), "lists no positive feedback"),
        (lambda: Task("ctr", ("Click",)), "name 'Click' is not usable"),
        (lambda: Identity(True), "positive integer, got True"),
        (lambda: Hashing(0), "Hashing size must be a positive integer"),
        (lambda: Hashing(3, dtype="float32"), "Hashing dtype must be"),
        (lambda: Buckets(()), "one or more strictly increasing"),
        (lambda: Buckets((1.0, 1.0)), "strictly increasing"),
        (lambda: Vocabulary(), "either `file` or `tokens`"),
        (lambda: Vocabulary(file="a", tokens=("b",)), "either `file` or `tokens`"),
        (lambda: Vocabulary(file="a"), "needs `size`"),
        (lambda: Vocabulary(dtype="float32", tokens=(1.0,)), "Vocabulary dtype must be"),
        (lambda: Vocabulary(tokens=("a", 1)), r"holds 1 \(int\); every token must be str"),
        (lambda: Vocabulary(tokens=(1, True), dtype="int64"), r"holds True \(bool\)"),
        (lambda: Vocabulary(tokens=("a\n",)), "line breaks"),
        (lambda: Vocabulary(tokens=("a", "b", "a")), "lists 'a' more than once"),
    ],
)
def test_schemas_that_make_no_sense_are_refused_with_the_reason(build, expected):
    with pytest.raises(SchemaError, match=expected):
        build()


# --- JSON ----------------------------------------------------------------------------------------


def test_a_schema_survives_json_text_and_file(tmp_path):
    path = tmp_path / "schema.json"
    text = SCHEMA.to_json(path)
    assert path.read_text() == text
    for source in (text, path, str(path)):
        assert Schema.from_json(source) == SCHEMA
    assert Schema.from_dict(SCHEMA.to_dict()) == SCHEMA


ENCODINGS = st.one_of(
    st.integers(1, 9).map(Identity),
    st.builds(Hashing, st.integers(1, 9), st.sampled_from(["string", "int64"])),
    st.lists(st.floats(-9, 9), min_size=1, unique=True).map(lambda b: Buckets(tuple(sorted(b)))),
    st.lists(st.text("abé\\\"'", max_size=3), min_size=1, max_size=3, unique=True).map(
        lambda tokens: Vocabulary(tokens=tuple(tokens))
    ),
    st.builds(lambda size: Vocabulary(file="v/x.txt", size=size), st.integers(1, 9)),
)


@given(
    st.lists(ENCODINGS, min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from([None, 0, 3]),
    st.sampled_from([0, 5]),
)
def test_any_schema_survives_json(encodings, cut, max_values, num_samples, num_sessions):
    features = [Feature(f"f{i}", e, max_values=max_values) for i, e in enumerate(encodings)]
    cut = min(cut, len(features) - 1)
    last = features[-1].name
    histories = (
        ()
        if num_samples is None
        else (FeedbackSequence("click", (last,), 7, num_samples, num_sessions),)
    )
    schema = Schema(tuple(features[:cut]), tuple(features[cut:]), histories)
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert again.training_inputs() == schema.training_inputs()


def test_what_may_be_left_out_of_json_takes_its_default():
    schema = Schema.from_json(
        '{"candidate": [{"name": "item", "encoding": {"kind": "hash", "size": 9}}]}'
    )
    assert schema == Schema((), (Feature("item", Hashing(9)),))
    for option in ("num_samples", "num_sessions"):
        text = changed(lambda data, o=option: [history.pop(o) for history in data["histories"]])
        assert Schema.from_json(text) == SCHEMA
    assert [task.name for task in schema.tasks] == ["ctr", "dislike"]


def changed(change) -> str:
    data = json.loads(SCHEMA.to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.update(version=9), "version 9 is not supported: this package reads version 1"),
        (lambda d: d.update(contxt=[]), "Unknown key 'contxt' in schema.*Did you mean 'context'"),
        (lambda d: d.pop("candidate"), r"Missing \['candidate'\] in schema"),
        (lambda d: d["candidate"].append(3), "Expected Feature to be a JSON object, got int"),
        (lambda d: d["candidate"][0].pop("name"), r"Missing \['name'\] in Feature"),
        (
            lambda d: d["context"][0]["encoding"].update(kind="identiti"),
            "'hour': unknown encoding kind 'identiti'.*mean 'identity'",
        ),
        (
            lambda d: d["context"][0]["encoding"].update(sise=3),
            "Unknown key 'sise' in encoding of feature 'hour'.*mean 'size'",
        ),
        (lambda d: d["histories"][0].pop("features"), r"Missing \['features'\]"),
        (lambda d: d["tasks"][0].update(postive=[]), "Unknown key 'postive' in Task"),
    ],
)
def test_json_that_is_no_schema_is_refused_naming_the_place(change, expected):
    with pytest.raises(SchemaError, match=expected):
        Schema.from_json(changed(change))


def test_broken_json_and_missing_files_are_refused(tmp_path):
    with pytest.raises(SchemaError, match="not valid JSON: .*line 1"):
        Schema.from_json('{"candidate": ')
    with pytest.raises(SchemaError, match="No schema at"):
        Schema.from_json(tmp_path / "none.json")


# --- vocabularies --------------------------------------------------------------------------------


def test_a_vocabulary_is_read_beside_its_schema(tmp_path):
    write_vocabulary(tmp_path, "a\n\né\n")  # the empty text is a value too
    file_schema().to_json(tmp_path / "schema.json")
    schema = Schema.from_json(tmp_path / "schema.json")
    assert schema.vocabulary("item") == ("a", "", "é")
    assert schema.vocabulary_path("item") == tmp_path / "vocabularies" / "item.txt"


def test_integer_vocabularies_are_read_as_integers(tmp_path):
    write_vocabulary(tmp_path, "3\n-1\n2")
    assert file_schema(directory=tmp_path, dtype="int64").vocabulary("item") == (3, -1, 2)


def test_inline_vocabularies_need_no_file():
    assert SCHEMA.vocabulary("item") == (10, 11, 12)
    with pytest.raises(SchemaError, match="Table 'item' has no vocabulary file"):
        SCHEMA.vocabulary_path("item")


def test_a_table_without_a_vocabulary_says_how_it_is_encoded():
    with pytest.raises(SchemaError, match="'hour' is encoded by identity"):
        SCHEMA.vocabulary("hour")


def test_a_missing_vocabulary_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(SchemaError, match="'item' is missing: looked for") as error:
        file_schema(directory=tmp_path).vocabulary("item")
    assert str(tmp_path / "vocabularies" / "item.txt") in str(error.value)


def test_a_vocabulary_of_another_length_is_refused(tmp_path):
    write_vocabulary(tmp_path, "a\nb\n")
    with pytest.raises(SchemaError, match="has 2 lines; the schema says 3"):
        file_schema(directory=tmp_path).vocabulary("item")


def test_vocabularies_can_be_taken_into_the_schema(tmp_path):
    write_vocabulary(tmp_path, "a\nb\nc\n")
    inline = file_schema(directory=tmp_path).with_inline_vocabularies()
    assert inline.candidate[0].encoding == Vocabulary(tokens=("a", "b", "c"))
    assert Schema.from_json(inline.to_json()).vocabulary("item") == ("a", "b", "c")
    assert SCHEMA.with_inline_vocabularies() == SCHEMA


def test_where_the_vocabularies_lie_does_not_matter_for_equality(tmp_path):
    assert file_schema(directory=tmp_path) == file_schema()


def test_the_schema_needs_neither_tensorflow_nor_numpy():
    heavy = "{'tensorflow', 'numpy'} & {*sys.modules}"
    code = f"import sys, tfrec_feedback.schema; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_features_and_histories_can_be_left_out():
    item, author = Feature("item_id", Identity(3)), Feature("item_author", Identity(2))
    both = ("item_id", "item_author")
    histories = [FeedbackSequence(n, both, num_samples=4) for n in ("click", "like")]
    schema = Schema((Feature("hour", Identity(24)),), (item, author), histories)
    smaller = schema.without(["hour", "item_author", "like"])
    assert [spec.name for spec in smaller.inputs()] == [
        "item_id", "num_candidates", "click_item_id", "click_length",
    ]  # fmt: skip
    assert smaller.samples == (FeedbackSequence("click_sample", ("item_id",), max_length=4),)
    with pytest.raises(SchemaError, match="Did you mean 'item_author'"):
        schema.without(["item_autor"])


@pytest.mark.parametrize("encoding", [5, "identity", None])
def test_an_encoding_that_is_no_object_is_refused(encoding):
    with pytest.raises(SchemaError, match="expected encoding to be a JSON object"):
        Schema.from_dict({"candidate": [{"name": "item_id", "encoding": encoding}]})


def test_a_vocabulary_file_of_integers_must_hold_integers(tmp_path):
    (tmp_path / "items.txt").write_text("7\nseven\n")
    encoding = Vocabulary(dtype="int64", file="items.txt", size=2)
    schema = Schema((), (Feature("item_id", encoding),), directory=tmp_path)
    with pytest.raises(SchemaError, match="items.txt .* one integer a line"):
        schema.vocabulary("item_id")


@pytest.mark.parametrize("boundaries", [(float("nan"),), (0.0, float("inf")), ()])
def test_bucket_boundaries_must_be_finite_numbers(boundaries):
    with pytest.raises(SchemaError, match="finite numbers"):
        Buckets(boundaries)


def test_an_empty_vocabulary_is_refused():
    with pytest.raises(SchemaError, match="at least one"):
        Vocabulary(tokens=())
