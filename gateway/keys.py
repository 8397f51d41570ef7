"""What the application holds, by typed keys."""

from typing import TYPE_CHECKING, Any

from aiohttp import web

from compose.log import EventLog
from compose.outgoing import Outgoing
from compose.settings import Settings
from compose.storage import Storage
from compose.webhooks import Webhooks
from gateway.joint import Joint
from projections.queries.catalogue import Catalogue
from projections.queries.chronicle import Chronicle
from projections.queries.explanation import Explanations
from projections.queries.leaderboard import Leaderboard
from projections.queries.past import Past
from projections.queries.positions import Positions
from projections.queries.resume import Resume
from projections.queries.search import Search
from projections.queries.statistics import Statistics
from projections.queries.versions import Versions
from projections.queries.viewers import ViewerRecords

if TYPE_CHECKING:
    from gateway.delivery import Shelf
    from gateway.freshness import Freshness
    from gateway.leaderboard import TopStreams
    from gateway.past import Settled
    from gateway.viewers import Viewers

SETTINGS = web.AppKey("settings", Settings)
OPENAPI = web.AppKey("openapi", bytes)
LOG = web.AppKey("log", EventLog)
STORAGE = web.AppKey("storage", Storage)
POSTGRES = web.AppKey[Any]("postgres")
REDIS = web.AppKey[Any]("redis")
ELASTICSEARCH = web.AppKey[Any]("elasticsearch")
VERSIONS = web.AppKey("versions", Versions)
CATALOGUE = web.AppKey("catalogue", Catalogue)
POSITIONS = web.AppKey("positions", Positions)
RESUME = web.AppKey("resume", Resume)
LEADERBOARD = web.AppKey("leaderboard", Leaderboard)
CHRONICLE = web.AppKey("chronicle", Chronicle)
PAST = web.AppKey("past", Past)
EXPLANATIONS = web.AppKey("explanations", Explanations)
STATISTICS = web.AppKey("statistics", Statistics)
SEARCH = web.AppKey("search", Search)
WEBHOOKS = web.AppKey("webhooks", Webhooks)
OUTGOING = web.AppKey("outgoing", Outgoing)
RECORDS = web.AppKey("records", ViewerRecords)
REFRESH = web.AppKey[dict[str, Joint[None]]]("refresh")
VIEWERS: "web.AppKey[Viewers]" = web.AppKey("viewers")
FRESHNESS: "web.AppKey[Freshness]" = web.AppKey("freshness")
SETTLED: "web.AppKey[Settled]" = web.AppKey("settled")
TOP_STREAMS: "web.AppKey[TopStreams]" = web.AppKey("top_streams")
SHELF: "web.AppKey[Shelf]" = web.AppKey("shelf")
