"""How ffmpeg and ffprobe are asked to read a stranger's file: the formats, protocols and codecs that are let in, and the caps."""

from agents.media.sandbox import SOURCE

# Demuxers that read one file and nothing else. Playlists (hls, dash, concat, image2) and subtitles are out: a text posing as a film
# could open other files through them. The last five hold sound alone and are read only to say so.
FORMATS = "mov,matroska,mpegts,mpeg,avi,flv,asf,ogg,mxf,dv,ivf,nut,mp3,aac,flac,wav,ac3"
VIDEO_DECODERS = (
    "h264,hevc,libdav1d,libaom-av1,av1,vp8,vp9,libvpx,libvpx-vp9,mpeg4,mpeg2video,mpeg1video,msmpeg4v1,msmpeg4v2,"
    "msmpeg4,wmv1,wmv2,wmv3,vc1,theora,h263,h263p,flv,vp6,vp6f,svq3,prores,dnxhd,cfhd,dvvideo,mjpeg,png,qtrle,"
    "cinepak,ffv1,huffyuv,ffvhuff,utvideo,rawvideo,v210,magicyuv"
)
AUDIO_DECODERS = (
    "aac,mp3float,mp3,mp2float,mp2,mp1float,ac3,eac3,opus,libopus,vorbis,libvorbis,flac,alac,dca,truehd,mlp,wmav1,"
    "wmav2,wmapro,amrnb,amrwb,adpcm_ms,adpcm_ima_qt,adpcm_ima_wav,pcm_alaw,pcm_mulaw,pcm_u8,pcm_s16le,pcm_s16be,"
    "pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_bluray,pcm_dvd"
)
MAX_PIXELS = 8192 * 4352  # 8K with its rows rounded up to whole blocks
MAX_SIDE = 8192
MAX_DURATION_SECONDS = 12 * 3600
MAX_PACKETS = 10_000_000
MAX_STREAMS = 64
THREADS = 2


def reading(path: str = SOURCE, demuxer: str | None = None) -> list[str]:
    """The arguments that open `path`, within the bounds; `demuxer` is the one that was found before, so that nothing is guessed twice."""
    return [
        *("-protocol_whitelist", "file"),
        *("-format_whitelist", FORMATS),
        *("-codec_whitelist", f"{VIDEO_DECODERS},{AUDIO_DECODERS}"),
        *("-max_streams", str(MAX_STREAMS)),
        *("-max_pixels", str(MAX_PIXELS)),
        *("-threads", str(THREADS)),
        *(("-f", demuxer) if demuxer else ()),
        *("-i", path),
    ]
