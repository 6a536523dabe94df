"""Names of videos: files, streams and cameras, known without opening them."""

from __future__ import annotations

import os
import re

from boxwright_runtime.printable_names import printable

VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts", ".vob"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf", ".dv", ".nut", ".y4m", ".ivf"),
    *(".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".m3u8"),
}
"""Suffixes of video files, in lower case."""

STREAM_SCHEMES = {"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "http", "https"}
"""Schemes of addresses that give a video."""

_IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2"),
    *(".zip", ".tar", ".txt", ".jsonl", ".parquet"),
}
"""Suffixes of addresses of the web that give images, archives and lists of them."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#]*@)?")

_CAMERA = re.compile(r"/dev/video\d+")


def is_video(source: str | os.PathLike[str]) -> bool:
    """Tell whether a name is that of a video file, of a stream (rtsp://...) or of a camera (/dev/video0)."""
    text = os.fspath(source)
    if is_stream_address(text):
        path = re.split("[?#]", text, maxsplit=1)[0]
        return not text.lower().startswith("http") or os.path.splitext(path)[1].lower() not in _IMAGE_SUFFIXES
    if is_camera(text):
        return True
    return os.path.splitext(text)[1].lower() in VIDEO_SUFFIXES and not os.path.isdir(text)


def is_stream_address(source: str) -> bool:
    """Tell whether a name is the address of a stream."""
    match = _ADDRESS.match(source)
    return match is not None and match[1].lower() in STREAM_SCHEMES


def is_camera(source: str) -> bool:
    """Tell whether a name is that of a camera."""
    return _CAMERA.fullmatch(source) is not None


def show_source(source: str | os.PathLike[str]) -> str:
    """Write the name of a video for messages: without the user and the password of an address."""
    text = os.fspath(source)
    return printable(_ADDRESS.sub(lambda match: f"{match[1]}://", text, count=1) if is_stream_address(text) else text)


def video_stem(source: str | os.PathLike[str]) -> str:
    """Return a name for files that come of a video: that of its file, or the letters and digits of its address."""
    text = os.fspath(source)
    if not is_stream_address(text) and not is_camera(text):
        return os.path.splitext(os.path.basename(text))[0]
    without_scheme = re.sub(r"^[A-Za-z0-9+.-]+://|^/dev/", "", _ADDRESS.sub(lambda match: f"{match[1]}://", text))
    return re.sub(r"[^A-Za-z0-9.-]+", "_", without_scheme.partition("?")[0]).strip("_.") or "stream"
