"""The watchdog: only who is behind and does not move is stuck, and only who has no reason for it is started again."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.handover import Partition, Progress
from agents.standing import Judged, Standing
from agents.watchdog import RESTARTS, Stuck, Watchdog, silent

BEGAN = datetime(2026, 5, 1, 20, 0, tzinfo=UTC)
PATIENCE_SECONDS = 60.0
END = 1_000


class Story:
    """One partition that a watchdog looks at as time passes."""

    def __init__(self) -> None:
        self.watchdog = Watchdog(PATIENCE_SECONDS)
        self.now = BEGAN

    def after(
        self,
        seconds: float,
        next_offset: int | None,
        *,
        end: int = END,
        refusal: str | None = None,
        reason: str | None = None,
        blames_kafka: bool = False,
    ) -> Judged:
        self.now += timedelta(seconds=seconds)
        progress = Progress(next_offset, None, "its batch of 7 records to be folded")
        standing = Standing("views", 2, Partition("views", 3), progress, refusal, reason, blames_kafka)
        return self.watchdog.judge(standing, end, BEGAN, self.now)


@pytest.fixture
def story() -> Story:
    return Story()


def test_behind_but_moving_is_never_stuck(story: Story) -> None:
    assert [story.after(59, offset).state for offset in range(0, 100, 10)] == ["behind"] * 10


def test_standing_still_at_the_end_is_healthy(story: Story) -> None:
    assert [story.after(600, END).state for _ in range(3)] == ["healthy"] * 3


def test_time_at_the_end_does_not_count_once_events_come(story: Story) -> None:
    story.after(0, END)
    story.after(3_600, END)
    assert story.after(1, END, end=END + 1).why is None


def test_behind_and_still_for_too_long_is_told_in_one_sentence(story: Story) -> None:
    assert story.after(0, 41).why is None
    assert story.after(59, 41).why is None
    stuck = story.after(6, 41)
    assert stuck.state == "stuck"
    assert stuck.why == (
        "views_v2 has not moved from views/3 at 41 since 2026-05-01 20:00:00 UTC (65 s), 959 events behind: "
        "it waits for its batch of 7 records to be folded"
    )


def test_who_cannot_read_its_checkpoint_is_stuck_too(story: Story) -> None:
    story.after(0, None)
    assert "its checkpoint is not known" in (story.after(61, None).why or "")


def test_a_refusal_is_told_at_once_and_starts_nothing_again(story: Story) -> None:
    refused = story.after(0, END, refusal="the topic was created anew; rebuild it")
    assert (refused.state, refused.why) == ("stuck", "the topic was created anew; rebuild it")
    assert silent([refused]) == []


def test_a_store_that_is_away_is_a_reason(story: Story) -> None:
    story.after(0, 41, reason="postgres is unavailable")
    stuck = story.after(61, 41, reason="postgres is unavailable")
    assert (stuck.why or "").endswith("it waits for postgres is unavailable")
    assert silent([stuck]) == []


def test_that_kafka_is_away_is_no_reason_while_it_answers_who_asks(story: Story) -> None:
    reason = "KafkaTimeoutError: Failed to get offsets by times in 40000 ms"
    story.after(0, None, reason=reason, blames_kafka=True)
    stuck = story.after(61, None, reason=reason, blames_kafka=True)
    assert reason in (stuck.why or "")
    assert silent([stuck]) == [stuck]


def test_who_has_no_reason_is_started_again_and_has_its_time_anew(story: Story) -> None:
    story.after(0, 41)
    assert silent([story.after(61, 41)])
    story.watchdog.restarted("views_v2")
    assert story.after(1, 41).why is None
    assert story.after(61, 41).why


def test_what_no_new_beginning_helps_ends_the_worker(story: Story) -> None:
    for _ in range(RESTARTS):
        story.watchdog.restarted("views_v2")
    with pytest.raises(Stuck, match="views_v2"):
        story.watchdog.restarted("views_v2")


def test_a_move_forgives_the_new_beginnings_before_it(story: Story) -> None:
    for _ in range(RESTARTS):
        story.watchdog.restarted("views_v2")
    story.after(0, 41)
    story.after(1, 42)
    story.watchdog.restarted("views_v2")


def test_a_partition_given_back_and_taken_again_begins_anew(story: Story) -> None:
    story.after(0, 41)
    story.watchdog.keep([])
    assert story.after(120, 41).why is None
