"""Metrics: each has its line in the docs, is named as Prometheus names them, and has labels of few values."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

import agents.media.metrics
import agents.metrics
import gateway.metrics
from compose import metrics

ROOT = Path(__file__).parents[2]
DOCUMENTED = ROOT.joinpath("docs/metrics.md").read_text()
MODULES = (metrics, agents.metrics, agents.media.metrics, gateway.metrics)
METRICS = [found for module in MODULES for found in vars(module).values() if isinstance(found, MetricWrapperBase)]
FEW = {
    *("method", "route", "status", "outcome", "what", "source", "reason", "work"),
    *("projection", "version", "topic", "partition", "verdict", "state"),
}


def name_of(metric: MetricWrapperBase) -> str:
    return metric._name + ("_total" if metric._type == "counter" else "")


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
def test_every_metric_has_its_line_with_its_labels(metric: MetricWrapperBase) -> None:
    labels = ", ".join(metric._labelnames) or "–"
    assert f"| `{name_of(metric)}` | {labels} |" in DOCUMENTED


def test_every_line_is_of_a_metric_that_there_is() -> None:
    lines = re.findall(r"^\| `(entertainmenttime_\w+)`", DOCUMENTED, re.M)
    assert sorted(lines) == sorted(map(name_of, METRICS))


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
def test_no_label_holds_an_id(metric: MetricWrapperBase) -> None:
    assert set(metric._labelnames) <= FEW


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
def test_a_duration_is_in_seconds_and_a_size_in_bytes(metric: MetricWrapperBase) -> None:
    assert not re.search(r"(_ms|_millis|_minutes|_kb|_mb|_percent)(_|$)", name_of(metric))
    assert metric._type != "histogram" or metric._name.endswith("_seconds")


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
def test_every_metric_is_shown_or_alerted_on(metric: MetricWrapperBase) -> None:
    asked = [ROOT / "compose/grafana/dashboard.json", ROOT / "compose/prometheus/rules.yaml"]
    assert any(re.search(rf"\b{name_of(metric)}(_bucket)?\b", file.read_text()) for file in asked)


def test_no_two_panels_lie_on_each_other() -> None:
    taken = [
        (column, line)
        for panel in json.loads(ROOT.joinpath("compose/grafana/dashboard.json").read_text())["panels"]
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(column for column, _ in taken) < 24
