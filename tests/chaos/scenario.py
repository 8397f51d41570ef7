"""What is done to the system while it works: scenarios as data, and the course that a seed makes of one."""

import random
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FOLDER = Path(__file__).parent / "scenarios"

Victim = Literal["worker", "second", "gateway", "kafka", "redis", "postgres", "elasticsearch"]


class WrongScenario(Exception):
    """A scenario says something that cannot be; the message names the file and the key."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(Frozen):
    """`kill` is SIGKILL; `freeze` is SIGSTOP, and SIGCONT `seconds` later; `join` starts a second worker, which is told to leave `seconds`
    later.

    With `at`, a share of the run, it happens then; without, it is one that the seed may draw.
    """

    do: Literal["kill", "freeze", "join"]
    to: Victim
    seconds: float | None = Field(None, gt=0, le=60)
    at: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def only_what_ends_lasts(self) -> Self:
        if (self.do == "kill") != (self.seconds is None):
            raise ValueError("freeze and join need `seconds`, kill takes none")
        if (self.do == "join") and self.to != "second":
            raise ValueError("only the second worker joins")
        return self

    def __str__(self) -> str:
        return f"{self.do} {self.to}" + (f" for {self.seconds:g} s" if self.seconds else "")


class Draws(Frozen):
    """Between two faults lie so many seconds, from and to; each is drawn from `among`."""

    every_seconds: Annotated[tuple[float, float], Field(min_length=2)]
    among: tuple[Fault, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def are_drawn(self) -> Self:
        if any(fault.at is not None for fault in self.among):
            raise ValueError("what is drawn has no `at`")
        if not 0 < self.every_seconds[0] <= self.every_seconds[1]:
            raise ValueError("every_seconds is a least and a greatest, both above 0")
        return self


class Scenario(Frozen):
    """`seconds` of traffic; once it has ended, each projection must have folded all of it `within_seconds`, without a hand."""

    about: str
    seconds: float = Field(gt=0, le=3_600)
    within_seconds: float = Field(90, gt=0, le=600)
    faults: tuple[Fault, ...] = ()
    draws: Draws | None = None

    @model_validator(mode="after")
    def has_its_faults_timed(self) -> Self:
        if any(fault.at is None for fault in self.faults):
            raise ValueError("each of `faults` needs `at`; those without belong to draws.among")
        return self


class Planned(NamedTuple):
    """A fault, so many seconds after the start."""

    at_seconds: float
    fault: Fault


def course(scenario: Scenario, seed: int, seconds: float) -> list[Planned]:
    """What happens when, over `seconds`; the same for the same seed."""
    planned = [Planned(fault.at * seconds, fault) for fault in scenario.faults if fault.at is not None]
    if draws := scenario.draws:
        chance, at = random.Random(seed), 0.0
        while (at := at + chance.uniform(*draws.every_seconds)) < seconds:
            planned.append(Planned(at, chance.choice(draws.among)))
    return sorted(planned, key=lambda each: each.at_seconds)


def read_scenario(path: Path) -> Scenario:
    """Raises WrongScenario with each wrong key named."""
    try:
        return Scenario.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.yaml")))
        raise WrongScenario(f"there is no scenario {path.stem}; there are {known}") from None
    except yaml.YAMLError as error:
        raise WrongScenario(f"{path.name} is no YAML: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'the scenario'}: {e['msg']}" for e in error.errors()]
        raise WrongScenario(f"{path.name}: " + "; ".join(lines)) from None


def scenarios(folder: Path = FOLDER) -> dict[str, Scenario]:
    """Each by its file's name. Raises WrongScenario."""
    return {path.stem: read_scenario(path) for path in sorted(folder.glob("*.yaml"))}
