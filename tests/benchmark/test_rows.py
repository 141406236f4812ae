import pytest

from tests.examples import small_schema
from tfrec_feedback.benchmark.rows import Row, dropped_rows, model_rows, sweep_rows
from tfrec_feedback.config import load_config
from tfrec_feedback.models import build_model


def test_models_become_tuned_rows_of_their_name():
    assert model_rows(["fm", "dfn"]) == [Row("fm", "fm"), Row("dfn", "dfn")]
    assert all(row.tune for row in model_rows(["fm"]))


def test_a_sweep_is_the_grid_of_its_values_and_not_tuned():
    rows = sweep_rows(["dfn", "dumn"], ["model.dislike_weight=1, 5", "train.epochs=2"])
    assert [row.label for row in rows] == [
        "dfn, dislike_weight=1, epochs=2",
        "dfn, dislike_weight=5, epochs=2",
        "dumn, dislike_weight=1, epochs=2",
        "dumn, dislike_weight=5, epochs=2",
    ]
    assert rows[1].overrides == ("model.dislike_weight=5", "train.epochs=2")
    assert not any(row.tune for row in rows)


def test_a_key_of_a_group_is_swept_as_in_a_configuration():
    row = sweep_rows(["dumn"], ["model.user_memory.memory_size=20"])[0]
    assert row.label == "dumn, memory_size=20"
    config = load_config(overrides=row.overrides)
    assert config.model.params() == {"user_memory": {"memory_size": 20}}


def test_a_list_is_one_value():
    rows = sweep_rows(["dfn"], ["model.deep_units=[8, 4],[16]"])
    assert [row.overrides for row in rows] == [
        ("model.deep_units=[8, 4]",),
        ("model.deep_units=[16]",),
    ]


@pytest.mark.parametrize("text", ["model.dislike_weight", "epochs=1,2", "train.epochs=1,,2"])
def test_a_sweep_of_another_form_is_an_error(text):
    with pytest.raises(ValueError, match=r"expected section.key=value,value"):
        sweep_rows(["dfn"], [text])


def test_a_key_that_is_swept_twice_is_an_error():
    sweep = ["train.epochs=1", "train.patience=2", "train.epochs=3"]
    with pytest.raises(ValueError, match=r"names train.epochs 2 times: expected every key once"):
        sweep_rows(["dfn"], sweep)


def test_each_history_is_dropped_once_beside_the_whole_model():
    rows = dropped_rows(["dfn"], small_schema(), load_config())
    labels = ["dfn", "dfn, no click", "dfn, no unclick", "dfn, no like", "dfn, no dislike"]
    assert [row.label for row in rows] == labels
    assert rows[0].overrides == ()
    # The like history is none of DFN's: there is nothing to tell the model.
    assert rows[3].overrides == ('data.drop=["like"]',)
    # Without the noisy history nothing can be instructed.
    assert rows[2].overrides == (
        'data.drop=["unclick"]',
        'model.internal=["click", "dislike"]',
        "model.external=[]",
    )


def test_what_the_settings_drop_stays_dropped():
    config = load_config(overrides=['data.drop=["hour", "like"]'])
    rows = dropped_rows(["dfn_no_feedback"], small_schema(), config)
    assert [row.label for row in rows[1:]] == [
        "dfn_no_feedback, no click",
        "dfn_no_feedback, no unclick",
        "dfn_no_feedback, no dislike",
    ]
    assert rows[1].overrides == ('data.drop=["hour", "like", "click"]',)


@pytest.mark.parametrize("model", ["dfn", "dumn"])
def test_models_can_be_built_without_each_history(model):
    for row in dropped_rows([model], small_schema(), load_config()):
        config = load_config(overrides=row.overrides)
        schema = small_schema().without(config.data.drop)
        small = {"embedding_dim": 4, "num_heads": 1}
        assert build_model(model, schema, **small, **config.model.params()).built
