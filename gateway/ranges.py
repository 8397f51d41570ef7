"""Ranges and preconditions of HTTP (RFC 9110 §13, §14), as pure functions of headers and what is known of the object."""

import re
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from aiohttp import ETag

SPEC = re.compile(r"[ \t]*(?:(\d+)-(\d*)|-(\d+))[ \t]*", re.ASCII)
EPOCH = datetime.fromtimestamp(0, UTC)
MAX_DIGITS = 18  # a longer number lies beyond the end of any object


class Slice(NamedTuple):
    """The bytes from `start` to before `end`, at least one."""

    start: int
    end: int


class Unsatisfiable(NamedTuple):
    """The range lies outside of the object: 416."""


def find_range(header: str | None, size: int) -> Slice | Unsatisfiable | None:
    """What to send of `size` bytes for a Range header; None is the whole.

    A header that is malformed, in another unit, or asks for several ranges is ignored, as §14.2 allows: a multipart answer would cost
    every reader a parser for what no player asks. Of one range, the part that exists is sent.
    """
    if header is None or not header.lower().startswith("bytes="):
        return None
    spec = SPEC.fullmatch(header[len("bytes=") :])
    if spec is None:
        return None
    first, last, suffix = spec.groups()
    if suffix is not None:
        length = min(_number(suffix), size)
        return Slice(size - length, size) if length else Unsatisfiable()
    start = _number(first)
    if last and _number(last) < start:
        return None
    if start >= size:
        return Unsatisfiable()
    return Slice(start, min(_number(last) + 1, size) if last else size)


def _number(digits: str) -> int:
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= MAX_DIGITS else 10**MAX_DIGITS


class Conditions(NamedTuple):
    """The request's preconditions, parsed. An entity tag `*` means any."""

    if_match: tuple[ETag, ...] | None = None
    if_none_match: tuple[ETag, ...] | None = None
    if_modified_since: datetime | None = None
    if_unmodified_since: datetime | None = None


def evaluate(conditions: Conditions, etag: str, modified_at: datetime | None) -> Literal[304, 412] | None:
    """The status that ends a GET or HEAD before its range is looked at, in the order of §13.2.2; None when it goes on.

    Conditions on a date are ignored where `modified_at` is not known.
    """
    if modified_at is None:
        conditions = conditions._replace(if_modified_since=None, if_unmodified_since=None)
    modified_at = (modified_at or EPOCH).replace(microsecond=0)  # HTTP's dates know seconds
    if conditions.if_match is not None:
        if not any(tag.value == "*" or (tag.value == etag and not tag.is_weak) for tag in conditions.if_match):
            return 412
    elif conditions.if_unmodified_since is not None and modified_at > conditions.if_unmodified_since:
        return 412
    if conditions.if_none_match is not None:
        if any(tag.value in ("*", etag) for tag in conditions.if_none_match):
            return 304
    elif conditions.if_modified_since is not None and modified_at <= conditions.if_modified_since:
        return 304
    return None


def range_still_holds(if_range: str | None, etag: str, last_modified: str | None) -> bool:
    """Whether the Range header counts: If-Range is absent, or names exactly this version (§13.1.5; weak tags never do)."""
    return if_range is None or if_range.strip() in (f'"{etag}"', last_modified)
