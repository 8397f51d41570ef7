"""What the media worker counts."""

from prometheus_client import Counter, Gauge, Histogram

from compose.metrics import REGISTRY

JOBS = Counter(
    "entertainmenttime_media_jobs_total",
    "Claimed jobs by what came of them: done, put_off (a server was away), dropped (another took it over), given_back.",
    ("work", "outcome"),
    registry=REGISTRY,
)
JOB_SECONDS = Histogram(
    "entertainmenttime_media_job_seconds",
    "Seconds of a claimed job.",
    ("work",),
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400),
    registry=REGISTRY,
)
JOBS_RUNNING = Gauge("entertainmenttime_media_jobs_running", "Jobs that are worked on.", ("work",), registry=REGISTRY)
