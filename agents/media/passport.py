"""What was found in a film and what was made of it, as plain data: stored beside the film, and in its event."""

from collections.abc import Sequence
from typing import Any

from agents.media.checking import Rendition
from agents.media.pictures import Pictures
from agents.media.playlists import average_bandwidth, peak_bandwidth
from agents.media.transcoding import Plan


def passport(plan: Plan, renditions: Sequence[Rendition], pictures: Pictures) -> dict[str, Any]:
    """Times in seconds, rates as fractions, bandwidths in bits per second."""
    source, sound = plan.source, plan.source.sound
    return {
        "found": {
            "container": source.demuxer,
            "video_codec": source.codec,
            "pixel_format": source.pixel_format,
            "transfer": source.transfer,
            "width": source.width,
            "height": source.height,
            "rotation": source.rotation,
            "interlaced": source.interlaced,
            "constant_frame_rate": source.constant_rate,
            "frames": source.packets,
            "start_seconds": round(source.start, 6),
            "duration_seconds": round(source.duration_seconds, 6),
            "audio": sound and {"codec": sound.codec, "channels": sound.channels, "sample_rate": sound.sample_rate},
        },
        "made": {
            "frame_rate": str(plan.rate),
            "frames": plan.frames,
            "duration_seconds": round(plan.duration_seconds, 6),
            "thumbnail_seconds": round(pictures.thumbnail_seconds, 3),
            "renditions": [
                {
                    "quality": rendition.rung.quality,
                    "width": rendition.rung.width,
                    "height": rendition.rung.height,
                    "codecs": rendition.codecs,
                    "segments": len(rendition.segments),
                    "size": sum(segment.size for segment in rendition.segments),
                    "peak_bandwidth": peak_bandwidth(rendition.segments),
                    "average_bandwidth": average_bandwidth(rendition.segments),
                }
                for rendition in renditions
            ],
        },
        "done": _done(plan),
        "notes": list(source.notes),
    }


def _done(plan: Plan) -> list[str]:
    source, sound = plan.source, plan.source.sound
    steps = {
        "tone-mapped from HDR to BT.709": source.hdr,
        "converted from RGB": source.rgb,
        "deinterlaced": source.interlaced,
        f"turned by {source.rotation} degrees": bool(source.rotation),
        "given a constant frame rate": not source.constant_rate,
        f"mixed down from {sound and sound.channels} channels": sound is not None and sound.channels > 2,
    }
    return [step for step, was_done in steps.items() if was_done]
