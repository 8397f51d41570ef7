"""Why a film's number is what it is."""

from datetime import UTC, datetime

from aiohttp import web

from gateway.answers import answer, read_query
from gateway.catalogue import find_video
from gateway.freshness import After, wait_for_writes
from gateway.keys import EXPLANATIONS
from gateway.past import only_now
from projections.queries.leaderboard import Timeframe


class Why(After):
    """In which window."""

    timeframe: Timeframe = "all_time"


async def explain(request: web.Request) -> web.Response:
    """`GET /api/analytics/videos/{id}/explain`: what a film's number is made of, and whether every store says the same."""
    why = read_query(request, Why)
    only_now(request, "an explanation")
    await wait_for_writes(request, why, "views", "catalogue")
    video = await find_video(request)
    found = await request.app[EXPLANATIONS].explain(video.video_id, why.timeframe, datetime.now(UTC))
    told = found._asdict() | {"positions": {str(partition): offset for partition, offset in found.positions.items()}}
    return answer({"from": told.pop("from_"), **told})
