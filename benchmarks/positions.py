"""Positions by the hundred thousand in a log, as a player would have sent them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from benchmarks.appending import Headers, append
from benchmarks.system import System
from schemas.events import PositionUpdated

SESSIONS = 10  # of each viewer, each with a film of its own


async def append_positions(system: System, count: int) -> None:
    """`count` positions of as many sessions."""
    began = datetime.now(UTC) - timedelta(hours=1)
    same: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_source", b"/benchmark"),
        ("ce_type", PositionUpdated.type.encode()),
        ("content-type", b"application/json"),
    ]

    def records() -> Iterator[tuple[bytes, bytes, Headers]]:
        for number in range(count):
            at = (began + timedelta(milliseconds=number)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            viewer = f"01990000-0000-7000-8000-{number // SESSIONS:012x}"
            value = (
                f'{{"viewer_id":"{viewer}","video_id":"film-{number % 9_973}","position_seconds":{number % 5_000},'
                f'"duration_seconds":6000,"session_id":"s-{number}","state":"playing","occurred_at":"{at}"}}'
            )
            yield viewer.encode(), value.encode(), [*same, ("ce_id", f"p-{number}".encode())]

    await append(system.settings, "positions", records())
