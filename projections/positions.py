"""Where each viewer stopped in each film."""

from collections.abc import Iterator

from projections.changes import Change, Forget, Upsert
from projections.projection import Projection
from schemas.events import PositionUpdated, ViewerForgotten

CREDITS_SHARE = 0.05  # of the duration: who stops in the credits has seen the film

positions = Projection("positions", version=2, topics=("positions", "viewers"))


def in_credits(position_seconds: float, duration_seconds: float | None) -> bool:
    """Whether who stops here has seen the film; unknown durations have no credits."""
    return (
        duration_seconds is not None
        and duration_seconds > 0
        and position_seconds >= duration_seconds * (1 - CREDITS_SHARE)
    )


def remember(event: PositionUpdated, table: str) -> Iterator[Change]:
    """A row a session, with its newest position, and the newest moment at which it moved.

    The session that moved last answers for the viewer, with its newest position. So the latest update wins in whatever order they
    arrive, and a paused session, however late its updates, never overwrites one that has played since.
    """
    moved = event.state != "paused"
    yield Upsert(
        table,
        key={"viewer_id": event.viewer_id, "video_id": event.video_id, "session_id": event.session_id or ""},
        values={
            "position_seconds": event.position_seconds,
            "duration_seconds": event.duration_seconds,
            "completed": in_credits(event.position_seconds, event.duration_seconds),
            "updated_at": event.occurred_at,
            **({"moved_at": event.occurred_at} if moved else {}),
        },
        newest_by="updated_at",
        greatest="moved_at" if moved else None,
    )


@positions.on
def remember_position(event: PositionUpdated) -> Iterator[Change]:
    yield from remember(event, "positions")


@positions.on
def forget_viewer(event: ViewerForgotten) -> Iterator[Change]:
    yield Forget("positions", key={"viewer_id": event.viewer_id})
