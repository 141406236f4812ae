import pytest

from tfrec_feedback.config import Config, ConfigError, load_config


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[train]\nepochs = 3\nseed = 7\n[model]\nname = 'dfn_click'\nnum_heads = 2\n")
    config = load_config(path, ["train.epochs=2", "model.deep_units=[8, 4]", "model.note=plain"])
    assert (config.train.epochs, config.train.seed) == (2, 7)
    assert config.model.name == "dfn_click"
    assert config.model.params() == {"num_heads": 2, "deep_units": [8, 4], "note": "plain"}
    assert config.data == Config().data


def test_one_option_of_a_group_is_overridden_and_the_rest_stays(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[model.user_memory]\nmemory_size = 64\nkey_strength = 1.0\n")
    config = load_config(path, ["model.user_memory.key_strength=learned"])
    assert config.model.params()["user_memory"] == {"memory_size": 64, "key_strength": "learned"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=2", "unknown key 'train.epoch'.*Did you mean 'epochs'"),
        ("trian.epochs=2", "unknown key 'trian'.*Did you mean 'train'"),
        ("train.epochs=0", "train.epochs: .*greater than or equal to 1, got 0"),
        ("train.epochs=many", "train.epochs: .*valid integer.*got 'many'"),
        ("epochs=2", "expected section.key=value"),
        ("train.epochs", "expected section.key=value"),
        ("model.a.b.c=1", "expected section.key=value"),
        ("model.name.size=1", "unknown key|valid string"),
        ("optimizer.name=sgd", "lazy_adam"),
    ],
)
def test_wrong_overrides_say_what_was_expected(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[override])


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="No configuration at .*absent.toml"):
        load_config(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[train\n")
    with pytest.raises(ConfigError, match="broken.toml is not valid TOML"):
        load_config(broken)
