"""Films: one, a page of them, and their deletion."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from gateway.answers import accepted, answer, read_query, whole
from gateway.freshness import After, wait_for_writes
from gateway.keys import CATALOGUE, CHRONICLE, LOG, PAST
from gateway.leaderboard import film_views
from gateway.past import AsOf, settled
from gateway.problems import not_found
from projections.queries.catalogue import Video
from projections.queries.chronicle import Chronicle
from schemas.bounds import ContentType, Label
from schemas.events import VideoDeleted

MAX_PAGE = 100
MAX_OFFSET = 10_000


class Page(After):
    """Which films, and how many of them."""

    content_type: ContentType | None = None
    genre: Label | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE), whole] = 20
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET), whole] = 0


class PageAsOf(Page, AsOf):
    """As they are, or as they were."""


async def get_video(request: web.Request) -> web.Response:
    """`GET /api/videos/{id}`: all that is known of a film."""
    asked = read_query(request, AsOf)
    if moment := await settled(request, asked, "views", "chronicle"):
        video = await find_video(request, moment)
        views = await request.app[PAST].views(video.video_id, moment)
        return answer(told(video) | {"total_views": views.all_time, "as_of": moment, "source": Chronicle.source})
    wait = partial(wait_for_writes, request, asked)
    await wait("catalogue")
    video = await find_video(request)
    views = await film_views(request.app, video.video_id, wait)
    return answer(told(video) | {"total_views": views.all_time})


async def list_videos(request: web.Request) -> web.Response:
    """`GET /api/videos`: what there is, the newest first."""
    page = read_query(request, PageAsOf)
    asked = page.model_dump(include={"content_type", "genre", "limit", "offset"})
    if moment := await settled(request, page, "chronicle"):
        total, videos = await request.app[CHRONICLE].page(moment, **asked)
        past = {"as_of": moment, "source": Chronicle.source}
        return answer({"total": total, "items": [told(video) for video in videos], **past})
    await wait_for_writes(request, page, "catalogue")
    total, videos = await request.app[CATALOGUE].page(**asked)
    return answer({"total": total, "items": [told(video) for video in videos]})


async def delete_video(request: web.Request) -> web.Response:
    """`DELETE /api/videos/{id}`: gone for everybody; deleting it again is the same event."""
    video = await find_video(request)
    event = VideoDeleted(video_id=video.video_id, occurred_at=datetime.now(UTC))
    return accepted(request, await request.app[LOG].append(event, event_id=f"{video.video_id}:deleted"))


async def find_video(request: web.Request, moment: datetime | None = None) -> Video:
    """The film that the path names, as it is or as it was at `moment`. Raises Problem when there is none."""
    video_id = request.match_info["id"]
    if moment is None:
        video = await request.app[CATALOGUE].find(video_id)
    else:
        video = await request.app[CHRONICLE].find(video_id, moment)
    if video is None:
        raise not_found("video", video_id)
    return video


def told(video: Video) -> dict[str, Any]:
    """A film as clients are told of it; addresses are paths under the gateway's own."""
    base = f"/api/videos/{video.video_id}"
    plays = video.hls_prefix is not None
    return {
        "id": video.video_id,
        "content_type": video.content_type,
        "title": video.title,
        "description": video.description,
        "show_title": video.show_title,
        "season_number": video.season_number,
        "episode_number": video.episode_number,
        "genre": video.genre,
        "release_year": video.release_year,
        "rating": video.rating,
        "status": video.status,
        "progress": video.progress,
        "error": video.error,
        "duration_seconds": video.duration_seconds,
        "width": video.width,
        "height": video.height,
        "variants": [
            {**variant, "playlist_url": f"{base}/hls/{variant['quality']}/playlist.m3u8"} for variant in video.variants
        ],
        "hls_url": f"{base}/hls/master.m3u8" if plays else None,
        "stream_url": f"{base}/stream" if video.uploaded_at else None,
        "thumbnail_url": f"{base}/thumbnail" if plays and video.thumbnail else None,
        "storyboard_url": f"{base}/storyboard" if plays and video.storyboard else None,
        "uploaded_at": video.uploaded_at,
        "size": video.size,
    }
