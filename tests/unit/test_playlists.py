import re
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agents.media.playlists import (
    Segment,
    Tile,
    Variant,
    average_bandwidth,
    master_playlist,
    media_playlist,
    peak_bandwidth,
    storyboard,
    target_duration,
)

segments = st.lists(
    st.builds(Segment, st.just("1-a0b1c2-00000.m4s"), st.floats(0.02, 6.0), st.integers(1, 10**7)),
    min_size=1,
    max_size=40,
)


def variant(quality: str, width: int, height: int) -> Variant:
    return Variant(quality, width, height, 1_000_000, 900_000, "avc1.64001f,mp4a.40.2", Fraction(30000, 1001))


LADDER = [variant("720p", 1280, 720), variant("480p", 854, 480), variant("240p", 426, 240)]


@given(segments)
def test_no_segment_rounds_to_more_than_the_target_duration(listed: list[Segment]) -> None:
    # RFC 8216 §4.3.3.1: each EXTINF, rounded to the nearest integer, is at most the target duration.
    playlist = media_playlist("init.mp4", listed)
    target = int(re.findall(r"#EXT-X-TARGETDURATION:(\d+)", playlist)[0])
    assert all(int(float(seconds) + 0.5) <= target for seconds in re.findall(r"#EXTINF:([0-9.]+)", playlist))


@given(segments)
def test_a_playlist_lasts_as_long_as_its_segments(listed: list[Segment]) -> None:
    total = sum(float(seconds) for seconds in re.findall(r"#EXTINF:([0-9.]+)", media_playlist("init.mp4", listed)))
    assert abs(total - sum(segment.duration_seconds for segment in listed)) < 0.001


@given(segments)
def test_no_run_of_about_a_target_duration_is_faster_than_the_peak(listed: list[Segment]) -> None:
    target, peak = target_duration(listed), peak_bandwidth(listed)
    for first in range(len(listed)):
        for after in range(first + 1, len(listed) + 1):
            duration = sum(segment.duration_seconds for segment in listed[first:after])
            if 0.5 * target <= duration <= 1.5 * target:
                assert 8 * sum(segment.size for segment in listed[first:after]) / duration <= peak + 1


@given(segments)
def test_the_peak_is_no_less_than_the_average(listed: list[Segment]) -> None:
    assert peak_bandwidth(listed) >= average_bandwidth(listed)


def test_a_player_begins_with_a_modest_rung() -> None:
    assert re.findall(r"(\d+p)/playlist", master_playlist(LADDER)) == ["480p", "720p", "240p"]


def test_a_portrait_film_begins_by_its_short_side() -> None:
    turned = [one._replace(width=one.height, height=one.width) for one in LADDER]
    assert re.findall(r"(\d+p)/playlist", master_playlist(turned))[0] == "480p"


def test_the_master_names_what_a_player_chooses_by() -> None:
    assert (
        "#EXT-X-STREAM-INF:BANDWIDTH=1000000,AVERAGE-BANDWIDTH=900000,RESOLUTION=1280x720,FRAME-RATE=29.970,"
        'CODECS="avc1.64001f,mp4a.40.2"\n720p/playlist.m3u8\n'
    ) in master_playlist(LADDER)


@given(st.integers(1, 250), st.floats(0.5, 20))
def test_the_storyboard_leaves_no_moment_out(tiles: int, interval: float) -> None:
    duration = tiles * interval - interval / 2
    sheets = [f"sheet-{number}.jpg" for number in range(1, 4)]
    track = storyboard(sheets, tiles, interval, duration, Tile(160, 90, 10, 10))
    times = re.findall(r"([\d:.]+) --> ([\d:.]+)", track)
    assert len(times) == tiles
    assert times[0][0] == "00:00:00.000"
    assert all(end == start for (_, end), (start, _) in pairwise(times))


def test_a_storyboard_goes_on_in_the_next_row_and_the_next_sheet() -> None:
    track = storyboard(["a.jpg", "b.jpg"], 6, 1.0, 6.0, Tile(160, 90, 2, 2))
    assert re.findall(r"\S+#xywh=\S+", track) == [
        "a.jpg#xywh=0,0,160,90",
        "a.jpg#xywh=160,0,160,90",
        "a.jpg#xywh=0,90,160,90",
        "a.jpg#xywh=160,90,160,90",
        "b.jpg#xywh=0,0,160,90",
        "b.jpg#xywh=160,0,160,90",
    ]
