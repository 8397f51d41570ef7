"""`streams.yaml` as checked, frozen models: topics, projections, agents."""

import re
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .bounds import Noun

STREAMS_FILE = Path(__file__).resolve().parent.parent / "streams.yaml"
SPAN = re.compile(r"(\d+)([smhd])")
SPAN_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class WrongStreams(Exception):
    """`streams.yaml` says something that cannot be; the message names the key."""


def _span(text: object) -> object:
    match = SPAN.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise ValueError("must be a number and a unit of s, m, h or d, such as 6h")
    return timedelta(**{SPAN_UNITS[match[2]]: int(match[1])})


DECISIONS = "decisions"  # the topic that every projection reads besides its own

Span = Annotated[timedelta, BeforeValidator(_span)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Topic(Frozen):
    """A topic of the log. `once_within` is the span of append time in which an id sent again is a duplicate.

    `ordered`: what happened to one key means something only in its order, so nothing of it is folded past a parked record.
    """

    key: Noun
    partitions: int = Field(ge=1, le=1_000)
    retention: Literal["forever"]
    timestamps: Literal["LogAppendTime"]
    once_within: Span | None = None
    ordered: bool = False


class ProjectionSpec(Frozen):
    """Which version of a projection answers, what it folds and where its state lies."""

    version: int = Field(ge=1)
    topics: tuple[Noun, ...] = Field(min_length=1)
    sink: Literal["memory", "postgres", "redis", "elasticsearch"]
    shards: int = Field(1, ge=1, le=64)

    @property
    def reads(self) -> tuple[str, ...]:
        """Its topics, and the operators' decisions about what it parked of them."""
        return (*self.topics, DECISIONS)


class AgentSpec(Frozen):
    """How many partitions of a projection may be folded side by side in one worker."""

    concurrency: int = Field(ge=1, le=64)


class Streams(Frozen):
    """The map of the system, checked as a whole."""

    topics: dict[Noun, Topic]
    projections: dict[Noun, ProjectionSpec]
    agents: dict[Noun, AgentSpec]

    @model_validator(mode="after")
    def names_meet(self) -> Self:
        for name, projection in self.projections.items():
            if unknown := set(projection.topics) - set(self.topics):
                raise ValueError(
                    f"projections.{name}.topics names {', '.join(sorted(unknown))}, which topics does not declare"
                )
        if self.agents.keys() != self.projections.keys():
            odd = sorted(self.agents.keys() ^ self.projections.keys())
            raise ValueError(f"agents and projections must name the same nouns; only one of them has {', '.join(odd)}")
        return self


def read_streams(path: Path = STREAMS_FILE) -> Streams:
    """Raises WrongStreams with each wrong key named."""
    try:
        return Streams.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise WrongStreams(f"{path.name} is no YAML: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or path.name}: {e['msg']}" for e in error.errors()]
        raise WrongStreams(f"{path.name}: " + "; ".join(lines)) from None


@cache
def streams() -> Streams:
    """The map of this system, read once."""
    return read_streams()
