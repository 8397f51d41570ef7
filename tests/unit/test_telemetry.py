"""Logs: one JSON object a line for a machine, whoever speaks, and nothing that grows without bound."""

import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from compose.local.stack import ROOT
from compose.telemetry import REMEMBERED_LINES, Seldom

SPEAKERS = """
import asyncio, logging, threading, warnings
import structlog
from compose.settings import Settings
from compose.telemetry import start_logging

secret = "not-for-anybody-to-see"
settings = Settings(
    secret_key=secret, postgres_dsn=secret, s3_access_key=secret, s3_secret_key=secret, log_format="json", _env_file=None
)
start_logging(settings, "speaker")
structlog.get_logger("ours").warning("a line", event_id="one", raw=b"\\x00", several="a\\nb")
try:
    raise ValueError("two\\nlines")
except ValueError:
    structlog.get_logger("ours").exception("failed")
    logging.getLogger("aiokafka").exception("Heartbeat failed for %s", "group")
warnings.warn("deprecated")
threading.Thread(target=lambda: 1 / 0).start()

async def forgotten():
    asyncio.create_task(nobody_asks())
    await asyncio.sleep(0)

async def nobody_asks():
    raise LookupError("lost")

asyncio.run(forgotten())
raise RuntimeError("the end")
"""


def lines_of(*command: str, **environment: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_whoever_speaks_says_one_json_object_a_line() -> None:
    lines = lines_of("-c", SPEAKERS)
    assert [(line["event"], line.get("exception", "")[-9:]) for line in lines if line["logger"] == "ours"] == [
        ("a line", ""),
        ("failed", "two\nlines"),
    ]
    text = json.dumps(lines)
    assert all(word in text for word in ("Heartbeat failed for group", "deprecated", "ZeroDivisionError", "the end"))
    assert {line["service"] for line in lines} == {"speaker"}
    assert all(line["timestamp"].endswith("Z") and line["level"] for line in lines)


@pytest.mark.parametrize(
    "program", [("-m", "gateway"), ("-m", "agents.media"), ("-m", "faust", "-A", "agents", "worker")]
)
def test_a_start_that_is_refused_is_one_json_object_too(program: tuple[str, ...]) -> None:
    (line,) = lines_of(*program, ET_LOG_FORMAT="json", ET_S3_BUCKET="!")
    assert "ET_S3_BUCKET" in line["event"]


def test_what_a_library_says_again_is_let_through_once_and_remembered_within_bounds() -> None:
    seldom = Seldom()

    def passes(message: str) -> bool:
        return bool(seldom.filter(logging.LogRecord("aiokafka.conn", logging.ERROR, "", 1, message, (), None)))

    assert [passes("down"), passes("down")] == [True, False]
    assert all(passes(f"broker {number} is down") for number in range(3 * REMEMBERED_LINES))
    assert len(seldom._said) == REMEMBERED_LINES
