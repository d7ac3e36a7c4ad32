"""What is shipped for operators: rules, dashboard, health check, Kubernetes; each as its own tool checks it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from elman_server.app import STOP_SECONDS
from elman_server.process.observe.collector import State, registry
from elman_server.process.observe.counters import COUNTERS
from elman_server.process.observe.endpoint import _encoder
from elman_server.process.settings import RULES, variable
from tests.e2e.test_metrics import get
from tests.server_process import ServerProcess, environment
from tests.services import need

ROOT = Path(__file__).parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/dashboards/elman.json"
OPERATIONS = (ROOT / "docs/operations.md").read_text()
_METRIC = re.compile(r"\b(?:elman|process)_[a-z_]+\b")


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Prometheus' own tool."""
    program = shutil.which("promtool")
    need("promtool (Debian: prometheus)", is_there=program is not None)
    assert program is not None
    return subprocess.run(
        [program, *arguments], input=text, cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )


def rules() -> list[dict[str, Any]]:
    """Return every alert."""
    return [
        rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]


def expressions() -> list[str]:
    """Return every query of alerts and dashboard."""
    dashboard = json.loads(DASHBOARD.read_text())
    variables = [variable["query"] for variable in dashboard["templating"]["list"]]
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules()), *variables, *panels]


def test_the_rules_are_valid_and_fire_when_they_should() -> None:
    """`promtool` accepts configuration and rules, and each alert fires in trouble and is silent beside it."""
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts.test.yml"]):
        done = promtool(*command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tried_both_ways() -> None:
    """The rule tests have every alert once firing and once silent."""
    good, bad = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    names = sorted(rule["alert"] for rule in rules())
    assert sorted(case["alertname"] for case in good["alert_rule_test"] if case["exp_alerts"] == []) == names
    assert sorted(case["alertname"] for case in bad["alert_rule_test"] if case["exp_alerts"]) == names


@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules()])
def test_each_alert_has_its_place_in_the_runbook(alert: str) -> None:
    """The one who is woken up finds its meaning and what to do under its name."""
    assert f"\n### {alert}\n" in OPERATIONS


def test_every_metric_that_is_asked_for_exists() -> None:
    """Alerts and dashboard use names that a server shows, and the runbook too."""
    COUNTERS.models["m"].turns["max_chars"] += 1
    text = _encoder("")[0](registry(lambda: State(num_sessions=1))).decode()
    shown = {name for family in text_string_to_metric_families(text) for name in _names(family)}
    used = {name for text in [*expressions(), OPERATIONS] for name in _METRIC.findall(text)}
    labels = {"elman_server", "elman_client", "elman_export"}

    assert used - shown - labels == set()


def _names(family: Any) -> set[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
    return {family.name.removesuffix("_total") + suffix for suffix in suffixes} | {family.name}


@pytest.fixture(scope="module")
def server(lstm: Path) -> Iterator[ServerProcess]:
    """A server with a port for metrics."""
    with ServerProcess(lstm, "--metrics-listen", "127.0.0.1:0") as process:
        yield process


def test_the_metrics_of_a_server_are_as_prometheus_likes_them(server: ServerProcess) -> None:
    """`promtool check metrics` finds nothing to complain about."""
    done = promtool("check", "metrics", text=get(server, "/metrics")[1])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def health_check(*arguments: str, **variables: str) -> int:
    """Run the image's health check."""
    return subprocess.run(
        ["bash", ROOT / "server/healthcheck.sh", *arguments],
        env=environment(**variables),
        capture_output=True,
        timeout=50,
        check=False,
    ).returncode


def test_the_health_check_follows_the_server(server: ServerProcess) -> None:
    """It asks where the variable says, whatever proxies are set; without an answer it fails."""
    address = server.log.wait_for(r'"address": "([^"]+)", "event": "metrics_served"')[1]
    everywhere = address.replace("127.0.0.1", "0.0.0.0")
    proxies = {"http_proxy": "http://192.0.2.1:1", "https_proxy": "http://192.0.2.1:1"}

    assert health_check(ELMAN_METRICS_LISTEN=everywhere, **proxies) == 0
    assert health_check(address, "/healthz") == 0
    assert health_check(address, "/nothing") == 1
    assert health_check(ELMAN_METRICS_LISTEN="127.0.0.1:1") == 1
    assert os.access(ROOT / "server/healthcheck.sh", os.X_OK)


def kubernetes() -> dict[tuple[str, str], dict[str, Any]]:
    """Return every object of the Kubernetes files, by kind and name."""
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert sorted(names) == sorted(path.name for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")
    found = [thing for name in names for thing in yaml.safe_load_all((KUBERNETES / name).read_text())]
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in found}


@pytest.mark.parametrize("version", ["1.28", "1.34"])
def test_the_kubernetes_files_are_what_kubernetes_takes(version: str) -> None:
    """Each object is valid by the API's own schema, strictly: an unknown field is an error."""
    for thing in kubernetes().values():
        kubernetes_validate.validate(thing, version, strict=True)
    wrong = kubernetes()["Deployment", "elman"]
    wrong["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_the_kubernetes_files_fit_the_server() -> None:
    """Variables are settings, ports are those of the image and of Envoy, a stop has its time, all are hardened."""
    found = kubernetes()
    pod = found["Deployment", "elman"]["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    variables = {entry["name"]: entry.get("value", "") for entry in server["env"]}
    settings = {variable(name) for name in RULES}
    seconds = float(variables["ELMAN_DRAIN_DELAY_SECONDS"]) + float(variables["ELMAN_GRACE_SECONDS"]) + STOP_SECONDS
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    dockerfile = (ROOT / "server/Dockerfile").read_text()

    assert set(variables) <= settings
    assert pod["terminationGracePeriodSeconds"] > seconds
    assert f"ELMAN_LISTEN=0.0.0.0:{ports['grpc']}" in dockerfile
    assert f"ELMAN_METRICS_LISTEN=0.0.0.0:{ports['metrics']}" in dockerfile
    assert ("Service", "replica") in found  # the name that server/envoy/envoy.yaml looks up
    for deployment in ("elman", "envoy"):
        pod = found["Deployment", deployment]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in pod["containers"])
        assert all(container["resources"]["limits"] for container in pod["containers"])


def test_kubernetes_builds_them() -> None:
    """Kubernetes' own tool puts the files together."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is missing; the schema was checked")
    done = subprocess.run([program, "kustomize", KUBERNETES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(yaml.safe_load_all(done.stdout))) == len(kubernetes())
