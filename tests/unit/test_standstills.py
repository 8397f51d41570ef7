"""Why partitions stand still: said once, ended by what ends it, and by nothing else."""

import structlog

from agents.handover import Partition
from agents.standstills import Standstills

ONE, TWO = Partition("views", 1), Partition("views", 2)


def test_a_store_that_is_away_is_said_once_and_is_back_when_the_last_partition_is() -> None:
    standstills = Standstills("views")
    with structlog.testing.capture_logs() as said:
        for partition in (ONE, TWO, ONE):
            standstills.unavailable(partition, "redis is unavailable")
        assert standstills.reason(ONE) == standstills.reason(TWO) == "redis is unavailable"
        standstills.applied(ONE)
        assert (standstills.reason(ONE), standstills.reason(TWO)) == (None, "redis is unavailable")
        standstills.applied(TWO)
    assert [line["event"] for line in said] == ["a store is unavailable", "the store is back"]


def test_a_refusal_is_said_once_and_ends_when_the_partition_is_read_again() -> None:
    standstills = Standstills("views")
    with structlog.testing.capture_logs() as said:
        standstills.refused(ONE, "the log was truncated")
        standstills.refused(ONE, "the log was truncated")
        standstills.resumed(ONE)
        standstills.resumed(ONE)
    assert standstills.refusals == {}
    assert [line["event"] for line in said] == ["a partition stands still", "a partition goes on"]


def test_what_is_halted_stands_until_a_batch_is_applied() -> None:
    standstills = Standstills("views")
    standstills.halted(ONE)
    standstills.refused(ONE, "too much is parked")
    standstills.resumed(ONE)
    assert standstills.refusals == {ONE: "too much is parked"}
    standstills.applied(ONE)
    assert standstills.refusals == {}


def test_who_is_no_longer_blocked_goes_on_and_others_stay() -> None:
    standstills = Standstills("views")
    standstills.blocked({ONE: "a transaction", TWO: "another"})
    standstills.blocked({TWO: "another"})
    assert standstills.refusals == {TWO: "another"}


def test_what_another_reads_now_has_no_reason_here() -> None:
    standstills = Standstills("views")
    standstills.waits(ONE, "for views/2")
    standstills.unread(ONE, "postgres is unavailable", attempt=1, by_kafka=False)
    standstills.refused(ONE, "the log was truncated")
    standstills.forget(ONE)
    assert standstills.reason(ONE) is None
    assert standstills.refusals == {}


def test_kafka_is_blamed_until_the_checkpoint_is_read_or_a_store_is_to_blame() -> None:
    standstills = Standstills("views")
    standstills.unread(ONE, "KafkaTimeoutError", attempt=1, by_kafka=True)
    assert [standstills.blames_kafka(partition) for partition in (ONE, TWO)] == [True, False]
    assert standstills.reason(ONE) == "KafkaTimeoutError"
    standstills.unread(ONE, "postgres is unavailable", attempt=2, by_kafka=False)
    assert not standstills.blames_kafka(ONE)
    for ended_by in (standstills.read, standstills.forget):
        standstills.unread(ONE, "KafkaTimeoutError", attempt=3, by_kafka=True)
        ended_by(ONE)
        assert not standstills.blames_kafka(ONE)
