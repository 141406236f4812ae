import json
import re
from pathlib import Path

import pytest
import typer
import yaml

from serving import http_port
from serving.metrics import Metrics
from serving.server import main

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
KUBERNETES = {
    manifest["kind"]: manifest
    for manifest in yaml.safe_load_all((DOCKER / "kubernetes" / "serving.yaml").read_text("utf-8"))
}
POD = KUBERNETES["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
SERVICE_KEYS = {
    *("build", "cap_drop", "command", "deploy", "entrypoint", "environment", "healthcheck"),
    *("image", "ports", "profiles", "read_only", "restart", "security_opt", "stop_grace_period"),
    *("stop_signal", "user", "volumes"),
}


def server_options():
    app = typer.Typer()
    app.command()(main)
    return {name for p in typer.main.get_command(app).params for name in p.opts}


def options_of(words):
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def image_command():
    text = (DOCKER / "serving.Dockerfile").read_text("utf-8").replace("\\\n", "")
    return [
        json.loads(re.search(rf"^{word} +(\[.*\])", text, re.M)[1])
        for word in ("ENTRYPOINT", "CMD")
    ]


def metric_names():
    names = set()
    for metric in vars(Metrics()).values():
        ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        names |= {metric.name + end for end in ends}
    return names


def labels_of(name):
    for metric in vars(Metrics()).values():
        if name in (metric.name, *(metric.name + end for end in ("_bucket", "_sum", "_count"))):
            return {*metric._labels, "le"} if metric.kind == "histogram" else set(metric._labels)
    raise AssertionError(name)


def expressions():
    rules = yaml.safe_load((DOCKER / "prometheus" / "rules.yml").read_text("utf-8"))
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "feedback.json").read_text("utf-8"))
    found += [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    return found + [v["query"]["query"] for v in dashboard["templating"]["list"]]


@pytest.mark.parametrize("expression", expressions())
def test_promql_asks_for_what_the_server_counts(expression):
    rules = yaml.safe_load((DOCKER / "prometheus" / "rules.yml").read_text("utf-8"))
    recorded = {rule.get("record") for group in rules["groups"] for rule in group["rules"]}
    plain = re.sub(r'"[^"]*"', '""', expression)
    names = re.findall(r"(?<![\w:]):?[a-z]+(?::\w+)+", plain)
    assert names or plain.startswith("up{")
    for name in names:
        assert name in metric_names() | recorded
        if name in recorded:
            continue
        asked = re.findall(rf"{name}{{([^}}]*)}}", plain)
        asked = {label for text in asked for label in re.findall(r"(\w+)(?=[=!])", text)}
        for grouped in re.findall(r"by \(([\w, ]+)\)", plain):
            asked |= set(grouped.split(", "))
        assert asked <= labels_of(name), f"{name} has no labels {asked - labels_of(name)}"
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


@pytest.mark.parametrize("expression", expressions())
def test_no_growth_is_asked_for_of_what_is_counted_by_version(expression):
    """A version's series begins where it ends: its `increase` is 0 from the first sample on."""
    for grown in re.findall(r"(?:rate|increase)\((\S+?)[{\[]", expression):
        assert "model_path" not in labels_of(grown)


def test_every_alert_says_what_it_means_and_what_to_do():
    rules = yaml.safe_load((DOCKER / "prometheus" / "rules.yml").read_text("utf-8"))
    alerts = [r for group in rules["groups"] for r in group["rules"] if "alert" in r]
    assert len(alerts) == 4
    for alert in alerts:
        assert alert["annotations"]["summary"] and alert["annotations"]["action"]
        assert alert["labels"]["severity"] in ("page", "ticket")


def test_compose_services_hold_only_what_compose_knows():
    assert set(COMPOSE) == {"name", "services", "volumes"}
    for name, service in COMPOSE["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        assert ("image" in service) != ("build" in service), name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DOCKER / source).is_dir(), source
            assert source[0] == "." or source in COMPOSE["volumes"], source
        for port in service["ports"]:
            assert re.fullmatch(r"(127\.0\.0\.1:)?\d+:\d+", port), port


def test_the_servers_of_compose_cannot_write_and_have_no_rights():
    serving, embedded = (COMPOSE["services"][name] for name in ("serving", "embedded"))
    assert serving["image"] == "tensorflow/serving:2.20.0"
    assert serving["user"] == "10001:10001"
    for service in (serving, embedded):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert all(volume.endswith(":ro") for volume in service["volumes"])
    folder, script = serving["entrypoint"][-1].rsplit("/", 1)
    assert f".:{folder}:ro" in serving["volumes"]
    assert (DOCKER / script).is_file()
    assert options_of(embedded["command"]) <= server_options()
    assert (DOCKER / embedded["build"]["dockerfile"].removeprefix("docker/")).is_file()


def test_ports_without_a_password_stay_on_the_machine():
    for service in COMPOSE["services"].values():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:") or port.endswith(":8500")


def test_the_image_runs_the_server_with_flags_it_has():
    entry, command = image_command()
    assert entry[:3] == ["python", "-m", "serving.server"]
    assert options_of(entry) | options_of(command) <= server_options()
    text = (DOCKER / "serving.Dockerfile").read_text("utf-8")
    assert "\nUSER 10001:10001\n" in text
    assert "\nHEALTHCHECK " in text
    assert text.count("\nFROM ") == 2


def test_the_image_without_a_command_serves_the_models_of_a_config_file():
    # compose.yaml replaces CMD: a base path beside a configuration file would be refused.
    entry, command = image_command()
    assert "--model-base-path" in command
    assert not {"--model-base-path", "--model-name"} & set(entry)


def test_probes_ask_ports_and_paths_that_the_server_has():
    entry, _ = image_command()
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports["grpc"] == int(entry[entry.index("--port") + 1])
    assert ports["http"] == int(entry[entry.index("--http-port") + 1])
    source = Path(http_port.__file__).read_text("utf-8")
    for probe in ("startupProbe", "livenessProbe"):
        asked = CONTAINER[probe]["httpGet"]
        assert asked["port"] == "http"
        assert f'"{asked["path"]}"' in source
    assert CONTAINER["readinessProbe"]["grpc"]["port"] == ports["grpc"]
    annotations = POD["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["http"])
    assert f'"{annotations["prometheus.io/path"]}"' in source
    assert options_of(CONTAINER["args"]) <= server_options()


def test_pods_have_time_to_drain():
    words = dict(word.split("=") for word in CONTAINER["args"])
    grace = POD["spec"]["terminationGracePeriodSeconds"]
    pause = int(
        re.search(r"sleep\((\d+)\)", CONTAINER["lifecycle"]["preStop"]["exec"]["command"][-1])[1]
    )
    assert grace > pause + int(words["--drain-seconds"])


def test_pods_cannot_write_and_have_no_rights():
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    context = CONTAINER["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_service_and_budget_mean_the_pods_of_the_deployment():
    labels = POD["metadata"]["labels"]
    deployment = KUBERNETES["Deployment"]["spec"]
    assert deployment["selector"]["matchLabels"] == labels
    assert KUBERNETES["Service"]["spec"]["selector"] == labels
    assert KUBERNETES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert KUBERNETES["PodDisruptionBudget"]["spec"]["minAvailable"] < deployment["replicas"]
    names = {port["name"] for port in CONTAINER["ports"]}
    assert {port["targetPort"] for port in KUBERNETES["Service"]["spec"]["ports"]} == names
    mounted = {volume["name"] for volume in POD["spec"]["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == mounted
