"""The board's fold and its windows, without a server."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.changes import Increment, Upsert, singly
from projections.leaderboard import WINDOWS, hide_video, leaderboard
from projections.sinks.redis_keys import Keys, shard_of
from projections.sinks.redis_packing import compressed, unpacked
from projections.sinks.redis_windows import NAMES, ROLLING, SPANS
from schemas.events import VideoDeleted, VideoViewed
from schemas.log import EPOCH
from tests.given import recorded

moments = st.datetimes(datetime(1970, 1, 2), datetime(2099, 12, 31)).map(lambda moment: moment.replace(tzinfo=UTC))


def test_views_count_in_the_minute_in_which_they_occurred() -> None:
    times = [datetime(1970, 1, 1, 1, 1, second, tzinfo=UTC) for second in (0, 59)] + [
        datetime(1970, 1, 1, 1, 2, tzinfo=UTC)
    ]
    views = recorded(VideoViewed(view_id=f"v{i}", video_id="heat", occurred_at=at) for i, at in enumerate(times))
    assert list(singly(leaderboard.fold(views))) == [
        Increment("views", key={"video_id": "heat", "minute": 61}, by=2),
        Increment("views", key={"video_id": "heat", "minute": 62}, by=1),
    ]


def test_a_deleted_film_is_hidden_for_ever() -> None:
    deleted = VideoDeleted(video_id="heat", occurred_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert list(hide_video(deleted)) == [Upsert("deleted", key={"video_id": "heat"}, values={})]


@given(moments)
def test_a_window_begins_on_a_whole_bucket_and_ends_with_the_open_one(moment: datetime) -> None:
    for window in ROLLING:
        start = window.start(window.edge_at((moment - EPOCH) // timedelta(milliseconds=1)))
        bucket = timedelta(minutes=window.minutes)
        assert (start - EPOCH) % bucket == timedelta()
        assert start == EPOCH or bucket * (window.buckets - 1) <= moment - start < bucket * window.buckets


def test_a_bucket_leaves_the_shorter_window_before_it_leaves_the_longer() -> None:
    assert [[window.name for window in span.windows] for span in SPANS] == [
        ["hour"],
        ["day", "week"],
        ["month", "year"],
    ]
    assert set(NAMES) == {window.name for window in WINDOWS}


@given(st.text(min_size=1), st.integers(1, 64))
def test_an_id_lies_in_one_shard_in_every_process(identity: str, shards: int) -> None:
    assert shard_of(identity, shards) == shard_of(identity, shards) < shards
    assert shard_of("heat", 64) == 56


@pytest.mark.parametrize("shard", [0, 7])
def test_all_keys_of_a_shard_share_one_hash_tag(shard: int) -> None:
    keys = Keys("t1_", "leaderboard", 4, shard)
    names = [keys.checkpoints, keys.state, keys.journal("views/3"), keys.top("day"), keys.packed("hour", 7)]
    assert {name[: len(keys.root)] for name in names} == {f"t1_{{leaderboard.v4.s{shard}}}:"}


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 2**53), min_size=1), st.randoms(use_true_random=False))
def test_a_packed_bucket_is_what_it_was(films: dict[str, int], random: Random) -> None:
    numbered = [*films, *(f"{name}, not viewed" for name in films)]
    random.shuffle(numbered)
    numbers = {video_id: number for number, video_id in enumerate(numbered)}
    assert unpacked(compressed(sorted(films.items()), numbers), numbered) == films
