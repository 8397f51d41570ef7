"""The hand-over of partitions, under a scheduler that lets anything happen between any two awaits.

`ET_SEEDS=20000` tries more courses of events, `ET_SEED=41207` one alone.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agents.handover import Batch, Command, Handover, Log, Partition, Pause, ReadCheckpoint, Seek
from projections.sinks.sink import Checkpoint, LogIdentity
from schemas.log import Place
from tests.simulation import World, Wrong, run, run_each, run_side_by_side

SEEDS = int(os.environ.get("ET_SEEDS", "10000"))
ONE_SEED = os.environ.get("ET_SEED")
SEEDS_FOR_A_FAULT = 500  # within which each fault below must show
HOME, OTHER = Partition("views", 0), Partition("views", 1)
IDENTITY = LogIdentity("cluster", "topic", 2)


@pytest.mark.timeout(600)
def test_the_sink_holds_the_fold_of_the_log_whatever_happens_between_any_two_awaits() -> None:
    if ONE_SEED:
        run(int(ONE_SEED))
    else:
        run_side_by_side(range(SEEDS))


def test_a_seed_is_one_course_of_events() -> None:
    first, second = World(7), World(7)
    for world in (first, second):
        world.live()
    assert first.sink.state == second.sink.state
    assert first.logs == second.logs


class SeeksToWhatKafkaHasAsCommitted(Handover):
    def checkpoint_read(self, *told: Any) -> Iterator[Command]:
        return (command for command in super().checkpoint_read(*told) if not isinstance(command, Seek))


class TakesWhatAnEarlierAssignmentFetched(Handover):
    def fetched(self, partition: Partition, epoch: int, records: Sequence[Any], position: int) -> Iterator[Command]:
        return super().fetched(
            partition, self._held[partition].epoch if partition in self._held else 0, records, position
        )


class TakesAFailureForSuccess(Handover):
    def failed(self, batch: Batch) -> Iterator[Command]:
        return super().applied(batch)


class GoesOnWhereAnotherHasMovedTheCheckpoint(Handover):
    def moved(self, batch: Batch) -> Iterator[Command]:
        return super().applied(batch)


class DropsABatchWhenTheStoreIsDown(Handover):
    def unavailable(self, batch: Batch) -> Iterator[Command]:
        return super().applied(batch)


class PassesOnlyWhatItReads(Handover):
    """The checkpoint follows the last record, so that an aborted stretch at the end is never passed."""

    def fetched(self, partition: Partition, epoch: int, records: Sequence[Any], position: int) -> Iterator[Command]:
        return super().fetched(partition, epoch, records, records[-1].offset + 1 if records else 0)


class NeverPauses(Handover):
    def fetched(self, *told: Any) -> Iterator[Command]:
        for command in super().fetched(*told):
            if isinstance(command, Pause):
                self._held[command.partition].is_paused = False
            else:
                yield command


class HandsOutASecondBatch(Handover):
    def fetched(self, partition: Partition, *told: Any) -> Iterator[Command]:
        self._in_flight.pop(partition, None)
        return super().fetched(partition, *told)


class ResetsATruncatedPartition(Handover):
    def checkpoint_read(self, partition: Partition, epoch: int, checkpoint: Checkpoint, log: Log) -> Iterator[Command]:
        place = checkpoint.place._replace(offset=min(checkpoint.next_offset, log.end_offset))
        return super().checkpoint_read(partition, epoch, Checkpoint(place, log.identity), log)


class NeverLooksAtAStoreAtRest(Handover):
    def at_rest(self) -> dict[Partition, tuple[int, int]]:
        return {}


class AppliesWhatIsHandedOutAgain(Handover):
    def fetched(self, partition: Partition, epoch: int, records: Sequence[Any], position: int) -> Iterator[Command]:
        here = self._held[partition].position if partition in self._held else 0
        return super().fetched(partition, epoch, [r._replace(offset=max(r.offset, here)) for r in records], position)


@pytest.mark.parametrize(
    "fault",
    [
        SeeksToWhatKafkaHasAsCommitted,
        TakesWhatAnEarlierAssignmentFetched,
        TakesAFailureForSuccess,
        GoesOnWhereAnotherHasMovedTheCheckpoint,
        DropsABatchWhenTheStoreIsDown,
        PassesOnlyWhatItReads,
        NeverPauses,
        HandsOutASecondBatch,
        AppliesWhatIsHandedOutAgain,
        ResetsATruncatedPartition,
        NeverLooksAtAStoreAtRest,
    ],
)
def test_the_simulator_finds_a_hand_over_that(fault: type[Handover]) -> None:
    with pytest.raises(Wrong):
        run_each(range(SEEDS_FOR_A_FAULT), fault)


@pytest.mark.parametrize(("found", "begun_anew"), [(5, []), (9, []), (3, [OTHER])])
def test_a_store_that_went_back_has_lost_something_of_every_partition(found: int, begun_anew: list[Partition]) -> None:
    """What was decided about one may lie in another whose checkpoint is where it was."""
    handover = Handover("counts")

    def read(commands: Iterator[Command], offset: int) -> list[Partition]:
        """Answers each question about a checkpoint; which questions follow from that."""
        asked = [command for command in commands if isinstance(command, ReadCheckpoint)]
        return [
            following.partition
            for one in asked
            for following in handover.checkpoint_read(
                one.partition, one.epoch, Checkpoint(Place(*one.partition, offset), IDENTITY), Log(IDENTITY, 0, 100)
            )
            if isinstance(following, ReadCheckpoint)
        ]

    assert read(handover.assigned([HOME, OTHER]), 5) == []
    assert read(handover.out_of_range(HOME), found) == begun_anew
    anew = [command.partition for command in handover.went_back() if isinstance(command, ReadCheckpoint)]
    assert anew == [HOME, OTHER]
