"""Log lines for a person or for a machine, the same in every process."""

import logging
import sys
import time

import structlog

from compose.settings import Settings

# They report each attempt to reach a server that is down; our own lines say it once.
TALKATIVE = ("aiokafka", "elastic_transport", "asyncio", "kafka", "aiohttp.access")

AGAIN_AFTER_SECONDS = 60.0


class Seldom(logging.Filter):
    """What a talkative library says again and again is let through once a minute: a broker that is down brings 400 lines a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(TALKATIVE):
            return True
        line, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._said.get(line, -AGAIN_AFTER_SECONDS) < AGAIN_AFTER_SECONDS:
            return False
        self._said[line] = now
        return True


def start_logging(settings: Settings, service: str) -> None:
    """Send structlog's lines and the standard library's to standard error, with `service` on each."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        # The default shows each frame's variables: secrets among them, and a tenth of a second of a busy loop.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    # Not `sys.stderr`, which Faust replaces by its own logger.
    handler = logging.StreamHandler(sys.__stderr__)
    handler.addFilter(Seldom())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info if settings.log_format == "json" else _keep,
                renderer,
            ],
        )
    )
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


def _keep(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event
