"""One decode, all rungs: the ffmpeg command that makes a film's renditions, and its run."""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from agents.media.ffmpeg import THREADS, reading
from agents.media.ladder import Rung, frames_per_segment
from agents.media.probe import Rejected, Source
from agents.media.sandbox import SOURCE, LimitExceeded, Limits, Sandbox, ToolFailed

SAMPLE_RATE = 48_000
PRIMING_SAMPLES = 1_024  # what the AAC encoder puts before the first sample it is given
QUALITY_FACTOR = 23  # x264's CRF; the peaks of the ladder bound it
# Generous: a slow machine must not fail a film, only a film made to burn CPU.
CPU_SECONDS_AT_LEAST, CPU_SECONDS_PER_SECOND = 300, 120
# Fragments with frames reordered by offsets that may be negative: the first frame is then shown at exactly 0.
MOVFLAGS = "movflags=+frag_custom+dash+delay_moov+negative_cts_offsets+frag_discont"
UNDECODABLE_SHARE = 0.1  # of the frames: a film with more is not worth showing
TOO_MANY_UNDECODABLE = 69  # ffmpeg's exit status for it


class Plan(NamedTuple):
    """What is to be made of a source: the rungs, and the exact number of frames of each."""

    source: Source
    rungs: tuple[Rung, ...]
    frames: int

    @property
    def rate(self) -> Fraction:
        return self.source.rate

    @property
    def duration_seconds(self) -> float:
        return float(self.frames / self.rate)


def plan(source: Source, rungs: Sequence[Rung]) -> Plan:
    """Each rendition lasts as long as the source, to the nearest frame."""
    return Plan(source, tuple(rungs), max(1, round(source.duration_seconds * source.rate)))


def init_name(rung: Rung) -> str:
    """The init segment of a rung as the transcoder writes it."""
    return f"{rung.quality}-init.mp4"


def segment_name(rung: Rung, number: int) -> str:
    """A segment of a rung as the transcoder writes it."""
    return f"{rung.quality}-{number:05}.m4s"


async def transcode(sandbox: Sandbox, job: Path, plan: Plan, preset: str, on_progress: Callable[[float], None]) -> None:
    """Make all renditions in `job`/out. Raises Rejected when the film cannot be decoded; `on_progress` is told the share that is done."""

    def hear(line: str) -> None:
        if line.startswith("frame="):
            on_progress(min(1.0, int(line.removeprefix("frame=")) / plan.frames))

    seconds = CPU_SECONDS_AT_LEAST + CPU_SECONDS_PER_SECOND * plan.duration_seconds
    limits = Limits(cpu_seconds=round(seconds), wall_seconds=4 * seconds)
    try:
        await sandbox.run("ffmpeg", command(plan, preset), job, limits, hear)
    except ToolFailed as error:
        if error.status == TOO_MANY_UNDECODABLE:
            raise Rejected("This film is damaged: more than a tenth of its frames cannot be decoded.") from error
        raise Rejected(f"This film cannot be converted ({_reason(error.errors)}).") from error
    except LimitExceeded as error:
        raise Rejected(f"This film cannot be converted within our limits: {error.limit}.") from error


def _reason(errors: str) -> str:
    lines = [line for line in errors.splitlines() if line.strip()]
    return re.sub(r"\s*@ 0x[0-9a-f]+", "", lines[0])[:200].replace(SOURCE, "the file") if lines else "no reason given"


def command(plan: Plan, preset: str) -> list[str]:
    """The arguments of the one ffmpeg run."""
    arguments = ["-v", "error", "-nostdin", "-y", "-progress", "pipe:1", "-stats_period", "0.5", "-copyts"]
    arguments += ["-max_error_rate", str(UNDECODABLE_SHARE)]
    # Of the streams only those that are shown are decoded: the others are discarded while reading.
    arguments += [
        *reading(demuxer=plan.source.demuxer),
        "-filter_complex",
        filters(plan),
        "-filter_complex_threads",
        str(THREADS),
    ]
    for number, rung in enumerate(plan.rungs):
        arguments += ["-map", f"[v{number}]", *_video(rung, plan.rate, preset)]
        if plan.source.sound:
            arguments += ["-map", f"[a{number}]", *_audio(rung)]
        arguments += ["-map_metadata", "-1", "-map_chapters", "-1", *_hls(rung)]
    return arguments


def filters(plan: Plan) -> str:
    """One decode, split for all rungs: from the source's clock, rate, colours and shape to ours."""
    source, count = plan.source, len(plan.rungs)
    chain = [f"setpts=PTS-({source.start:.6f})/TB"]
    if source.interlaced:
        chain.append("bwdif=mode=send_frame:deint=interlaced")
    chain.append(f"fps={plan.rate}:start_time=0:round=near")
    # What the picture lacks at its end, and two frames for rounding, is filled with its last frame; never the whole film.
    lacking = max(0.0, plan.duration_seconds - source.picture_seconds) + float(2 / plan.rate)
    chain += [f"tpad=stop_mode=clone:stop_duration={lacking:.6f}", f"trim=end_frame={plan.frames}"]
    if source.hdr:
        chain += _tone_mapping(plan.rungs[0], source.transfer)
    elif source.rgb:
        chain += [
            f"scale={plan.rungs[0].width}:{plan.rungs[0].height}:out_color_matrix=bt709:out_range=tv,format=yuv420p",
            "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv",
        ]
    lines = [f"[0:{source.stream}]{','.join(chain)},split={count}{_pads('s', count)}"]
    lines += [
        f"[s{number}]scale={rung.width}:{rung.height}:flags=bicubic:out_range=tv,setsar=1,format=yuv420p[v{number}]"
        for number, rung in enumerate(plan.rungs)
    ]
    if source.sound:
        samples = round(plan.duration_seconds * SAMPLE_RATE)
        sound = [
            f"asetpts=PTS-({source.start:.6f})/TB",
            f"aresample={SAMPLE_RATE}:async=1:first_pts=0",
            "aformat=sample_fmts=fltp:channel_layouts=stereo",
            # Sound as long as the picture: a player stops where either ends.
            f"apad=whole_len={samples}",
            # The encoder puts its priming there, so that the sound begins at exactly 0 and is not late.
            f"atrim=start_sample={PRIMING_SAMPLES}:end_sample={max(samples, 2 * PRIMING_SAMPLES)}",
        ]
        lines.append(f"[0:{source.sound.stream}]{','.join(sound)},asplit={count}{_pads('a', count)}")
    return ";".join(lines)


def _pads(letter: str, count: int) -> str:
    return "".join(f"[{letter}{number}]" for number in range(count))


def _tone_mapping(largest: Rung, transfer: str) -> list[str]:
    """From HDR to BT.709 as Hable's curve does it, at the size of the largest rung: it is the dearest step."""
    return [
        # Said outright, since a file that lacks one of the three tags would be refused.
        f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc",
        f"zscale=w={largest.width}:h={largest.height}:t=linear:npl=100",
        "format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=hable:desat=0",
        "zscale=t=bt709:m=bt709:r=tv,format=yuv420p",
    ]


def _video(rung: Rung, rate: Fraction, preset: str) -> list[str]:
    frames = str(frames_per_segment(rate))
    return [
        *("-c:v", "libx264", "-preset", preset, "-profile:v", "high", "-threads", str(THREADS)),
        *("-crf", str(QUALITY_FACTOR), "-maxrate", str(rung.video_peak), "-bufsize", str(2 * rung.video_peak)),
        # A key frame every so many frames and nowhere else, so that all rungs are cut at the same places.
        *("-g", frames, "-keyint_min", frames, "-sc_threshold", "0", "-flags", "+cgop", "-fps_mode", "passthrough"),
    ]


def _audio(rung: Rung) -> list[str]:
    return ["-c:a", "aac", "-profile:a", "aac_low", "-b:a", str(rung.audio_rate), "-ar", str(SAMPLE_RATE), "-ac", "2"]


def _hls(rung: Rung) -> list[str]:
    return [
        *("-avoid_negative_ts", "disabled", "-f", "hls", "-hls_segment_type", "fmp4", "-hls_segment_options", MOVFLAGS),
        # Shorter than any group of pictures: so each key frame, and nothing else, begins a segment.
        *("-hls_time", "0.1", "-hls_playlist_type", "vod", "-hls_list_size", "0"),
        *("-hls_fmp4_init_filename", init_name(rung), "-hls_segment_filename", f"{rung.quality}-%05d.m4s"),
        f"{rung.quality}.m3u8",
    ]
