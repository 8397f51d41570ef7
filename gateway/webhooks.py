"""Webhooks: other services subscribe to events by HTTP. Calls go out because of what is asked here, so only the operator may ask."""

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from aiohttp import web
from pydantic import Field, field_validator
from uuid_utils import uuid7

from compose.outgoing import LONGEST_URL, WrongAddress, check_url
from compose.webhooks import TooManyWebhooks, Webhook
from gateway.answers import Body, Query, answer, invalid_field, read_body, read_query, secret_of, whole
from gateway.keys import LOG, OUTGOING, SETTINGS, WEBHOOKS
from gateway.problems import Problem, not_found
from schemas.bounds import Text
from schemas.events import EVENTS, NAMESPACE
from schemas.log import Place, WrongToken, read_token, write_token
from schemas.streams import streams

BEGINNING = "beginning"
PING = f"{NAMESPACE}.webhook.ping.v1"
PAUSED_BY_HAND = "paused by its subscriber"


class Subscription(Body):
    """Which events are told to whom. Without `types` all of them."""

    url: Annotated[str, Field(max_length=LONGEST_URL)]
    types: Annotated[list[str], Field(min_length=1, max_length=len(EVENTS))] | None = None
    description: Text | None = None

    @field_validator("types")
    @classmethod
    def are_known(cls, types: list[str] | None) -> list[str] | None:
        if unknown := sorted(set(types or ()) - EVENTS.keys()):
            raise ValueError(f"there is no event {', '.join(unknown)}; see /asyncapi.yaml")
        return types and sorted(set(types))


class Replay(Body):
    """Where to begin: `beginning`, or a cursor. Partitions that the cursor does not name stay where they are."""

    cursor: Annotated[str, Field(min_length=1)]


class LastAttempts(Query):
    """How many, the newest first."""

    limit: Annotated[int, Field(ge=1, le=200), whole] = 50


async def create_webhook(request: web.Request) -> web.Response:
    """`POST /api/webhooks`: subscribe to the events from now on; the secret that signs them is told this once."""
    check_operator(request)
    wanted = await read_body(request, Subscription)
    try:
        check_url(wanted.url, allow_private=request.app[SETTINGS].webhook_private_addresses)
    except WrongAddress as error:
        raise invalid_field("url", str(error)) from None
    cursor = await ends(request)
    try:
        webhook, secret = await request.app[WEBHOOKS].create(wanted.url, wanted.types, wanted.description, cursor)
    except TooManyWebhooks as error:
        raise Problem(409, "Too many webhooks", str(error)) from None
    headers = {"Location": f"/api/webhooks/{webhook.id}"}
    return answer({**told(request, webhook, cursor), "secret": secret}, status=201, headers=headers)


async def list_webhooks(request: web.Request) -> web.Response:
    """`GET /api/webhooks`: every subscription, the oldest first."""
    check_operator(request)
    webhooks = request.app[WEBHOOKS]
    return answer({"items": [told(request, found, await webhooks.cursor(found.id)) for found in await webhooks.all()]})


async def get_webhook(request: web.Request) -> web.Response:
    """`GET /api/webhooks/{webhook}`: a subscription, its state and its cursor."""
    return await _answer(request, await find_webhook(request))


async def delete_webhook(request: web.Request) -> web.Response:
    """`DELETE /api/webhooks/{webhook}`: nothing is told any more, and the subscription is gone."""
    await request.app[WEBHOOKS].delete((await find_webhook(request)).id)
    return web.Response(status=204)


async def pause_webhook(request: web.Request) -> web.Response:
    """`POST /api/webhooks/{webhook}/pause`: tell nothing until it is resumed; the cursor stays."""
    webhook = await find_webhook(request)
    await request.app[WEBHOOKS].pause(webhook.id, PAUSED_BY_HAND)
    return await _answer(request, await find_webhook(request))


async def resume_webhook(request: web.Request) -> web.Response:
    """`POST /api/webhooks/{webhook}/resume`: go on at the cursor, whatever stopped it; what failed is tried at once."""
    webhook = await find_webhook(request)
    await request.app[WEBHOOKS].resume(webhook.id)
    return await _answer(request, await find_webhook(request))


async def replay_webhook(request: web.Request) -> web.Response:
    """`POST /api/webhooks/{webhook}/replay`: tell everything again from a cursor on, the event that it names first."""
    webhook = await find_webhook(request)
    wanted = await read_body(request, Replay)
    await request.app[WEBHOOKS].resume(webhook.id, await places_of(request, wanted.cursor))
    return await _answer(request, await find_webhook(request))


async def ping_webhook(request: web.Request) -> web.Response:
    """`POST /api/webhooks/{webhook}/ping`: call the subscriber once with an event of no meaning, and tell what came of it."""
    webhook = await find_webhook(request)
    ping_id, now = str(uuid7()), datetime.now(UTC)
    event = {"specversion": "1.0", "id": ping_id, "source": "/gateway", "type": PING, "time": now}
    body = orjson.dumps({**event, "datacontenttype": "application/json", "data": {"webhook": webhook.id}})
    secret = await request.app[WEBHOOKS].secret(webhook.id)
    outcome = await request.app[OUTGOING].post(webhook.url, secret, ping_id, body)
    result = {"delivered": outcome.is_delivered, "status": outcome.status, "error": outcome.error}
    return answer({"event_id": ping_id, **result, "took_ms": outcome.took_ms})


async def webhook_deliveries(request: web.Request) -> web.Response:
    """`GET /api/webhooks/{webhook}/deliveries`: the last attempts, the newest first."""
    webhook = await find_webhook(request)
    found = await request.app[WEBHOOKS].attempts(webhook.id, read_query(request, LastAttempts).limit)
    items = []
    for attempt in found:
        fields = attempt._asdict()
        items.append({**fields.pop("place")._asdict(), **fields})
    return answer({"items": items})


def check_operator(request: web.Request) -> None:
    """Raises Problem unless the request shows the operator's token: 403 where there is none, 401 for another."""
    token = request.app[SETTINGS].admin_token
    if token is None:
        detail = "webhooks cannot be managed here: the gateway has no ET_ADMIN_TOKEN"
        raise Problem(403, "Not allowed", detail)
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), token.get_secret_value().encode()):
        detail = "send Authorization: Bearer and the operator's token (ET_ADMIN_TOKEN)"
        errors = [{"header": "Authorization", "detail": detail}]
        raise Problem(401, "Who asks?", detail, errors, headers={"WWW-Authenticate": "Bearer"})


async def find_webhook(request: web.Request) -> Webhook:
    """The subscription that the path names. Raises Problem."""
    check_operator(request)
    webhook_id = request.match_info["webhook"]
    found = await request.app[WEBHOOKS].find(webhook_id)
    if found is None:
        raise not_found("webhook", webhook_id)
    return found


def partitions() -> list[tuple[str, int]]:
    return [(topic, number) for topic, spec in streams().topics.items() for number in range(spec.partitions)]


async def ends(request: web.Request) -> list[Place]:
    """Where the log ends now, in every partition."""
    found = await request.app[LOG].ends(partitions())
    return [Place(topic, partition, offset) for (topic, partition), offset in found.items()]


async def places_of(request: web.Request, cursor: str) -> Sequence[Place]:
    """What a cursor says. Raises Problem for one that is none, or lies beyond the log's end."""
    if cursor == BEGINNING:
        return [Place(topic, partition, 0) for topic, partition in partitions()]
    try:
        places = read_token(cursor, secret_of(request))
    except WrongToken as error:
        raise invalid_field("cursor", str(error)) from None
    end_of = {place[:2]: place.offset for place in await ends(request)}
    for place in places:
        if place.offset > end_of.get(place[:2], -1):
            raise invalid_field("cursor", f"names {place}, which lies beyond the end of the log")
    return places


def told(request: web.Request, webhook: Webhook, cursor: Sequence[Place]) -> dict[str, Any]:
    """A subscription as its subscriber is told of it, without the secret."""
    return {**webhook._asdict(), "cursor": write_token(cursor, secret_of(request))}


async def _answer(request: web.Request, webhook: Webhook) -> web.Response:
    return answer(told(request, webhook, await request.app[WEBHOOKS].cursor(webhook.id)))
