"""The strict bounds of every field, in one place: the gateway and the reader refuse the same things.

Numbers are JSON numbers (no strings, no booleans), floats are finite, integers fit 64 bits, text holds no NUL and is bounded in code
points and in bytes, times carry an offset (RFC 3339) and lie in the years 1970 to 2099.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic_core import PydanticCustomError, core_schema

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
PUBLISHED_WORDS = ("x-max-bytes", "formatMinimum", "formatExclusiveMaximum")
"""What JSON Schema has no word for: bounds in bytes, and (in the words of ajv-formats) the bounds of a time."""

INT64_MAX = 2**63 - 1
MAX_DURATION_SECONDS = 1_000_000  # eleven days: longer than any film, shorter than any unit mistake
BYTES_PER_CODE_POINT = 3  # UTF-8 needs four only outside the basic plane; a text made of those alone is refused sooner


def _in_range(moment: datetime) -> datetime:
    # Compared before it is converted: converting a time at the edge of year 1 or 9999 to UTC would overflow.
    if not EARLIEST <= moment < LATEST:
        raise PydanticCustomError("time_out_of_range", "must lie in the years 1970 to 2099")
    return moment.astimezone(UTC)


@dataclass(frozen=True)
class MaxBytes:
    """At most `limit` bytes in UTF-8; published as `x-max-bytes`, since JSON Schema has no word for it."""

    limit: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "x-max-bytes": self.limit}

    def _check(self, text: str) -> str:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise PydanticCustomError("not_unicode", "must not hold half of a surrogate pair") from None
        if size > self.limit:
            raise PydanticCustomError("too_many_bytes", "must be at most {limit} bytes in UTF-8", {"limit": self.limit})
        return text


def _rfc3339(value: object) -> object:
    # Pydantic would also read numbers, and texts of digits, as seconds since 1970.
    if isinstance(value, datetime) or (isinstance(value, str) and len(value) >= 20 and value[10] in "Tt "):
        return value
    raise PydanticCustomError("not_rfc3339", "must be an RFC 3339 time with an offset, such as 2026-01-31T20:15:00Z")


Moment = Annotated[
    AwareDatetime,
    Field(
        strict=False,
        description="RFC 3339 with an offset, in the years 1970 to 2099",
        json_schema_extra={"formatMinimum": "1970-01-01T00:00:00Z", "formatExclusiveMaximum": "2100-01-01T00:00:00Z"},
    ),
    BeforeValidator(_rfc3339),
    AfterValidator(_in_range),
]
"""A moment in UTC."""

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
"""An opaque id: a video's, a view's, a session's, a viewer's pseudonym."""

RecordId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,40}:[0-9]{1,4}:[0-9]{1,18}$")]
"""A record of the log: topic, partition and offset, such as `views:3:41207`."""

Noun = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,40}$")]
"""The name of a projection."""

ReasonWord = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,40}$")]
"""The fixed word for why a record was parked, such as `unknown-type`."""

Offset = Annotated[int, Field(ge=0, le=INT64_MAX)]

Title = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$"),
    MaxBytes(300 * BYTES_PER_CODE_POINT),
]
"""A title or name in one line: 1 to 300 code points, not only blanks."""

Label = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$"),
    MaxBytes(64 * BYTES_PER_CODE_POINT),
]
"""A short word to filter by, such as a genre or a rating."""

Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1_000, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$"),
    MaxBytes(1_000 * BYTES_PER_CODE_POINT),
]
"""Why somebody did something, in their own words."""

Text = Annotated[
    str, StringConstraints(max_length=5_000, pattern=r"^[^\x00]*$"), MaxBytes(5_000 * BYTES_PER_CODE_POINT)
]
"""Free text of up to 5,000 code points."""

ObjectKey = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9._:/-]+$")]
"""The key of an object in the store; ours, never a user's."""

Seconds = Annotated[float, Field(ge=0, le=MAX_DURATION_SECONDS, allow_inf_nan=False)]
"""A duration or a position in seconds, finite."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, le=INT64_MAX)]
Pixels = Annotated[int, Field(ge=1, le=16_384)]
BitsPerSecond = Annotated[int, Field(ge=1, le=10**10)]
Year = Annotated[int, Field(ge=1870, le=2100)]
Ordinal = Annotated[int, Field(ge=0, le=100_000)]
"""A season's or an episode's number."""

ContentType = Literal["movie", "episode", "short", "documentary"]
Quality = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{1,3}p$")]
PlaybackState = Literal["playing", "paused", "stopped"]
