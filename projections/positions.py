"""Where each viewer stopped in each film."""

from collections.abc import Iterator

from projections.changes import Change, Forget, Upserts
from projections.projection import Projection
from schemas.columns import Events
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


def remember(updated: Events[PositionUpdated], table: str) -> Iterator[Change]:
    """A row a session, with its newest position, and the newest moment at which it moved.

    The session that moved last answers for the viewer, with its newest position. So the latest update wins in whatever order they
    arrive, and a paused session, however late its updates, never overwrites one that has played since.
    """
    yield Upserts(
        table,
        key_columns=("viewer_id", "video_id", "session_id"),
        columns=("position_seconds", "duration_seconds", "completed", "updated_at", "moved_at"),
        rows=[
            (
                event.viewer_id,
                event.video_id,
                event.session_id or "",
                event.position_seconds,
                event.duration_seconds,
                in_credits(event.position_seconds, event.duration_seconds),
                event.occurred_at,
                None if event.state == "paused" else event.occurred_at,
            )
            for event in updated.each
        ],
        newest_by="updated_at",
        greatest="moved_at",
    )


@positions.on
def remember_positions(updated: Events[PositionUpdated]) -> Iterator[Change]:
    yield from remember(updated, "positions")


@positions.on
def forget_viewer(event: ViewerForgotten) -> Iterator[Change]:
    yield Forget("positions", key={"viewer_id": event.viewer_id})
