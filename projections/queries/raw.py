"""The raw views as another version counts them: by its rule, which may not be theirs."""

from projections.queries.versions import Version
from projections.rule import RULED_OUT, Rule

BY_RULE = """(
    select v.* from {views} v where ({least}::float8 is null or v.watched_seconds >= {least})
    and not exists (
        select from versions r, jsonb_array_elements_text(r.rule -> 'without_viewers') as left_out
        where r.projection = '{projection}' and r.version = {version} and left_out = v.viewer_id
    )
)"""
WITHOUT_RULE = """(
    select log_partition, log_offset, video_id, occurred_at, recorded_at from {views}
    union all
    select log_partition, log_offset, video_id, occurred_at, recorded_at from {refused} where reason in ({reasons})
)"""


class OtherRule(Exception):
    """The raw views were left out by another rule than the one that is asked about."""


def counted_as(raw: Version, other: Version) -> str:
    """What stands in a query for the views that `other` counts: their places, films and times.

    Raises OtherRule where `raw` cannot tell them. Here no rule leaves out who is forgotten: nobody knows their views any more.
    """
    if raw.rule == other.rule:
        return raw.table("views")
    if raw.rule is None:
        least = Rule.model_validate(other.rule).watched_at_least_seconds
        number = "null" if least is None else repr(least)
        return BY_RULE.format(views=raw.table("views"), least=number, projection=other.projection, version=other.number)
    if other.rule is None:
        reasons = ", ".join(f"'{reason}'" for reason in RULED_OUT)
        return WITHOUT_RULE.format(views=raw.table("views"), refused=raw.table("refused_views"), reasons=reasons)
    rules = [f"{version.full_name} by “{Rule.model_validate(version.rule)}”" for version in (raw, other)]
    raise OtherRule(
        f"views are counted {' and '.join(rules)}: `faust -A agents what-if {raw.projection}` with the second, and `switch`"
    )
