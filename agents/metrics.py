"""What a worker counts. Everything is counted by the batch, nothing by the event."""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import Counter, Gauge, Histogram

from compose.metrics import REGISTRY, SECONDS_BUCKETS
from projections.counting import Duplicate, FromTheFuture, Verdict

BY_PARTITION = ("projection", "version", "topic", "partition")
VERDICTS: dict[type[Verdict], str] = {Duplicate: "duplicate", FromTheFuture: "future"}

EVENTS_FOLDED = Counter(
    "entertainmenttime_events_folded_total",
    "Events that reached a fold; one that was folded again after a failure counts again.",
    ("projection", "topic"),
    registry=REGISTRY,
)
VIEWS_REFUSED = Counter(
    "entertainmenttime_views_refused_total", "Views that do not count.", ("projection", "verdict"), registry=REGISTRY
)
RECORDS_PARKED = Counter(
    "entertainmenttime_records_parked_total",
    "Records that could not be folded.",
    ("projection", "reason"),
    registry=REGISTRY,
)
BATCHES = Counter(
    "entertainmenttime_batches_total",
    "Batches by what came of them: applied, moved (another worker was there), unavailable (the store was), failed, waits, halted.",
    ("projection", "outcome"),
    registry=REGISTRY,
)
BATCH_SECONDS = Histogram(
    "entertainmenttime_batch_seconds",
    "Seconds of one batch, from its bytes to its checkpoint.",
    ("projection",),
    buckets=SECONDS_BUCKETS,
    registry=REGISTRY,
)
SINK_APPLY_SECONDS = Histogram(
    "entertainmenttime_sink_apply_seconds",
    "Seconds of that in the sink, changes and checkpoint.",
    ("projection",),
    buckets=SECONDS_BUCKETS,
    registry=REGISTRY,
)
HURRIED_FETCHES = Counter(
    "entertainmenttime_hurried_fetches_total",
    "Fetches of a busy projection made before their time, as somebody waited for a write.",
    ("projection",),
    registry=REGISTRY,
)
LAG_EVENTS = Gauge(
    "entertainmenttime_lag_events", "Records not folded, up to the log's true end.", BY_PARTITION, registry=REGISTRY
)
LAG_SECONDS = Gauge(
    "entertainmenttime_lag_seconds",
    "Age of the oldest record not folded; 0 when there is none.",
    BY_PARTITION,
    registry=REGISTRY,
)
CHECKPOINT = Gauge(
    "entertainmenttime_checkpoint_offset", "The first offset not folded.", BY_PARTITION, registry=REGISTRY
)
PARTITIONS = Gauge(
    "entertainmenttime_reader_partitions",
    "Partitions that this worker reads, by their state: healthy, behind, stuck.",
    ("projection", "version", "state"),
    registry=REGISTRY,
)
SEEN_IDS = Gauge("entertainmenttime_seen_ids", "Ids held to know a view again.", registry=REGISTRY)
SEEN_IDS_BYTES = Gauge("entertainmenttime_seen_ids_bytes", "About what they take.", registry=REGISTRY)
SEEN_IDS_REFILL_SECONDS = Histogram(
    "entertainmenttime_seen_ids_refill_seconds",
    "Seconds to refill the seen ids of a partition that was taken over.",
    buckets=(*SECONDS_BUCKETS, 30, 60),
    registry=REGISTRY,
)
WATCHDOG_RESTARTS = Counter(
    "entertainmenttime_watchdog_restarts_total",
    "Readers started again because they stood still.",
    ("projection",),
    registry=REGISTRY,
)


def count_refused(projection: str, verdicts: Iterable[Verdict]) -> None:
    """Each verdict under its word."""
    for kind, number in Tally(map(type, verdicts)).items():
        VIEWS_REFUSED.labels(projection, VERDICTS.get(kind, "other")).inc(number)


@contextmanager
def timed(histogram: Histogram, *labels: str) -> Iterator[None]:
    """The seconds until the end, whatever it is."""
    began = perf_counter()
    try:
        yield
    finally:
        (histogram.labels(*labels) if labels else histogram).observe(perf_counter() - began)
