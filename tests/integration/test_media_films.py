"""What becomes of real files: odd films become plain ones, and what is no film is named in words."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.media.making import make
from agents.media.playlists import media_playlist
from agents.media.probe import Rejected
from agents.media.publishing import Film
from agents.media.sandbox import open_sandbox
from agents.media.transcoding import init_name
from tests.films import H264, PICTURE, TONE, Seen, ffmpeg, film, loudness, luma, see

PRESET = "veryfast"  # the default; faster ones have no frames out of order
Source = Callable[[Path], Path]


async def made_of(source: Path, folder: Path) -> Film:
    job = folder / "job"
    job.mkdir()
    shutil.copy(source, job / "source")
    return await make(await open_sandbox(job), job, "1-a0b1c2", PRESET, lambda share: None)


def playlist_of(made: Film, quality: str) -> Path:
    rendition = next(one for one in made.renditions if one.rung.quality == quality)
    path = made.folder / f"{quality}-own.m3u8"
    path.write_text(media_playlist(init_name(rendition.rung), rendition.segments))
    return path


def seen_in(made: Film) -> Seen:
    return see(playlist_of(made, made.renditions[0].rung.quality))


def odd_sides(path: Path) -> Path:
    return film(
        path / "a.mp4",
        size="321x241",
        extra=("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p", "-c:a", "aac"),
    )


def film_rate(path: Path) -> Path:
    return film(path / "a.mkv", rate="24000/1001")


def changing_rate(path: Path) -> Path:
    return film(path / "a.mp4", rate="30", extra=("-vf", "select='not(mod(n,3))+lt(n,50)'", "-fps_mode", "vfr", *H264))


def fast_rate(path: Path) -> Path:
    return film(path / "a.mp4", seconds=2, rate="120")


def slideshow(path: Path) -> Path:
    return film(path / "a.mp4", rate="1")


def one_key_frame(path: Path) -> Path:
    return film(path / "a.mp4", seconds=9, extra=(*H264, "-g", "1000"))


def edit_list(path: Path) -> Path:
    ffmpeg(
        "-ss",
        "2.32",
        "-i",
        film(path / "whole.mp4", seconds=5, extra=(*H264, "-g", "1000")),
        "-c",
        "copy",
        path / "a.mp4",
    )
    return path / "a.mp4"


def late_clock(path: Path) -> Path:
    return film(path / "a.ts", extra=(*H264, "-output_ts_offset", "1000"))


def on_its_side(path: Path) -> Path:
    upright = film(path / "upright.mp4", size="320x240")
    ffmpeg("-i", upright, "-c", "copy", "-metadata:s:v", "rotate=90", path / "a.mp4")
    return path / "a.mp4"


def wide_pixels(path: Path) -> Path:
    return film(path / "a.mp4", size="352x288", extra=("-vf", "setsar=16/11", *H264))


def cover_picture(path: Path) -> Path:
    ffmpeg(*PICTURE, "color=red:size=640x640", "-frames:v", "1", path / "cover.png")
    inputs = ("-i", film(path / "plain.mp4"), "-i", path / "cover.png")
    ffmpeg(*inputs, "-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic", path / "a.mp4")
    return path / "a.mp4"


def six_channels(path: Path) -> Path:
    sound = ("-f", "lavfi", "-i", "aevalsrc=sin(2764*t)|0|0|0|0|0:c=5.1(side):s=44100")
    codecs = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-c:a", "ac3")
    ffmpeg(*PICTURE, "testsrc2=size=320x240:rate=25", *sound, "-t", "3", *codecs, path / "a.mkv")
    return path / "a.mkv"


def red_green_blue(path: Path) -> Path:
    return film(path / "a.mov", sound=False, extra=("-c:v", "qtrle", "-pix_fmt", "rgb24"))


def no_sound(path: Path) -> Path:
    return film(path / "a.mp4", sound=False)


def sound_that_ends_early(path: Path) -> Path:
    tone = ("-f", "lavfi", "-i", "sine=frequency=440:duration=1")
    ffmpeg(*PICTURE, "testsrc2=size=320x240:rate=25", *tone, "-t", "3", *H264, path / "a.mp4")
    return path / "a.mp4"


def sound_that_goes_on(path: Path) -> Path:
    ffmpeg(*PICTURE, "testsrc2=size=320x240:rate=25:duration=1", *TONE, "-t", "3", *H264, path / "a.mp4")
    return path / "a.mp4"


def sound_that_goes_on_in_a_file_that_tells_one_length(path: Path) -> Path:
    ffmpeg("-i", sound_that_goes_on(path), "-c", "copy", path / "a.mkv")
    return path / "a.mkv"


def web_film(path: Path) -> Path:
    codecs = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus")
    return film(path / "a.webm", size="160x120", rate="10", extra=codecs)


@pytest.mark.parametrize(
    ("source", "width", "height", "seconds", "has_sound"),
    [
        (odd_sides, 320, 240, 3, True),
        (film_rate, 320, 240, 3, True),
        (changing_rate, 320, 240, 2.93, True),
        (fast_rate, 320, 240, 2, True),
        (slideshow, 320, 240, 3, True),
        (one_key_frame, 320, 240, 9, True),
        (edit_list, 320, 240, 2.68, True),
        (late_clock, 320, 240, 3, True),
        (on_its_side, 240, 320, 3, True),
        (wide_pixels, 426, 240, 3, True),
        (cover_picture, 320, 240, 3, True),
        (six_channels, 320, 240, 3, True),
        (red_green_blue, 320, 240, 3, False),
        (no_sound, 320, 240, 3, False),
        (sound_that_ends_early, 320, 240, 3, True),
        (sound_that_goes_on, 320, 240, 3, True),
        (sound_that_goes_on_in_a_file_that_tells_one_length, 320, 240, 3, True),
        (web_film, 160, 120, 3, True),
    ],
)
async def test_an_odd_film_becomes_a_plain_one(
    source: Source, width: int, height: int, seconds: float, has_sound: bool, tmp_path: Path
) -> None:
    made = await made_of(source(tmp_path), tmp_path)
    seen = seen_in(made)
    assert (seen.video["width"], seen.video["height"], seen.video["sample_aspect_ratio"]) == (width, height, "1:1")
    assert (seen.video["codec_name"], seen.video["pix_fmt"]) == ("h264", "yuv420p")
    assert seen.frames / made.plan.rate == pytest.approx(seconds, abs=0.1)
    assert sum(segment.duration_seconds for segment in made.renditions[0].segments) == pytest.approx(seconds, abs=0.1)
    assert (seen.audio is not None) == has_sound
    if seen.audio:
        assert (seen.audio["codec_name"], seen.audio["sample_rate"], seen.audio["channels"]) == ("aac", "48000", 2)
        assert seen.audio_seconds == pytest.approx(seconds, abs=0.1)


async def test_all_rungs_are_cut_at_the_same_key_frames(tmp_path: Path) -> None:
    made = await made_of(film(tmp_path / "a.mp4", seconds=5, size="1280x720"), tmp_path)
    assert [rendition.rung.quality for rendition in made.renditions] == ["720p", "480p", "360p", "240p"]
    assert {rendition.cuts for rendition in made.renditions} == {(0.0, 4.0)}


async def test_picture_and_sound_stay_together(tmp_path: Path) -> None:
    """A flash and a beep at 2 s, in a file whose clock begins at 7 s and whose sound begins later than its picture."""
    flash = "color=black:size=320x240:rate=25:duration=4,drawbox=color=white:t=fill:enable='between(t,2,2.18)'"
    beep = "aevalsrc='if(between(t,1.5,1.7),sin(6283*t),0)':d=3:s=48000"
    inputs = (*PICTURE, flash, "-itsoffset", "0.5", "-f", "lavfi", "-i", beep)
    ffmpeg(*inputs, *H264, "-output_ts_offset", "7", tmp_path / "a.ts")
    playlist = playlist_of(await made_of(tmp_path / "a.ts", tmp_path), "240p")
    first_bright = next(number for number, mean in enumerate(luma(playlist)) if mean > 128) / 25
    first_loud = next(number for number, level in enumerate(loudness(playlist, 0.01)) if level > -30) * 0.01
    assert first_loud == pytest.approx(first_bright, abs=0.045)


@pytest.mark.parametrize("tags", [":colorprim=bt2020:colormatrix=bt2020nc", ""], ids=["all tags", "one tag"])
async def test_a_film_made_for_brighter_screens_is_neither_dull_nor_tagged_as_such(tags: str, tmp_path: Path) -> None:
    x265 = f"log-level=error:transfer=smpte2084{tags}"
    # Diffuse white in PQ is at 58 % of the signal: shown as it is, it is grey.
    white = "color=white:size=320x240:rate=25,format=yuv420p10le,lutyuv=y=572:u=512:v=512"
    ffmpeg(*PICTURE, white, "-t", "1", "-c:v", "libx265", "-x265-params", x265, tmp_path / "a.mkv")
    made = await made_of(tmp_path / "a.mkv", tmp_path)
    assert seen_in(made).video["color_transfer"] == "bt709"
    assert luma(playlist_of(made, "240p"))[0] > 150


async def test_the_thumbnail_is_not_the_black_that_a_film_begins_with(tmp_path: Path) -> None:
    dark = "testsrc2=size=320x240:rate=25,drawbox=color=black:t=fill:enable='lt(t,2)'"
    ffmpeg(*PICTURE, dark, "-t", "5", *H264, tmp_path / "a.mp4")
    made = await made_of(tmp_path / "a.mp4", tmp_path)
    assert luma(made.folder / "thumbnail.jpg")[0] > 40


async def test_the_storyboard_shows_each_second_of_a_short_film(tmp_path: Path) -> None:
    bright = "color=black:size=320x240:rate=25,drawbox=color=white:t=fill:enable='gte(t,2)'"
    ffmpeg(*PICTURE, bright, "-t", "4", *H264, tmp_path / "a.mp4")
    pictures = (await made_of(tmp_path / "a.mp4", tmp_path)).pictures
    tile = pictures.tile
    sheet = tmp_path / "job" / "out" / pictures.sheets[0]
    means = [luma(sheet, f"crop={tile.width}:{tile.height}:{number * tile.width}:0")[0] for number in range(4)]
    assert [mean > 128 for mean in means] == [False, False, True, True]


def text(path: Path) -> Path:
    (path / "a.mp4").write_text("Casablanca is a 1942 film.\n" * 50)
    return path / "a.mp4"


def nothing(path: Path) -> Path:
    (path / "a.mp4").touch()
    return path / "a.mp4"


def picture(path: Path) -> Path:
    ffmpeg(*PICTURE, "testsrc2=size=320x240", "-frames:v", "1", path / "a.png")
    return path / "a.png"


def sound_alone(path: Path) -> Path:
    ffmpeg(*TONE, "-t", "2", path / "a.m4a")
    return path / "a.m4a"


def song_with_cover(path: Path) -> Path:
    inputs = (*TONE, "-i", picture(path), "-t", "2", "-map", "0", "-map", "1")
    ffmpeg(*inputs, "-c:a", "libmp3lame", "-c:v", "copy", "-disposition:v", "attached_pic", path / "a.mp3")
    return path / "a.mp3"


def without_index(path: Path) -> Path:
    whole = film(path / "whole.mp4").read_bytes()
    (path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    return path / "a.mp4"


def cut_off(path: Path) -> Path:
    whole = film(path / "whole.mp4", seconds=6, extra=(*H264, "-movflags", "+faststart")).read_bytes()
    (path / "a.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    return path / "a.mp4"


def too_small(path: Path) -> Path:
    return film(path / "a.mkv", size="8x8", sound=False, extra=("-c:v", "ffv1"))


def huge_header(path: Path) -> Path:
    """An IVF file of a few bytes that announces a VP8 frame of 16,383 pixels on each side."""
    side = (16_383).to_bytes(2, "little")
    frame = b"\x10\x02\x00\x9d\x01\x2a" + side + side + bytes(64)
    header = b"DKIF\x00\x00\x20\x00VP80" + side + side + bytes([25, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]) + bytes(4)
    (path / "a.ivf").write_bytes(header + len(frame).to_bytes(4, "little") + bytes(8) + frame)
    return path / "a.ivf"


def noise(path: Path) -> Path:
    whole = bytearray(film(path / "whole.mp4", seconds=9, extra=(*H264, "-g", "1000")).read_bytes())
    for at in range(whole.index(b"mdat") + 5_000, len(whole) - 20_000, 13):
        whole[at] = at * 7919 % 256
    (path / "a.mp4").write_bytes(whole)
    return path / "a.mp4"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (text, "not a video we can read: it looks like text"),
        (nothing, "This file is empty"),
        (picture, "not a video we can read: it looks like a PNG picture"),
        (sound_alone, "has sound but no picture"),
        (song_with_cover, "has sound but no picture"),
        (without_index, "cut off: its index is missing"),
        (cut_off, "lasts 0:06, but only 0:0"),
        (too_small, "too small: 8 × 8 pixels"),
        (huge_header, "too large: 16383 × 16383 pixels"),
        (noise, "damaged"),
    ],
)
async def test_what_is_no_film_is_refused_in_words(source: Source, words: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refusal:
        await made_of(source(tmp_path), tmp_path)
    assert words in refusal.value.reason


@pytest.mark.parametrize(
    "posing",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nOTHER\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile 'OTHER'\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT3S">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1"><BaseURL>OTHER</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://127.0.0.1:9/OTHER\n#EXT-X-ENDLIST\n",
    ],
    ids=["hls", "concat", "dash", "address"],
)
async def test_a_text_that_names_a_film_does_not_become_that_film(posing: str, tmp_path: Path) -> None:
    other = film(tmp_path / "other.mp4")
    (tmp_path / "posing.mp4").write_text(posing.replace("OTHER", str(other)))
    with pytest.raises(Rejected, match="not a video we can read"):
        await made_of(tmp_path / "posing.mp4", tmp_path)
