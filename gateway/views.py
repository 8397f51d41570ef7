"""Views: a person watched."""

import contextlib
import uuid
from datetime import UTC, datetime

from aiohttp import web
from pydantic import Field
from uuid_utils import uuid7

from compose.log import LogUnavailable
from gateway.answers import Body, accepted, invalid_field, read_body
from gateway.delivery import film_of
from gateway.keys import LOG
from gateway.problems import unavailable
from gateway.viewers import known_viewer
from projections.counting import CLOCK_SKEW
from projections.sinks.sink import StoreUnavailable
from schemas.bounds import EARLIEST, LATEST, Id, Moment, Seconds
from schemas.events import VideoViewed
from schemas.log import MILLISECOND, moment_of

UUID_VERSION_WITH_TIME = 7


class View(Body):
    """`view_id` is the view's own: sent again with it, it counts once. Both it and `occurred_at` are made when absent."""

    view_id: Id = Field(default_factory=lambda: str(uuid7()))
    occurred_at: Moment | None = None
    watched_seconds: Seconds | None = None
    session_id: Id | None = None


async def record_view(request: web.Request) -> web.Response:
    """`POST /api/videos/{id}/views`: append the view."""
    view = await read_body(request, View)
    now = datetime.now(UTC)
    occurred_at = view.occurred_at or time_in(view.view_id, now) or now
    if occurred_at > now + CLOCK_SKEW:
        raise invalid_field("occurred_at", "must not lie more than a minute in the future")
    video_id = request.match_info["id"]
    try:
        # The log is the truth: a view is taken while the catalogue cannot be asked.
        with contextlib.suppress(StoreUnavailable):
            await film_of(request, lambda film: True)
        viewer_id = await known_viewer(request)
    except StoreUnavailable as error:
        raise unavailable("A store", str(error), error.retry_after_seconds, view_id=view.view_id) from error
    event = VideoViewed(
        view_id=view.view_id,
        video_id=video_id,
        occurred_at=occurred_at,
        viewer_id=viewer_id,
        watched_seconds=view.watched_seconds,
        session_id=view.session_id,
    )
    try:
        # Its own id is the event's: a view sent again is the same event.
        appended = await request.app[LOG].append(event, event_id=view.view_id)
    except LogUnavailable as error:
        again = {"view_id": view.view_id, "occurred_at": occurred_at}
        raise unavailable("The log", str(error), error.retry_after_seconds, **again) from error
    return accepted(request, appended, {"view_id": view.view_id})


def time_in(view_id: str, now: datetime) -> datetime | None:
    """When a UUIDv7 was made (RFC 9562 §5.7), so that a view sent again without `occurred_at` is the same; None for any other id.

    An id from a clock that is ahead says nothing either.
    """
    try:
        parsed = uuid.UUID(view_id)
    except ValueError:
        return None
    if parsed.version != UUID_VERSION_WITH_TIME:
        return None
    made_ms = parsed.int >> 80
    if made_ms >= (LATEST - EARLIEST) // MILLISECOND:
        return None
    made_at = moment_of(made_ms)
    return made_at if made_at <= now + CLOCK_SKEW else None
