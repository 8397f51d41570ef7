"""Films by what a person types."""

import time
from typing import Annotated

from aiohttp import web
from pydantic import Field, StringConstraints

from gateway.answers import answer, read_query, whole
from gateway.catalogue import Page, told
from gateway.freshness import After, wait_for_writes
from gateway.joint import Joint
from gateway.keys import CATALOGUE, REFRESH, SEARCH, VERSIONS
from gateway.past import only_now

SUGGESTIONS = 8

Typed = Annotated[str, StringConstraints(max_length=300, pattern=r"^[^\x00]*$")]


class Question(Page):
    """What to look for, and among which films."""

    query: Typed = ""


class Beginning(After):
    """What has been typed so far."""

    q: Typed = ""
    limit: Annotated[int, Field(ge=1, le=20), whole] = SUGGESTIONS


async def search(request: web.Request) -> web.Response:
    """`GET /api/videos/search`: films whose title, show or description holds the words, mistakes and all."""
    question, began = read_query(request, Question), time.monotonic()
    only_now(request, "search")
    await _wait(request, question)
    results = await request.app[SEARCH].films(
        question.query,
        content_type=question.content_type,
        genre=question.genre,
        limit=question.limit,
        offset=question.offset,
    )
    videos = await request.app[CATALOGUE].find_many(item.video_id for item in results.items)
    return answer(
        {
            "total": results.total,
            "items": [
                told(videos[item.video_id]) | {"highlight": item.highlight}
                for item in results.items
                # The index may be a moment behind a deletion.
                if item.video_id in videos
            ],
            "facets": results.facets,
            "took_ms": round((time.monotonic() - began) * 1_000, 1),
        }
    )


async def suggest(request: web.Request) -> web.Response:
    """`GET /api/videos/suggest`: titles that begin with what was typed."""
    beginning = read_query(request, Beginning)
    only_now(request, "search")
    await _wait(request, beginning)
    found = await request.app[SEARCH].suggest(beginning.q, beginning.limit)
    return answer({"suggestions": found})


async def _wait(request: web.Request, after: After) -> None:
    if after.after is None:
        return
    await wait_for_writes(request, after, "search", "catalogue")
    # Written is not yet found: the index shows what was there when it was last refreshed.
    version = request.app[VERSIONS].active("search").full_name
    await request.app[REFRESH].setdefault(version, Joint(request.app[SEARCH].refresh))()
