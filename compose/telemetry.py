"""Log lines for a person or for a machine, the same in every process."""

import json
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from types import TracebackType
from typing import NoReturn

import structlog

from compose.settings import Settings

# They report each attempt to reach a server that is down; our own lines say it once.
TALKATIVE = ("aiokafka", "elastic_transport", "asyncio", "kafka", "aiohttp.access")

AGAIN_AFTER_SECONDS = 60.0
REMEMBERED_LINES = 1_000  # a library that puts values into its messages has no end of them


class Seldom(logging.Filter):
    """What a talkative library says again and again is let through once a minute: a broker that is down brings 400 lines a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said: OrderedDict[tuple[str, str], float] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(TALKATIVE):
            return True
        line, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._said.get(line, -AGAIN_AFTER_SECONDS) < AGAIN_AFTER_SECONDS:
            return False
        self._said[line] = now
        self._said.move_to_end(line)
        if len(self._said) > REMEMBERED_LINES:
            self._said.popitem(last=False)
        return True


def start_logging(settings: Settings, service: str) -> None:
    """Send structlog's lines and the standard library's to standard error, with `service` on each; for a machine, one JSON object a line,
    whatever is said, also by warnings and by what nobody caught.
    """

    def add_service(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_service,
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
    logging.captureWarnings(True)
    if settings.log_format == "json":
        sys.excepthook = _say_uncaught
        threading.excepthook = lambda what: _say_uncaught(what.exc_type, what.exc_value, what.exc_traceback)


def refuse_to_start(error: Exception, service: str) -> NoReturn:
    """The end of a process that cannot begin, in one sentence: its settings may be what is wrong, so nothing is asked of them."""
    if os.environ.get("ET_LOG_FORMAT") == "json":
        timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {"event": str(error), "service": service, "level": "critical", "timestamp": timestamp}
        print(json.dumps(line), file=sys.stderr)
    else:
        print(f"the {service} cannot start: {error}", file=sys.stderr)
    sys.exit(2)


def _say_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("uncaught").critical("an error that nobody caught", exc_info=(kind, error, trace))  # type: ignore[arg-type]


def _keep(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event
