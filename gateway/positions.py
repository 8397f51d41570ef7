"""Where a viewer is in a film, what to go on watching, and what was seen to the end."""

from datetime import UTC, datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field
from uuid_utils import uuid7

from compose.log import LogUnavailable
from gateway.answers import Body, accepted, answer, invalid_field, read_body, read_query, whole
from gateway.catalogue import find_video, told
from gateway.freshness import After, wait_for_writes
from gateway.keys import CATALOGUE, LOG, POSITIONS, RESUME
from gateway.metrics import ANSWERS
from gateway.problems import unavailable
from gateway.viewers import known_viewer, nobody_asks, viewer_of
from projections.counting import CLOCK_SKEW
from projections.positions import in_credits
from projections.queries.positions import Positions, Watched
from projections.queries.resume import Resume
from projections.sinks.sink import StoreUnavailable
from schemas.bounds import Id, Moment, PlaybackState, Seconds
from schemas.events import PositionUpdated

RESUME_ABOVE_SECONDS = 30  # nobody wants to be asked about less
BEYOND_END_SECONDS = 1.0  # players report a position a moment after the end


class Position(Body):
    """Where a viewer is. `session_id` is one playback on one device."""

    position_seconds: Seconds
    duration_seconds: Seconds | None = None
    occurred_at: Moment | None = None
    session_id: Id | None = None
    state: PlaybackState | None = None


class Listing(After):
    """How many films."""

    limit: Annotated[int, Field(ge=1, le=100), whole] = 20


async def update_position(request: web.Request) -> web.Response:
    """`PUT /api/videos/{id}/position`: append where the viewer is."""
    position = await read_body(request, Position)
    now = datetime.now(UTC)
    if position.occurred_at is not None and position.occurred_at > now + CLOCK_SKEW:
        raise invalid_field("occurred_at", "must not lie more than a minute in the future")
    duration = position.duration_seconds
    if duration is not None and position.position_seconds > duration + BEYOND_END_SECONDS:
        raise invalid_field("position_seconds", f"must not lie beyond duration_seconds ({duration:g})")
    video = await find_video(request)
    event = PositionUpdated(
        viewer_id=await viewer_of(request),
        video_id=video.video_id,
        position_seconds=position.position_seconds,
        duration_seconds=duration,
        occurred_at=position.occurred_at or now,
        session_id=position.session_id,
        state=position.state,
    )
    event_id = str(uuid7())
    try:
        appended = await request.app[LOG].append(event, event_id=event_id)
    except LogUnavailable as error:
        again = {"event_id": event_id, "occurred_at": event.occurred_at}
        raise unavailable("The log", str(error), error.retry_after_seconds, **again) from error
    return accepted(request, appended)


async def get_position(request: web.Request) -> web.Response:
    """`GET /api/videos/{id}/position`: where to resume; 0 for who never watched the film."""
    after = read_query(request, After)
    await wait_for_writes(request, after, "catalogue")
    viewer_id, video = await known_viewer(request), await find_video(request)
    position, source = None, Resume.source
    if viewer_id is not None:
        try:
            await wait_for_writes(request, after, "resume")
            position = await request.app[RESUME].position(viewer_id, video.video_id)
        except StoreUnavailable:
            source = Positions.source
            await wait_for_writes(request, after, "positions")
            position = await request.app[POSITIONS].position(viewer_id, video.video_id)
    if viewer_id is not None:
        ANSWERS.labels("position", source).inc()
    if position is None:
        never: dict[str, Any] = {"position_seconds": 0, "completed": False, "updated_at": None, "resume": False}
        return answer(
            {"video_id": video.video_id, "duration_seconds": video.duration_seconds, **never, "source": source}
        )
    duration = position.duration_seconds or video.duration_seconds
    completed = position.completed or in_credits(position.position_seconds, duration)
    return answer(
        {
            "video_id": video.video_id,
            "position_seconds": position.position_seconds,
            "duration_seconds": duration,
            "completed": completed,
            "updated_at": position.updated_at,
            "resume": position.position_seconds > RESUME_ABOVE_SECONDS and not completed,
            "source": source,
        }
    )


async def continue_watching(request: web.Request) -> web.Response:
    """`GET /api/history/continue`: films begun and not seen to the end."""
    listing, viewer_id = await _history(request)
    return await _told(request, await request.app[POSITIONS].continue_watching(viewer_id, listing.limit))


async def completed(request: web.Request) -> web.Response:
    """`GET /api/history/completed`: films seen to the end."""
    listing, viewer_id = await _history(request)
    return await _told(request, await request.app[POSITIONS].completed(viewer_id, listing.limit))


async def _history(request: web.Request) -> tuple[Listing, str]:
    listing = read_query(request, Listing)
    viewer_id = await known_viewer(request)
    if viewer_id is None:
        raise nobody_asks("history")
    await wait_for_writes(request, listing, "positions", "catalogue")
    return listing, viewer_id


async def _told(request: web.Request, watched: list[Watched]) -> web.Response:
    videos = await request.app[CATALOGUE].find_many(item.video_id for item in watched)
    return answer(
        {
            "items": [
                {
                    "video": told(videos[item.video_id]),
                    "position_seconds": item.position_seconds,
                    "duration_seconds": item.duration_seconds,
                    "percent": percent(item.position_seconds, item.duration_seconds),
                    "updated_at": item.updated_at,
                }
                for item in watched
                if item.video_id in videos
            ]
        }
    )


def percent(position_seconds: float, duration_seconds: float | None) -> float | None:
    """How much of the film lies behind the viewer; None for an unknown duration."""
    return min(100.0, round(100 * position_seconds / duration_seconds, 1)) if duration_seconds else None
