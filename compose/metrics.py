"""What every process counts, in Prometheus' words: base units, and labels of few values. Ids are for logs."""

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

PROCESSES_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own name: processes of one port meet in it
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REGISTRY = CollectorRegistry()

LOG_APPEND_SECONDS = Histogram(
    "entertainmenttime_log_append_seconds",
    "Seconds until the log acknowledged an event.",
    buckets=SECONDS_BUCKETS,
    registry=REGISTRY,
)
LOG_APPEND_FAILURES = Counter(
    "entertainmenttime_log_append_failures_total",
    "Events that the log did not acknowledge in time.",
    ("reason",),
    registry=REGISTRY,
)


def exposed() -> bytes:
    """All of it as it is scraped; of processes that share a port, all of them together, whichever answers."""
    if PROCESSES_FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return generate_latest(together)
