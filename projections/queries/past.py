"""Moments that can be asked about."""

from datetime import datetime, timedelta

SETTLED_AFTER = timedelta(
    seconds=1
)  # what a broker's clock may be behind ours: until then something may yet be recorded at that moment


class InTheFuture(ValueError):
    """What will be recorded by then, nobody knows."""


def settling_seconds(moment: datetime, now: datetime) -> float:
    """How long until nothing can be recorded at `moment` any more. Raises InTheFuture."""
    if moment > now:
        raise InTheFuture(f"{moment:%F %T} UTC is yet to come")
    return max(0.0, (moment + SETTLED_AFTER - now).total_seconds())
