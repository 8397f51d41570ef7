"""`?as_of=TIME`: what would have been answered then, from what had been recorded by then."""

import asyncio
from datetime import UTC, datetime

from aiohttp import web

from gateway.answers import bad_parameter
from gateway.freshness import After
from gateway.keys import FRESHNESS, LOG, SETTLED, VERSIONS
from gateway.problems import unavailable
from projections.queries.past import InTheFuture, settling_seconds
from schemas.bounds import Moment
from schemas.log import Place
from schemas.streams import streams


class AsOf(After):
    """`as_of` asks about a moment of the past; asked again, the answer is the same."""

    as_of: Moment | None = None


Settled = dict[str, datetime]
"""By version of a projection the latest moment up to which all that was recorded is known to be folded."""


async def settled(request: web.Request, asked: AsOf, *projections: str) -> datetime | None:
    """The moment that is asked about, once nothing can be recorded at it any more and `projections` have folded all that was.

    Raises Problem: 400 for a moment that is yet to come, or together with `after`; 503 when they have not folded it in five seconds.
    """
    moment = asked.as_of
    if moment is None:
        return None
    if asked.after is not None:
        raise bad_parameter("after", "waits for a write that is new, and `as_of` asks about the past: send one of them")
    try:
        await asyncio.sleep(settling_seconds(moment, datetime.now(UTC)))
    except InTheFuture as error:
        raise bad_parameter("as_of", str(error)) from None
    known = request.app[SETTLED]
    names = {name: request.app[VERSIONS].active(name).full_name for name in projections}
    unknown = [name for name, version in names.items() if version not in known or known[version] < moment]
    if unknown:
        places = await _recorded_by(request, moment, unknown)
        if not await request.app[FRESHNESS].wait(unknown, places):
            raise unavailable("That moment", f"{', '.join(unknown)} have not folded all that was recorded by then")
        known.update({names[name]: max(moment, known.get(names[name], moment)) for name in unknown})
    return moment


async def _recorded_by(request: web.Request, moment: datetime, projections: list[str]) -> list[Place]:
    """The last place of each partition that was recorded by then, or a little later."""
    topics = {topic for name in projections for topic in streams().projections[name].reads}
    partitions = [(topic, number) for topic in topics for number in range(streams().topics[topic].partitions)]
    ends = await request.app[LOG].ends_at(moment, partitions)
    return [Place(topic, number, end - 1) for (topic, number), end in ends.items() if end > 0]


def only_now(request: web.Request, what: str) -> None:
    """Raises Problem for a read that keeps no past, rather than answering about now."""
    if "as_of" in request.query:
        raise bad_parameter("as_of", f"{what} knows only what there is now")
