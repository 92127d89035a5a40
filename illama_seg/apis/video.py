"""Read a video, change each frame, write the result."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from illama_seg.apis.images import UnwritableError
from illama_seg.errors import UserError

VIDEO_SUFFIXES = (
    '.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv'
)  # fmt: skip
# Suffix of a written file -> codecs, the first that this OpenCV has. Its usual packages
# have no encoder for H.264 (avc1).
CODECS = {'.mp4': ('mp4v', 'avc1'), '.avi': ('MJPG',)}
_USUAL_RATE = 25.0
_FEW = 2  # frames; headers that only estimate their number miss it by so many


def is_video(path: str | Path) -> bool:
    """Tell a video from an image by its suffix."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


@dataclass
class VideoFacts:
    """Properties of a written video.

    Attributes:
        frames: number of frames.
        size: (height, width) in pixels.
        rate: frames a second.
        codec: four letters.
    """

    frames: int
    size: tuple[int, int]
    rate: float
    codec: str

    def __str__(self) -> str:
        """Return the properties for the user."""
        return (
            f'{self.frames} frames of {self.size[1]}x{self.size[0]}, {self.rate:.4g} a '
            f'second ({self.codec}), without sound'
        )


def rewrite_video(
    source: Path, target: Path, change: Callable[[np.ndarray], np.ndarray]
) -> VideoFacts:
    """Write a video with changed frames, one of which is in memory at a time.

    Keeps the frame rate and the size; codecs need even sides, so an odd side loses its
    last pixel. Leaves out the sound. A file appears at ``target`` only when it is
    complete.

    Args:
        source: video that OpenCV reads.
        target: file to write, ``.mp4`` or ``.avi``.
        change: function of a frame, (H, W, 3) uint8, BGR; returns one of this size.

    Returns:
        Properties of the file.

    Raises:
        UserError: the video cannot be read, ends early (what was read is kept beside
            the target), changes its size, or cannot be written; or ``change`` raises
            one.
    """
    if target.exists() and target.samefile(source):
        raise UserError(f'{target} is the video itself: name another file or folder')
    reader = open_video(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            part = Path(folder, target.name)
            facts, expected = _copy(reader, source, part, change)
            if facts.frames < expected - max(_FEW, expected // 50):
                name = f'{target.stem}_first_{facts.frames}_frames{target.suffix}'
                kept = target.with_name(name)
                os.replace(part, kept)
                raise UserError(
                    f'{source} ends after {facts.frames} of {expected} frames: it is '
                    'damaged, or its header counts too many. What could be read is in '
                    f'{kept}'
                )
            os.replace(part, target)
    except OSError as error:
        raise UnwritableError(
            f'{target} cannot be written ({error.strerror}): name another folder'
        ) from error
    finally:
        reader.release()
    return facts


def open_video(path: Path) -> Any:
    """Open a video, or raise UserError."""
    reader = cv2.VideoCapture(str(path))
    if not reader.isOpened():
        raise UserError(
            f'{path} ({path.stat().st_size:,} bytes) cannot be read: it is damaged, no '
            'video, or of a codec that this OpenCV lacks. Convert it with another '
            f'program, such as ffmpeg -i {path.name} new.mp4'
        )
    return reader


def video_frames(reader: Any, source: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video, or raise UserError where their size changes."""
    first = None
    while True:
        found, frame = reader.read()
        if not found:
            return
        size = frame.shape[:2]
        first = first or size
        if size != first:  # the writer would drop it without a word
            raise UserError(
                f'{source}: a frame of {size[1]}x{size[0]} follows frames of '
                f'{first[1]}x{first[0]}: expected one size, so cut the video there'
            )
        yield frame


def _copy(
    reader: Any, source: Path, part: Path, change: Callable[[np.ndarray], np.ndarray]
) -> tuple[VideoFacts, int]:
    """Write the changed frames; return the facts and the number that was expected."""
    rate, declared = reader.get(cv2.CAP_PROP_FPS), reader.get(cv2.CAP_PROP_FRAME_COUNT)
    # Live recordings declare the ticks of their clock.
    rate = rate if 0 < rate <= 1000 else _USUAL_RATE
    expected = int(declared) if math.isfinite(declared) and declared > 0 else 0
    frames, writer, facts = video_frames(reader, source), None, None
    bar = tqdm(frames, source.name, total=expected or None, unit='frame', leave=False)
    try:
        for frame in bar:
            height, width = (side // 2 * 2 for side in frame.shape[:2])
            if writer is None or facts is None:
                writer, codec = _writer(part, rate, (width, height))
                facts = VideoFacts(0, (height, width), rate, codec)
            writer.write(np.ascontiguousarray(change(frame)[:height, :width]))
            facts.frames += 1
    finally:
        bar.close()
        if writer is not None:
            writer.release()
    if facts is None:
        raise UserError(f'{source} has no frame that can be decoded: is it damaged?')
    written = cv2.VideoCapture(str(part))
    count = written.get(cv2.CAP_PROP_FRAME_COUNT)
    written.release()
    if count != facts.frames:  # OpenCV does not tell of a full disk
        raise UnwritableError(
            f'{part.name}: only {max(count, 0):.0f} of {facts.frames} frames were '
            f'written into {part.parent.parent}: is the disk full?'
        )
    return facts, expected


def _writer(path: Path, rate: float, size: tuple[int, int]) -> tuple[Any, str]:
    """Open a file of frames of (width, height) with the first codec that is there."""
    codecs = CODECS[path.suffix.lower()]
    for codec in codecs:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
        if writer.isOpened():
            return writer, codec
    raise UserError(
        f'this OpenCV ({cv2.__version__}) has no encoder of {" or ".join(codecs)} for '
        f'{path.name} ({size[0]}x{size[1]}, {rate:.4g} frames a second): use the '
        'package opencv-python or opencv-python-headless, or name a file ending in '
        f'{" or ".join(s for s in CODECS if s != path.suffix.lower())}'
    )
