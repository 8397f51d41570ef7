"""The running system against its own document: whatever the document allows is answered as the document says."""

import asyncio
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from aiohttp import ClientSession, ClientTimeout
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from compose.settings import Settings
from gateway.openapi import document
from gateway.routes import routes
from tests.working import produce, viewed

load_all_checks()
SECONDS = 20
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
API: dict[str, Any] = json.loads(document(routes()))
ENDLESS = "/api/analytics/top/stream"
OPERATIONS = [(method, path) for path, item in API["paths"].items() if path != ENDLESS for method in item]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_whatever_is_sent_is_answered_as_the_document_says(system: Settings, method: str, path: str) -> None:
    operation = schemathesis.openapi.from_dict(API)[path][method.upper()]

    @hypothesis_settings(
        max_examples=6,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def answers(case: schemathesis.Case) -> None:
        response = case.call(base_url=str(system.gateway_url).rstrip("/"), timeout=SECONDS)
        case.validate_response(response, checks=CHECKS)

    answers()


async def test_a_board_is_told_again_when_it_changes(system: Settings) -> None:
    video_id = str(uuid.uuid4())
    url = f"{str(system.gateway_url).rstrip('/')}{ENDLESS}?k=1000&timeframe=hour"

    async def views_told() -> int:
        async with ClientSession(timeout=ClientTimeout(sock_read=SECONDS)) as http, http.get(url) as answer:
            assert answer.content_type == "text/event-stream"
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                board = json.loads(line.removeprefix(b"data: "))
                views = {item["video_id"]: item["views"] for item in board["items"]}.get(video_id, 0)
                if views < 2:
                    # Told once: what is appended now must be told without being asked for.
                    await produce(system, [viewed(str(uuid.uuid4()), video_id, at=datetime.now(UTC))])
                else:
                    return views
        return 0

    assert await asyncio.wait_for(views_told(), 60) >= 2
