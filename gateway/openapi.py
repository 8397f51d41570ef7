"""The OpenAPI 3.1 document, made of the models and the route table."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from aiohttp import web
from openapi_pydantic import (
    Header,
    Info,
    License,
    MediaType,
    OpenAPI,
    Operation,
    Parameter,
    PathItem,
    Reference,
    RequestBody,
    Response,
    Schema,
    Tag,
)
from openapi_pydantic.util import PydanticSchema, construct_open_api_with_schema_class
from pydantic import BaseModel

from gateway import contract
from gateway.answers import TOKEN_HEADER
from gateway.catalogue import PageAsOf
from gateway.explanation import Why
from gateway.freshness import STALE_HEADER, After
from gateway.leaderboard import Board, BoardAsOf
from gateway.multipart import Abort, Complete, Initiate, PartQuery, UploadQuery
from gateway.past import AsOf
from gateway.positions import Listing, Position
from gateway.problems import MEDIA_TYPE
from gateway.search import Beginning, Question
from gateway.statistics import Span
from gateway.viewers import HEADER
from gateway.views import View
from gateway.webhooks import LastAttempts, Replay, Subscription
from schemas.bounds import PUBLISHED_WORDS
from schemas.events import Metadata

VARIABLE = re.compile(r"{(\w+)(?::[^{}]*(?:{[^{}]*}[^{}]*)*)?}")
TAGS = {
    "films": "Films, and what plays of them.",
    "uploads": "How films get in.",
    "viewers": "Views, positions, history.",
    "analytics": "Boards and statistics.",
    "webhooks": "Events told to other services by HTTP; asked for with the operator's token.",
    "operation": "Health, metrics and documents.",
}
PATH_PARAMETERS = {
    "id": ("the film's id", r"^[A-Za-z0-9._:-]{1,64}$"),
    "quality": ("such as 720p", r"^[1-9][0-9]{1,3}p$"),
    "sheet": ("as the storyboard names it", r"^storyboard-[A-Za-z0-9_-]{1,100}[.]jpg$"),
    "segment": ("as the playlist names it", r"^[A-Za-z0-9._-]{1,128}$"),
    "webhook": ("the subscription's id", r"^[A-Za-z0-9_-]{1,64}$"),
    "name": ("an event type", r"^[a-z0-9_.]{1,100}$"),
}


class Described(NamedTuple):
    """What the table of routes does not say of a handler. `media` is the answer's type where it is no JSON."""

    tag: str
    status: int = 200
    answer: type[BaseModel] | None = None
    media: str = "application/json"
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    body_media: str = "application/json"
    problems: tuple[int, ...] = ()
    is_write: bool = False
    knows_viewer: bool = False
    is_ranged: bool = False


DOCUMENTS = ("application/json", "application/schema+json", "application/yaml")
PLAYLIST, BYTES, TEXT = "application/vnd.apple.mpegurl", "video/mp4", "text/plain"
FILM = (400, 404, 503)
OF_WEBHOOK = (401, 403, 404, 503)


def a_file(media: str) -> Described:
    return Described("films", media=media, query=After, problems=(400, 404, 412, 416, 503), is_ranged=True)


DESCRIBED: dict[str, Described] = {
    "health": Described("operation", answer=contract.Health, problems=()),
    "live": Described("operation", answer=contract.Ready),
    "ready": Described("operation", answer=contract.Ready),
    "metrics": Described("operation", media=TEXT),
    "openapi": Described("operation"),
    "asyncapi": Described("operation", media="application/yaml"),
    "json_schema": Described("operation", media="application/schema+json", problems=(404,)),
    "upload_video": Described(
        "uploads",
        202,
        contract.Uploaded,
        body=Metadata,
        body_media="multipart/form-data",
        problems=(400, 411, 413, 415, 422, 503),
        is_write=True,
    ),
    "initiate_upload": Described(
        "uploads", 201, contract.Initiated, body=Initiate, problems=(400, 413, 415, 422, 503), is_write=True
    ),
    "put_part": Described(
        "uploads",
        answer=contract.Part,
        query=PartQuery,
        body_media="application/octet-stream",
        problems=(400, 404, 409, 410, 411, 413, 503),
    ),
    "list_parts": Described("uploads", answer=contract.Parts, query=UploadQuery, problems=(400, 404, 410, 503)),
    "complete_upload": Described(
        "uploads",
        202,
        contract.Uploaded,
        body=Complete,
        problems=(400, 404, 409, 410, 413, 415, 422, 503),
        is_write=True,
    ),
    "abort_upload": Described("uploads", 204, body=Abort, problems=(400, 409, 413, 415, 422, 503)),
    "list_videos": Described("films", answer=contract.Videos, query=PageAsOf, problems=(400, 503)),
    "search": Described("films", answer=contract.Found, query=Question, problems=(400, 503)),
    "suggest": Described("films", answer=contract.Suggestions, query=Beginning, problems=(400, 503)),
    "get_video": Described("films", answer=contract.CountedVideo, query=AsOf, problems=FILM),
    "delete_video": Described("films", 202, contract.Accepted, problems=(404, 503), is_write=True),
    "stream_video": a_file(BYTES),
    "master_playlist": a_file(PLAYLIST),
    "media_playlist": a_file(PLAYLIST),
    "segment": a_file(BYTES),
    "thumbnail": a_file("image/jpeg"),
    "storyboard": a_file("text/vtt"),
    "storyboard_sheet": a_file("image/jpeg"),
    "record_view": Described(
        "viewers",
        202,
        contract.AcceptedView,
        body=View,
        problems=(400, 404, 413, 415, 422, 503),
        is_write=True,
        knows_viewer=True,
    ),
    "update_position": Described(
        "viewers",
        202,
        contract.Accepted,
        body=Position,
        problems=(400, 404, 413, 415, 422, 503),
        is_write=True,
        knows_viewer=True,
    ),
    "get_position": Described("viewers", answer=contract.StoppedAt, query=After, problems=FILM, knows_viewer=True),
    "continue_watching": Described(
        "viewers", answer=contract.History, query=Listing, problems=(400, 401, 503), knows_viewer=True
    ),
    "completed": Described(
        "viewers", answer=contract.History, query=Listing, problems=(400, 401, 503), knows_viewer=True
    ),
    "get_viewer": Described("viewers", answer=contract.Viewer, problems=(400, 503), knows_viewer=True),
    "forget_viewer": Described(
        "viewers", 202, contract.Accepted, problems=(400, 401, 404, 503), is_write=True, knows_viewer=True
    ),
    "export_viewer": Described(
        "viewers", answer=contract.ViewerExport, problems=(400, 401, 404, 503), knows_viewer=True
    ),
    "top": Described("analytics", answer=contract.Top, query=BoardAsOf, problems=(400, 503)),
    "follow_top": Described("analytics", media="text/event-stream", query=Board, problems=(400, 503)),
    "stats": Described("analytics", answer=contract.Stats, query=AsOf, problems=FILM),
    "explain": Described("analytics", answer=contract.Explanation, query=Why, problems=FILM),
    "history": Described("analytics", answer=contract.ViewHistory, query=Span, problems=FILM),
    "create_webhook": Described(
        "webhooks", 201, contract.NewWebhook, body=Subscription, problems=(400, 401, 403, 409, 413, 415, 422, 503)
    ),
    "list_webhooks": Described("webhooks", answer=contract.WebhookList, problems=(401, 403, 503)),
    "get_webhook": Described("webhooks", answer=contract.Webhook, problems=OF_WEBHOOK),
    "delete_webhook": Described("webhooks", 204, problems=OF_WEBHOOK),
    "pause_webhook": Described("webhooks", answer=contract.Webhook, problems=OF_WEBHOOK),
    "resume_webhook": Described("webhooks", answer=contract.Webhook, problems=OF_WEBHOOK),
    "replay_webhook": Described(
        "webhooks", answer=contract.Webhook, body=Replay, problems=(400, 401, 403, 404, 413, 415, 422, 503)
    ),
    "ping_webhook": Described("webhooks", answer=contract.Pinged, problems=OF_WEBHOOK),
    "webhook_deliveries": Described(
        "webhooks", answer=contract.Deliveries, query=LastAttempts, problems=(400, 401, 403, 404, 503)
    ),
}


def document(routes: Iterable[web.RouteDef]) -> bytes:
    """The document of `routes`, as JSON."""
    paths: dict[str, PathItem] = {}
    for route in routes:
        path = VARIABLE.sub(r"{\1}", route.path)
        item = paths.setdefault(path, PathItem())
        setattr(item, route.method.lower(), _operation(route, VARIABLE.findall(route.path)))
    api = OpenAPI(
        info=Info(
            title="EntertainmentTime",
            version="1.0.0",
            summary="Films in, films out; every write is an event in the log.",
            description=(
                f"Writes answer with the event's place in the log and the header `{TOKEN_HEADER}`, a token: a read with "
                "`?after=TOKEN` waits until it sees that write. Errors are problem documents (RFC 9457)."
            ),
            license=License(name="Apache-2.0", identifier="Apache-2.0"),
        ),
        paths=paths,
        tags=[Tag(name=name, description=description) for name, description in TAGS.items()],
    )
    whole = construct_open_api_with_schema_class(api, by_alias=True)
    return whole.model_dump_json(by_alias=True, exclude_none=True).encode()


def _operation(route: Any, variables: list[str]) -> Operation:
    described = DESCRIBED[route.handler.__name__]
    summary = (route.handler.__doc__ or "").strip().splitlines()[0].split("`: ", 1)[-1]
    parameters: list[Parameter | Reference] = [*map(_path_parameter, variables), *_query_parameters(described.query)]
    if described.knows_viewer:
        parameters.append(
            Parameter(
                name=HEADER,
                **{"in": "header"},
                description="who is watching; else a signed cookie that the gateway sets",
                schema=Schema(type="string", pattern="^[A-Za-z0-9._-]{1,64}$"),
            )
        )
    return Operation(
        operationId=route.handler.__name__,
        summary=summary[:1].upper() + summary[1:],
        tags=[described.tag],
        parameters=parameters or None,
        requestBody=_request_body(described),
        responses=_responses(described),
    )


def _path_parameter(name: str) -> Parameter:
    description, pattern = PATH_PARAMETERS[name]
    schema = Schema(type="string", pattern=pattern)
    return Parameter(name=name, **{"in": "path"}, required=True, description=description, schema=schema)


def _query_parameters(model: type[BaseModel] | None) -> list[Parameter]:
    if model is None:
        return []
    schema = model.model_json_schema(by_alias=True)
    required = schema.get("required", [])
    return [
        Parameter(
            name=name,
            **{"in": "query"},
            required=name in required,
            schema=_schema(_not_null(field)),
        )
        for name, field in schema["properties"].items()
    ]


def _schema(node: dict[str, Any]) -> Schema:
    """`node` without the words that `openapi_pydantic` does not know and trips over."""

    def known(part: Any) -> Any:
        if isinstance(part, dict):
            return {word: known(value) for word, value in part.items() if word not in PUBLISHED_WORDS}
        return [known(item) for item in part] if isinstance(part, list) else part

    return Schema.model_validate(known(node))


def _not_null(field: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or not; it is never null."""
    if "anyOf" not in field:
        return field
    alternatives = [alternative for alternative in field["anyOf"] if alternative.get("type") != "null"]
    rest = {name: value for name, value in field.items() if name != "anyOf" and (name, value) != ("default", None)}
    return {**rest, **alternatives[0]} if len(alternatives) == 1 else {**rest, "anyOf": alternatives}


def _request_body(described: Described) -> RequestBody | None:
    if described.body_media == "application/octet-stream":
        schema = Schema(type="string", contentMediaType="application/octet-stream")
        return RequestBody(required=True, content={described.body_media: MediaType(schema=schema)})
    if described.body is None:
        return None
    if described.body_media == "multipart/form-data":
        form = described.body.model_json_schema()
        form["properties"] = {name: _not_null(field) for name, field in form["properties"].items()}
        form["properties"]["file"] = {"type": "string", "contentMediaType": "video/*", "description": "the film"}
        form["required"] = [*form["required"], "file"]
        content = MediaType(schema=_schema(form))
        return RequestBody(required=True, content={described.body_media: content})
    return RequestBody(
        required=True, content={described.body_media: MediaType(schema=PydanticSchema(schema_class=described.body))}
    )


def _responses(described: Described) -> dict[str, Response | Reference]:
    schema: Any = None
    if described.answer is not None:
        schema = PydanticSchema(schema_class=described.answer)
    elif described.media in DOCUMENTS:
        schema = Schema(type="object")
    else:
        schema = Schema(type="string")
    content = None if described.status == 204 else {described.media: MediaType(schema=schema)}
    told = {"202": "Appended to the log.", "201": "Begun.", "204": "Gone."}.get(str(described.status), "As asked.")
    headers = None
    if described.is_write:
        headers = {TOKEN_HEADER: Header(description="the token for `?after=`", schema=Schema(type="string"))}
    elif described.query is not None and issubclass(described.query, After):
        stale = "there when `stale=ok` took an answer without the write: the projections that had not folded it"
        headers = {STALE_HEADER: Header(description=stale, schema=Schema(type="string"))}
    responses: dict[str, Response | Reference] = {
        str(described.status): Response(description=told, content=content, headers=headers)
    }
    if described.is_ranged:
        responses["206"] = Response(description="The range that was asked for.", content=content)
        responses["304"] = Response(description="Not changed since.")
    if described.tag == "operation" and described.answer in (contract.Health, contract.Ready):
        responses["503"] = Response(description="It cannot serve.", content=content)
    problem = {MEDIA_TYPE: MediaType(schema=PydanticSchema(schema_class=contract.ProblemDocument))}
    for status in described.problems:
        responses[str(status)] = Response(description=PROBLEMS[status], content=problem)
    return responses


PROBLEMS = {
    400: "Something in the request is malformed; `errors` names it.",
    401: "It is not known who asks.",
    403: "Nobody may do this here.",
    404: "There is no such thing.",
    409: "It contradicts what is there.",
    410: "It is over.",
    411: "The length must be said.",
    412: "A precondition does not hold.",
    413: "It is too large.",
    415: "The media type is not read here.",
    416: "The range lies outside.",
    422: "Fields are out of their bounds; `errors` has a pointer to each.",
    503: "A server is away: send the same again after `Retry-After`.",
}
