"""What is shipped for operators: rules, dashboard, health check, Kubernetes; each as its own tool checks it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from elman_server.process.observe.collector import State, registry
from elman_server.process.observe.counters import COUNTERS
from elman_server.process.observe.endpoint import _encoder
from tests.e2e.test_metrics import get
from tests.server_process import ServerProcess, environment
from tests.services import need

ROOT = Path(__file__).parent.parent
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


def health_check(**variables: str) -> int:
    """Run the image's health check."""
    return subprocess.run(
        ["bash", ROOT / "server/healthcheck.sh"],
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
    assert health_check(ELMAN_METRICS_LISTEN="127.0.0.1:1") == 1
    assert os.access(ROOT / "server/healthcheck.sh", os.X_OK)
