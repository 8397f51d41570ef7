"""An explanation against the log: the film's records counted anew, up to where the raw views are."""

from collections import Counter
from datetime import datetime

from agents.decisions import HOME
from agents.left import Left
from agents.replaying import Replay
from agents.stores import folded_as
from projections.changes import Append, Change
from projections.queries.explanation import TOPIC, Explanation
from projections.queries.versions import Version
from schemas.log import Place

COUNTED = "counted"


async def in_log(replay: Replay, explanation: Explanation, version: Version, left: Left) -> Counter[str]:
    """The film's views in the window, by what became of them: `counted`, or the reason. Raises StoreUnavailable.

    `version` of the raw views is the one that the explanation speaks of, and `left` what it has left.
    """
    found: Counter[str] = Counter()

    def write(change: Change) -> None:
        if isinstance(change, Append):
            found.update(
                COUNTED if change.table == "views" else row["reason"]
                for row in (
                    dict(zip(change.key_columns + change.columns, values, strict=True)) for values in change.rows
                )
                if row["video_id"] == explanation.video_id and _lies_in(row["occurred_at"], explanation.from_)
            )

    places = [Place(TOPIC, partition, offset) for partition, offset in explanation.positions.items()]
    places.append(Place(*HOME, explanation.decided_to))
    spans = await replay.spans_to(places, occurred_from=explanation.from_)
    await replay.fold(folded_as(version), spans, write, left=left)
    return found


def in_store(explanation: Explanation) -> Counter[str]:
    """The same as the explanation has it."""
    return Counter({COUNTED: explanation.counted, **{item.reason: item.views for item in explanation.refused}})


def _lies_in(occurred_at: datetime, from_: datetime | None) -> bool:
    return from_ is None or occurred_at >= from_
