"""What the gateway counts, by route and by source; ids stay out of the labels."""

from prometheus_client import Counter, Gauge, Histogram

from compose.metrics import REGISTRY, SECONDS_BUCKETS

REQUESTS = Counter(
    "entertainmenttime_http_requests_total", "Requests answered.", ("method", "route", "status"), registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "entertainmenttime_http_request_seconds",
    "Seconds from a request's head to its answer's end.",
    ("method", "route"),
    buckets=SECONDS_BUCKETS,
    registry=REGISTRY,
)
FRESHNESS_WAITS = Counter(
    "entertainmenttime_freshness_waits_total",
    "Reads that asked for a write: seen, stale (taken without it), late (503), unavailable (a store could not be asked).",
    ("outcome",),
    registry=REGISTRY,
)
FRESHNESS_WAIT_SECONDS = Histogram(
    "entertainmenttime_freshness_wait_seconds",
    "Seconds until the write was seen, or was given up.",
    buckets=SECONDS_BUCKETS,
    registry=REGISTRY,
)
ANSWERS = Counter(
    "entertainmenttime_answers_total",
    "Boards, counters and positions by where they came from: another source than the first is a fallback.",
    ("what", "source"),
    registry=REGISTRY,
)
STREAM_LISTENERS = Gauge(
    "entertainmenttime_stream_listeners",
    "Who follows a board just now.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
