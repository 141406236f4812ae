import re
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.model_config import read_config_file
from tests.deploy.protos import message_class

DOCKER = Path(__file__).parents[2] / "docker"


def parse(name, message):
    return text_format.Parse((DOCKER / name).read_text("utf-8"), message)


def flags():
    """Flags of the stock server that its entry point sets, by name."""
    text = (DOCKER / "tensorflow-serving.sh").read_text("utf-8")
    return dict(re.findall(r'^  --(\w+)=("[^"]*"|\S+)', text, re.M))


def test_the_models_are_read_by_both_servers():
    parsed = parse("models.config", model_server_config_pb2.ModelServerConfig())
    (config,) = parsed.model_config_list.config
    assert (config.name, config.base_path) == ("dfn", "/models/dfn")
    assert config.model_version_policy.latest.num_versions == 1
    (ours,) = read_config_file(DOCKER / "models.config")
    assert (ours.name, str(ours.base_path)) == ("dfn", "/models/dfn")


def test_batches_are_padded_and_their_sizes_end_with_the_largest():
    config = parse("batching.config", message_class("BatchingParameters")())
    sizes = list(config.allowed_batch_sizes)
    assert sizes == sorted(sizes)
    # TensorFlow Serving exits otherwise.
    assert sizes[-1] == config.max_batch_size.value
    assert config.pad_variable_length_inputs
    assert config.batch_timeout_micros.value > 0


def test_monitoring_is_on_at_the_path_that_is_scraped():
    config = parse("monitoring.config", message_class("MonitoringConfig")())
    assert config.prometheus_config.enable
    scraped = (DOCKER / "prometheus" / "prometheus.yml").read_text("utf-8")
    assert f"metrics_path: {config.prometheus_config.path}\n" in scraped


def test_the_tls_example_parses_and_asks_clients_for_a_certificate():
    config = parse("ssl.config.example", message_class("SSLConfig")())
    assert config.client_verify
    assert config.server_key.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert config.server_cert and config.custom_ca


@pytest.mark.parametrize("wrong", ["max_batch: 3", "max_batch_size: 3", "allowed_batch_sizes: 'a'"])
def test_the_rebuilt_messages_refuse_what_is_wrong(wrong):
    with pytest.raises(text_format.ParseError):
        text_format.Parse(wrong, message_class("BatchingParameters")())


def test_the_entry_point_becomes_the_server_and_sets_every_flag_with_its_reason():
    text = (DOCKER / "tensorflow-serving.sh").read_text("utf-8")
    assert "\nexec tensorflow_model_server " in text
    assert flags() == {
        "port": "8500",
        "rest_api_port": "8501",
        "model_config_file": "/etc/tfserving/models.config",
        "model_config_file_poll_wait_seconds": "30",
        "monitoring_config_file": "/etc/tfserving/monitoring.config",
        "tensorflow_intra_op_parallelism": "1",
        "tensorflow_inter_op_parallelism": '"${CORES:-$(nproc)}"',
        "num_load_threads": "1",
        "num_unload_threads": "1",
        "max_num_load_retries": "1",
        "load_retry_interval_micros": "1000000",
        "enable_batching": "false",
    }
    reasons = set(re.findall(r"--(\w+)", text[text.index("# Why") :]))
    plain = {"port", "model_config_file", "monitoring_config_file"}
    assert set(flags()) - plain <= reasons


def test_every_file_a_flag_names_is_there():
    text = (DOCKER / "tensorflow-serving.sh").read_text("utf-8")
    names = set(re.findall(r"/etc/tfserving/([\w.]+)", text))
    assert names == {"models.config", "monitoring.config", "batching.config"}
    assert all((DOCKER / name).is_file() for name in names)
