"""Films that a gateway knows, so that views of them are taken."""

from collections.abc import Sequence

import aiohttp

from compose.settings import Settings
from tests.given import announced, uploaded
from tests.working import produce, until


async def announce(settings: Settings, films: Sequence[str]) -> None:
    """Returns once the gateway of `settings` knows all of them."""
    await produce(settings, [event for film in films for event in (announced(film), uploaded(film))])
    async with aiohttp.ClientSession(str(settings.gateway_url)) as http:

        async def is_known(film: str) -> bool:
            async with http.get(f"/api/videos/{film}") as answer:
                return answer.status == 200

        for film in films:
            await until(lambda film=film: is_known(film))  # type: ignore[misc]
