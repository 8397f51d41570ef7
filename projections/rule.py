"""A rule that says which views do not count, beside those that nobody counts: what if it had always been so?"""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from projections.counting import COUNTS, RuledOut, Verdict
from schemas.events import VideoViewed

TOO_SHORT, LEFT_OUT = RULED_OUT = "too-short", "viewer-left-out"
MOST_VIEWERS = 100_000  # it is kept in one row, which every process reads


class Rule(BaseModel):
    """What a version was built with, and goes on with as long as it lives.

    Asked after the id: a view that is left out has taken its id all the same, so that the order in which a view comes twice decides
    nothing more than it did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    watched_at_least_seconds: float | None = Field(None, ge=0)
    without_viewers: frozenset[str] = Field(frozenset(), max_length=MOST_VIEWERS)

    @model_validator(mode="after")
    def says_something(self) -> Self:
        if self.watched_at_least_seconds is None and not self.without_viewers:
            raise ValueError("a rule without a condition leaves everything as it is")
        return self

    def verdict(self, view: VideoViewed) -> Verdict:
        """A view that does not say how long it was watched has not been watched long enough; one without a viewer is nobody's."""
        least = self.watched_at_least_seconds
        if least is not None and (view.watched_seconds is None or view.watched_seconds < least):
            return RuledOut(TOO_SHORT)
        if view.viewer_id in self.without_viewers:
            return RuledOut(LEFT_OUT)
        return COUNTS

    def __str__(self) -> str:
        words = []
        if self.watched_at_least_seconds is not None:
            words.append(f"watched at least {self.watched_at_least_seconds:g} s")
        if self.without_viewers:
            words.append(f"without {len(self.without_viewers):,} viewers")
        return ", ".join(words)
