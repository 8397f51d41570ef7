"""A film's views: in every window, and hour by hour or day by day."""

from functools import partial

from aiohttp import web
from pydantic import Field

from gateway.answers import answer, bad_parameter, read_query
from gateway.catalogue import find_video
from gateway.freshness import wait_for_writes
from gateway.keys import PAST, STATISTICS
from gateway.leaderboard import film_views
from gateway.past import AsOf, settled
from projections.queries.past import Past
from projections.queries.statistics import Bucket
from schemas.bounds import Moment


class Span(AsOf):
    """From when to when (the end not included), and in which buckets of UTC."""

    from_: Moment | None = Field(None, alias="from")
    to: Moment | None = None
    bucket: Bucket = "hour"


async def stats(request: web.Request) -> web.Response:
    """`GET /api/analytics/videos/{id}/stats`: a film's views in every window."""
    asked = read_query(request, AsOf)
    wait = partial(wait_for_writes, request, asked)
    if moment := await settled(request, asked, "views", "chronicle"):
        video = await find_video(request, moment)
        views = await request.app[PAST].views(video.video_id, moment)
    else:
        await wait("catalogue")
        video = await find_video(request)
        views = await film_views(request.app, video.video_id, wait)
    return answer(
        {
            "video_id": video.video_id,
            "total_views": views.all_time,
            "views_last_hour": views.hour,
            "views_last_day": views.day,
            "views_last_week": views.week,
            "views_last_month": views.month,
            "views_last_year": views.year,
            "as_of": views.as_of,
            "source": views.source,
        }
    )


async def history(request: web.Request) -> web.Response:
    """`GET /api/analytics/videos/{id}/history`: a film's views bucket by bucket; buckets without a view are left out."""
    span = read_query(request, Span)
    if span.from_ is not None and span.to is not None and span.from_ > span.to:
        raise bad_parameter("from", "must not lie after `to`")
    if moment := await settled(request, span, "views", "chronicle"):
        video = await find_video(request, moment)
        points = await request.app[PAST].history(
            video.video_id, moment, from_=span.from_, to=span.to, bucket=span.bucket
        )
        past = {"as_of": moment, "source": Past.source}
        return answer({"video_id": video.video_id, "bucket": span.bucket, **past, "points": points})
    await wait_for_writes(request, span, "statistics", "catalogue")
    video = await find_video(request)
    points = await request.app[STATISTICS].history(video.video_id, from_=span.from_, to=span.to, bucket=span.bucket)
    return answer({"video_id": video.video_id, "bucket": span.bucket, "points": points})
