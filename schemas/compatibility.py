"""What a change of a published schema does to the log that is kept for ever, and to those who read it elsewhere.

Two directions, both held. *Backward*: every record that was valid stays valid and means the same, since each rebuild reads all of them
again. *Forward*: who reads today finds each field that it relies on, in the same type. Wider bounds, another word of an enumeration and
another optional field break neither for a reader that takes what it knows; they are rolled out readers first. All else breaks.
What this module cannot compare (a pattern with another pattern, a rule over several fields) breaks as well: it never guesses.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

# Less than before is narrower; the other way round for the lower ends.
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "formatExclusiveMaximum", "x-max-bytes")
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "formatMinimum")
SAYS_NOTHING = {"$schema", "$id", "$defs", "$comment", "title", "description", "examples"}
STRUCTURE = {"type", "anyOf", "enum", "properties", "required", "items", "default", *UPPER, *LOWER}
WHY = {
    "x-topic": "and its records lie on the old one",
    "x-key": "and the records in the log are keyed by the old one",
}
ABSENT = object()


class Change(NamedTuple):
    """One difference: where (a field, or the event as a whole), what, and whether records or readers break by it."""

    field: str
    what: str
    breaks: bool


def changes(committed: Schema, proposed: Schema) -> list[Change]:
    """What `proposed` changes in the JSON Schema `committed`."""
    return list(_Comparison(committed, proposed).of_nodes("", committed, proposed))


class _Comparison(NamedTuple):
    old_root: Schema
    new_root: Schema

    def of_nodes(self, field: str, old: Schema, new: Schema) -> Iterator[Change]:
        olds, news = _by_type(old, self.old_root), _by_type(new, self.new_root)
        if olds is None or news is None:
            if old != new:
                yield Change(field, "has several forms that cannot be compared with what they were", True)
            return
        if olds.keys() != news.keys():
            yield Change(field, f"was {_words(olds)} and is now {_words(news)}", True)
        for kind in olds.keys() & news.keys():
            yield from self._of_one_type(field, olds[kind], news[kind])

    def _of_one_type(self, field: str, old: Schema, new: Schema) -> Iterator[Change]:
        for keyword in UPPER:
            yield from _bound(field, keyword, old.get(keyword), new.get(keyword), operator.lt)
        for keyword in LOWER:
            yield from _bound(field, keyword, old.get(keyword), new.get(keyword), operator.gt)
        yield from _words_of_enum(field, old.get("enum"), new.get("enum"))
        for keyword in sorted((old.keys() | new.keys()) - STRUCTURE - SAYS_NOTHING):
            was, now = old.get(keyword, ABSENT), new.get(keyword, ABSENT)
            if was != now:
                why = WHY.get(keyword, "and no program can tell that all that was valid still is")
                yield Change(field, f"{keyword} {_told(was)} became {_told(now)}, {why}", True)
        if "items" in old or "items" in new:
            yield from self.of_nodes(f"{field}[]", old.get("items", {}), new.get("items", {}))
        yield from self._of_properties(f"{field}." if field else "", old, new)

    def _of_properties(self, prefix: str, old: Schema, new: Schema) -> Iterator[Change]:
        olds, news = old.get("properties", {}), new.get("properties", {})
        was_required, is_required = set(old.get("required", ())), set(new.get("required", ()))
        for name in olds:
            if name not in news:
                yield Change(prefix + name, "was removed", True)
                continue
            if name in is_required - was_required:
                yield Change(prefix + name, "became required, and records without it are in the log", True)
            if name in was_required - is_required:
                yield Change(prefix + name, "is no longer required, and readers rely on it", True)
            if name not in was_required | is_required:
                yield from _default(prefix + name, olds[name], news[name])
            yield from self.of_nodes(prefix + name, olds[name], news[name])
        for name in news.keys() - olds.keys():
            if name in is_required:
                yield Change(prefix + name, "is new and required, and every record in the log lacks it", True)
            else:
                yield Change(prefix + name, "is new and optional", False)


def _by_type(node: Schema, root: Schema) -> dict[str, Schema] | None:
    """The forms of a field, by type; None where two share one type."""
    found: dict[str, Schema] = {}
    forms = [{**node, "anyOf": None, **form} for form in node["anyOf"]] if node.get("anyOf") else [node]
    for form in forms:
        whole = _resolved({k: v for k, v in form.items() if k != "anyOf"}, root)
        kind = whole.get("type", "anything")
        if not isinstance(kind, str) or kind in found:
            return None
        found[kind] = whole
    return found


def _resolved(node: Schema, root: Schema) -> Schema:
    if "$ref" not in node:
        return node
    target: Schema = root["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return _resolved({**target, **{k: v for k, v in node.items() if k != "$ref"}}, root)


def _bound(field: str, keyword: str, was: Any, now: Any, narrower: Callable[[Any, Any], bool]) -> Iterator[Change]:
    if was == now:
        return
    if now is not None and (was is None or narrower(now, was)):
        yield Change(field, f"{keyword} {_told(was)} became {now}, and what was valid is refused", True)
    else:
        yield Change(field, f"{keyword} {was} became {_told(now)}", False)


def _words_of_enum(field: str, was: list[Any] | None, now: list[Any] | None) -> Iterator[Change]:
    if was is None and now is not None:
        yield Change(field, f"took any value and takes only {', '.join(map(str, now))}", True)
    if was is not None and now is None:
        yield Change(field, f"took only {', '.join(map(str, was))} and takes any value", False)
    if was is not None and now is not None:
        if gone := [word for word in was if word not in now]:
            yield Change(field, f"no longer takes {', '.join(map(str, gone))}", True)
        if added := [word for word in now if word not in was]:
            yield Change(field, f"also takes {', '.join(map(str, added))}", False)


def _default(field: str, old: Schema, new: Schema) -> Iterator[Change]:
    was, now = old.get("default", ABSENT), new.get("default", ABSENT)
    if was != now:
        yield Change(field, f"stood for {_told(was)} where it is absent, and stands for {_told(now)}", True)


def _words(types: Mapping[str, Schema]) -> str:
    return " or ".join(sorted(types))


def _told(value: object) -> str:
    return "(none)" if value is None or value is ABSENT else str(value)
