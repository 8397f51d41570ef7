"""The chronicle: every event in the life of every film, at its place in the log. What the catalogue was at any moment is folded from it."""

from collections.abc import Iterator

from projections.changes import Change, Upsert
from projections.projection import Handler, Projection
from schemas.events import EVENTS, VideoEvent
from schemas.log import Recorded, moment_of

chronicle = Projection("chronicle", version=1, topics=("videos",))


def _keeping(event_type: type[VideoEvent]) -> Handler:
    def keep(event: VideoEvent, recorded: Recorded) -> Iterator[Change]:
        yield Upsert(
            "chronicle",
            key={"log_partition": recorded.place.partition, "log_offset": recorded.place.offset},
            values={
                "video_id": event.video_id,
                "event_type": event.type,
                "event_id": recorded.event_id,
                "occurred_at": event.occurred_at,
                "recorded_at": moment_of(recorded.recorded_at_ms),
                "data": event.model_dump(mode="json", exclude_none=True),
            },
        )

    keep.__annotations__["event"] = event_type
    return keep


# All of them, also those that no other projection folds yet: who asks about the past may want them.
for _event_type in EVENTS.values():
    if issubclass(_event_type, VideoEvent):
        chronicle.on(_keeping(_event_type))
