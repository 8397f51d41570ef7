"""What Grafana shows and Prometheus alerts on is what a real worker and a real gateway expose; and whoever speaks, speaks JSON."""

import asyncio
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from compose.local.stack import ROOT
from compose.settings import Settings
from schemas.envelope import encode
from schemas.events import Event
from tests.given import announced, uploaded
from tests.servers import Servers, free_port
from tests.uploading import provision_gateway
from tests.working import producing, until, viewed, working

pytestmark = [
    pytest.mark.usefixtures("kafka", "postgres", "redis", "elasticsearch", "s3"),
    pytest.mark.asyncio(loop_scope="module"),
]

# No good run has them, so that they are held against their declaration alone (tests/unit/test_metrics.py).
RARE = {
    "entertainmenttime_log_append_failures_total",
    *(f"entertainmenttime_media_{name}" for name in ("jobs_total", "job_seconds_bucket", "jobs_running")),
}
OF_PROMETHEUS = {"le", "job", "instance"}


def queries() -> list[tuple[str, str, str]]:
    """Each question that is asked of Prometheus: by whom, in PromQL, and the text that names its labels."""
    dashboard = json.loads(ROOT.joinpath("compose/grafana/dashboard.json").read_text())
    rules = yaml.safe_load(ROOT.joinpath("compose/prometheus/rules.yaml").read_text())
    shown = [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    alerts = [
        (rule["alert"], rule["expr"], rule["annotations"]["summary"])
        for group in rules["groups"]
        for rule in group["rules"]
    ]
    return [*shown, *alerts]


QUERIES = queries()


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:entertainmenttime|process)_\w+", expression))


def labels_in(expression: str, text: str) -> set[str]:
    grouped = ",".join(re.findall(r"by \(([^)]*)\)", expression)).replace(" ", "").split(",")
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    told = re.findall(r"{{\s*(?:\$labels\.)?(\w+)\s*}}", text)
    return {*filter(None, grouped), *selected, *told} - OF_PROMETHEUS


@contextmanager
def gateway_process(settings: Settings, servers: Servers, log: Path) -> Iterator[str]:
    """Two processes on one port, as they are run."""
    port = free_port()
    environment = {**os.environ, **servers.endpoints(settings.prefix), "ET_GATEWAY_PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway"],
            cwd=ROOT,
            env={**environment, "ET_GATEWAY_PROCESSES": "2", "ET_LOG_FORMAT": "json"},
            stdout=output,
            stderr=output,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exposed(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[dict[str, set[str]], list[str]]]:
    """After a little traffic: the labels of each metric, and every line that both have said."""
    settings = servers.settings(f"{servers.prefix}watch_")
    await asyncio.to_thread(asyncio.run, provision_gateway(settings))
    folder, port = tmp_path_factory.mktemp("watching"), free_port()
    said = folder / "gateway.log"
    log_format = {"ET_LOG_FORMAT": "json", "ET_WORKER_METRICS_PORT": str(port)}
    with working(settings, servers, folder, "watch", **log_format) as (worker,):
        with gateway_process(settings, servers, said) as gateway:
            async with aiohttp.ClientSession() as http:
                film = str(uuid.uuid4())
                await append(settings, announced(film), uploaded(film), viewed("again", film), viewed("again", film))
                await visit(http, gateway, film)
                found = await until(lambda: all_exposed(http, f"http://127.0.0.1:{port}", gateway))
        assert worker.stop() == 0
        yield found, [*worker.said.splitlines(), *said.read_text().splitlines()]


async def append(settings: Settings, *events: Event) -> None:
    """The events, and one record that is none."""
    async with producing(settings) as producer:
        for event in events:
            message = encode(event, event_id=str(uuid.uuid4()), source="/tests")
            topic = settings.named(message.topic)
            await producer.send_and_wait(topic, message.value, message.key, headers=message.headers)
        await producer.send_and_wait(settings.named("views"), b"no json", b"key", headers=message.headers)


async def visit(http: aiohttp.ClientSession, gateway: str, film: str) -> None:
    """Somebody watches the film, and reads what they wrote."""
    ann = {"X-Viewer-Id": "ann"}

    async def is_known() -> bool:
        try:
            async with http.get(f"{gateway}/api/videos/{film}") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await until(is_known)
    async with http.post(f"{gateway}/api/videos/{film}/views", json={}, headers=ann) as answer:
        token = answer.headers["X-Event-Position"]
    async with http.put(f"{gateway}/api/videos/{film}/position", json={"position_seconds": 40}, headers=ann) as answer:
        assert answer.status == 202
    paths = ("/api/analytics/top", f"/api/analytics/videos/{film}/stats", f"/api/videos/{film}/position")
    for path in paths:
        async with http.get(f"{gateway}{path}?after={token}", headers=ann) as answer:
            await answer.read()
    async with http.get(f"{gateway}/api/analytics/top/stream") as answer:
        await answer.content.readline()


async def all_exposed(http: aiohttp.ClientSession, *addresses: str) -> dict[str, set[str]] | None:
    """The labels of every series, once whatever is asked for is there; scraped as Prometheus does."""
    found: dict[str, set[str]] = {}
    for address in addresses:
        async with http.get(f"{address}/metrics") as answer:
            assert answer.content_type == "text/plain"
            for family in text_string_to_metric_families(await answer.text()):
                for sample in family.samples:
                    found.setdefault(sample.name, set()).update(sample.labels)
    wanted = {name for _, expression, _ in QUERIES for name in metrics_in(expression)} - RARE
    # What counts nothing in a good run has no series, only its name.
    missing = wanted - found.keys() - {"entertainmenttime_watchdog_restarts_total"}
    return None if missing else found


@pytest.mark.parametrize(
    ("who", "expression", "text"), QUERIES, ids=[f"{who}-{n}" for n, (who, *_) in enumerate(QUERIES)]
)
async def test_what_is_asked_of_prometheus_is_exposed_with_its_labels(
    exposed: tuple[dict[str, set[str]], list[str]], who: str, expression: str, text: str
) -> None:
    labels, _ = exposed
    names = metrics_in(expression)
    assert names
    if seen := names & labels.keys():
        assert labels_in(expression, text) <= set().union(*(labels[name] for name in seen))
    else:
        assert names <= RARE | {"entertainmenttime_watchdog_restarts_total"}


async def test_two_processes_of_a_port_answer_as_one(exposed: tuple[dict[str, set[str]], list[str]]) -> None:
    labels, _ = exposed
    assert "pid" not in labels["entertainmenttime_stream_listeners"]
    assert labels["entertainmenttime_http_requests_total"] == {"method", "route", "status"}


async def test_every_line_of_a_worker_and_a_gateway_is_one_json_object(
    exposed: tuple[dict[str, set[str]], list[str]],
) -> None:
    _, said = exposed
    lines: list[dict[str, Any]] = [json.loads(line) for line in said]
    assert {line["service"] for line in lines} == {"worker", "gateway"}
    assert [line["reason"] for line in lines if "parked" in line["event"]] != []
