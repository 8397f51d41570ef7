"""Bodies in and out: strict JSON, checked by a model; answers that say where a write lies."""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from compose.log import Appended
from gateway.keys import SETTINGS
from gateway.problems import Problem
from schemas.log import write_token

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 32
BODY_SECONDS = 20.0  # for 64 KiB: whoever is slower holds a connection, not a conversation
INT64 = range(-(2**63), 2**63)
TOKEN_HEADER = "X-Event-Position"

Model = TypeVar("Model", bound=BaseModel)


class Body(BaseModel):
    """A JSON body: no text for a number, no number for a truth value. Unknown fields are ignored, as in events."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Query(BaseModel):
    """Query parameters: texts that are read as what the field is."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _digits(value: object) -> object:
    # Pydantic would also read 1.0, 1_000, +1 and blanks around a number.
    if isinstance(value, str) and not re.fullmatch(r"-?(0|[1-9][0-9]{0,18})", value, re.ASCII):
        raise PydanticCustomError("not_whole", "must be a whole number in digits, such as 10")
    return value


whole = BeforeValidator(_digits)
"""On a number in a query, after its bounds: those then enter the document too."""


class RefusedJson(ValueError):
    """JSON that is well-formed enough to parse and must not be: a key twice, NaN, a NUL, too deep."""


async def read_json(request: web.Request, *, limit: int = MAX_BODY_BYTES) -> bytes:
    """The body, known to be JSON that every reader understands alike (RFC 8259, I-JSON of RFC 7493). Raises Problem."""
    if request.content_type != "application/json":
        detail = f"send application/json, not {request.content_type or 'nothing'}"
        raise Problem(415, "Unsupported media type", detail, [{"header": "Content-Type", "detail": detail}])
    if (request.content_length or 0) > limit:
        raise Problem(413, "Body too large", f"at most {limit:,} bytes are read here")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await request.content.read(limit + 1)
            while len(raw) <= limit and not request.content.at_eof():
                raw += await request.content.read(limit + 1 - len(raw))
    except TimeoutError:
        raise Problem(408, "Too slow", f"the body did not arrive within {BODY_SECONDS:g} s; send it again") from None
    except web.RequestPayloadError:
        raise _malformed("the body is not encoded as Content-Encoding and Transfer-Encoding say") from None
    if len(raw) > limit:
        raise Problem(413, "Body too large", f"at most {limit:,} bytes are read here")
    check_json(raw)
    return raw


def check_json(raw: bytes) -> None:
    """Raises Problem unless `raw` is an object in strict JSON."""
    try:
        document = STRICT.decode(raw.decode())
        _check_texts(document, MAX_DEPTH)
    except UnicodeDecodeError:
        raise _malformed("the body is no UTF-8") from None
    except RecursionError:
        raise _malformed(f"the body is nested deeper than {MAX_DEPTH}") from None
    except RefusedJson as error:
        raise _malformed(str(error)) from None
    except ValueError as error:
        raise _malformed(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise _malformed("the body must be a JSON object")


async def read_body(request: web.Request, model: type[Model], *, limit: int = MAX_BODY_BYTES) -> Model:
    """The body as `model`. Raises Problem: 400 for what is no JSON, 413, 415, 422 with a pointer for each bad field."""
    raw = await read_json(request, limit=limit)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise invalid(error) from None


def read_query(request: web.Request, model: type[Model]) -> Model:
    """The query parameters as `model`. Raises Problem with each bad parameter named."""
    twice = sorted({name for name in request.query if len(request.query.getall(name)) > 1})
    if twice:
        errors = [{"parameter": name, "detail": "is there more than once"} for name in twice]
        raise Problem(400, "Bad query", f"{', '.join(twice)}: more than once", errors)
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        errors = [
            {"parameter": ".".join(map(str, item["loc"])) or "query", "detail": _sentence(item)}
            for item in error.errors(include_url=False)
        ]
        raise Problem(400, "Bad query", _summary(errors, "parameter"), errors) from None


def invalid(error: ValidationError) -> Problem:
    """422, with a pointer into the body for each bad field."""
    errors = [{"pointer": pointer(item["loc"]), "detail": _sentence(item)} for item in error.errors(include_url=False)]
    return Problem(422, "Invalid fields", _summary(errors, "pointer"), errors)


def invalid_field(name: str, detail: str) -> Problem:
    """422 for one field of the body."""
    return Problem(422, "Invalid fields", f"{name}: {detail}", [{"pointer": pointer([name]), "detail": detail}])


def bad_parameter(name: str, detail: str) -> Problem:
    """400 for one query parameter."""
    return Problem(400, "Bad query", f"{name}: {detail}", [{"parameter": name, "detail": detail}])


def pointer(path: Iterable[str | int]) -> str:
    """A JSON pointer as a URI fragment (RFC 6901, §6)."""
    return "#" + "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def answer(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as JSON; times as RFC 3339 in UTC."""
    raw = orjson.dumps(body, default=_plain, option=orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC)
    return web.Response(status=status, body=raw, content_type="application/json", headers=headers)


def event_of(appended: Appended) -> dict[str, Any]:
    """Where a write lies, as clients are told."""
    return {"id": appended.event_id, **appended.place._asdict()}


def accepted(
    request: web.Request,
    appended: Appended,
    body: Mapping[str, Any] | None = None,
    *,
    status: int = 202,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An acknowledged write: the event's place in the body, and the token for `?after=` in the header."""
    token = write_token([appended.place], secret_of(request))
    event = event_of(appended)
    return answer({**(body or {}), "event": event}, status=status, headers={TOKEN_HEADER: token, **(headers or {})})


def secret_of(request: web.Request) -> str:
    """What tokens and tickets are signed with."""
    return request.app[SETTINGS].secret_key.get_secret_value()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    raise TypeError(f"{type(value).__name__} is not told in JSON")


def _malformed(detail: str) -> Problem:
    return Problem(400, "Malformed body", detail, [{"pointer": "#", "detail": detail}])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RefusedJson(f"the body has the key {twice[0]!r} more than once")
    return found


def _no_constant(word: str) -> NoReturn:
    raise RefusedJson(f"the body holds {word}, which is no JSON number")


def _int64(digits: str) -> int:
    # Length first: converting a number of a million digits would take minutes.
    if len(digits) > 20 or int(digits) not in INT64:
        raise RefusedJson("the body holds an integer that does not fit 64 bits")
    return int(digits)


STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_int64)


def _check_texts(value: Any, depth: int) -> None:
    if depth < 0:
        raise RefusedJson(f"the body is nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        if "\x00" in value:
            raise RefusedJson("the body holds a NUL character")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise RefusedJson("the body holds half of a surrogate pair")
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise RefusedJson("the body holds a number beyond all bounds")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(name, depth - 1)
            _check_texts(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner, depth - 1)


def _sentence(item: Any) -> str:
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def _summary(errors: list[dict[str, str]], where: str) -> str:
    return "; ".join(f"{error[where].removeprefix('#/')}: {error['detail']}" for error in errors)
