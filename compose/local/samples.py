"""Three short films made with ffmpeg, so that a new system has something to play. They go in by the public upload API."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from compose.local.service import program
from compose.local.stack import CannotStart, Stack

FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
SETTLED = ("COMPLETED", "FAILED")
PATIENCE_SECONDS = 300.0  # from the upload until it plays; two cores need about 20
ASK_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Film:
    """What ffmpeg draws and plays, and what the catalogue says about it."""

    name: str
    seconds: int
    picture: str
    sound: str
    fields: dict[str, str]


FILMS = (
    Film(
        "into-the-set",
        14,
        "mandelbrot=size=640x360:rate=25:start_scale=2:end_scale=0.02:end_pts=350:maxiter=600,hue=h=210:s=0.8",
        "aevalsrc='0.12*sin(2*PI*110*t)+0.08*sin(2*PI*165*t)*(0.6+0.4*sin(2*PI*0.3*t))'",
        {
            "title": "Into the Set",
            "content_type": "documentary",
            "description": "A dive towards the edge where z² + c cannot decide.",
            "genre": "Science",
            "release_year": "1980",
        },
    ),
    Film(
        "a-colony-grows",
        12,
        "life=size=320x180:rate=25:mold=12:ratio=0.12:seed=7:life_color=#5eead4:death_color=#1d4ed8:mold_color=#0b1020,"
        "scale=1280:720:flags=neighbor",
        "sine=frequency=330:beep_factor=4",
        {
            "title": "A Colony Grows",
            "content_type": "episode",
            "description": "Two rules, one dish, and a city by the end of the evening.",
            "show_title": "Small Worlds",
            "season_number": "1",
            "episode_number": "1",
            "genre": "Drama",
            "release_year": "1970",
        },
    ),
    Film(
        "slow-light",
        12,
        "gradients=size=640x360:rate=25:n=5:seed=11:speed=0.02:c0=#f97316:c1=#db2777:c2=#7c3aed:c3=#2563eb:c4=#f59e0b:"
        "x0=0:y0=0:x1=640:y1=360",
        "aevalsrc='0.15*sin(2*PI*196*t)*(0.5+0.5*sin(2*PI*0.5*t))'",
        {
            "title": "Slow Light",
            "content_type": "short",
            "description": "An evening sky that takes its time.",
            "genre": "Music",
            "release_year": "2024",
        },
    ),
)


async def load_samples(stack: Stack, console: Console) -> dict[str, str]:
    """Title to video id of every sample, when all of them play. Loads only those that are not there yet.

    Raises CannotStart in the system's words when a film is refused, fails, or does not play in time.
    """
    remembered = stack.folder / "samples.json"
    ids: dict[str, str] = json.loads(remembered.read_text()) if remembered.exists() else {}
    address = stack.endpoints["ET_GATEWAY_URL"]
    async with aiohttp.ClientSession(address, timeout=aiohttp.ClientTimeout(total=60)) as session:
        for film in FILMS:
            title = film.fields["title"]
            if title in ids and (await details(session, ids[title])).get("status") not in (None, "FAILED"):
                continue
            console.print(f" [yellow]…[/] {title:<14} is made with ffmpeg and uploaded")
            ids[title] = await upload(session, film, await render(stack, film))
            remembered.write_text(json.dumps(ids, indent=1))
        await asyncio.gather(
            *(wait_until_it_plays(session, title, video_id, console) for title, video_id in ids.items())
        )
    return ids


async def render(stack: Stack, film: Film) -> Path:
    """The film's file, kept with the other things that were fetched or made once."""
    path = stack.opt / "films" / f"{film.name}.mp4"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.mp4")
    title = (
        f"drawtext=fontfile={FONT}:text='{film.fields['title']}':fontsize=h/13:fontcolor=white:x=h/15:y=h-h/7:"
        "alpha='if(lt(t,3),1,max(0,4-t))'"
    )
    process = await asyncio.create_subprocess_exec(
        program("ffmpeg"), "-v", "error", "-y", "-nostdin", "-f", "lavfi", "-i", film.picture, "-f", "lavfi", "-i", film.sound,
        "-t", str(film.seconds), "-vf", title, "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p",
        "-g", "50", "-c:a", "aac", "-ac", "2", "-ar", "48000", "-movflags", "+faststart", str(unfinished),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, words = await process.communicate()
    if process.returncode:
        raise CannotStart(
            f"ffmpeg could not make the sample film {film.name}: {words.decode(errors='replace').strip()}"
        )
    return unfinished.rename(path)


async def upload(session: aiohttp.ClientSession, film: Film, path: Path) -> str:
    with path.open("rb") as file:
        form = aiohttp.FormData(film.fields)
        form.add_field("file", file, filename=path.name, content_type="video/mp4")
        async with session.post("/api/videos/upload", data=form) as response:
            if response.status != 202:
                raise CannotStart(f"the gateway refused the sample film {film.name}: {await response.text()}")
            return str((await response.json())["video_id"])


async def details(session: aiohttp.ClientSession, video_id: str) -> dict[str, Any]:
    """Nothing while the catalogue does not know it."""
    async with session.get(f"/api/videos/{video_id}") as response:
        found: dict[str, Any] = await response.json() if response.status == 200 else {}
        return found


async def wait_until_it_plays(session: aiohttp.ClientSession, title: str, video_id: str, console: Console) -> None:
    """Raises CannotStart when it fails or takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            video = await details(session, video_id)
            while video.get("status") not in SETTLED:
                await asyncio.sleep(ASK_EVERY_SECONDS)
                video = await details(session, video_id)
            if video["status"] == "FAILED":
                raise CannotStart(f"the sample film {title} could not be transcoded: {video.get('error')}")
            async with session.get(f"/api/videos/{video_id}/hls/master.m3u8") as response:
                playlist = await response.text()
                if response.status != 200 or "#EXT-X-STREAM-INF" not in playlist:
                    raise CannotStart(f"the sample film {title} is done but its playlist answers {response.status}")
    except TimeoutError:
        raise CannotStart(
            f"the sample film {title} does not play after {PATIENCE_SECONDS:.0f} s: "
            "see `make status`, and .stack/log/media.log and worker.log"
        ) from None
    qualities = " ".join(variant["quality"] for variant in video["variants"])
    console.print(f" [green]✓[/] {title:<14} plays     [dim]{qualities}[/]")
