# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Reading video files and folders of frames one frame at a time, and writing mp4 files."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from uuid import uuid4

import av
import numpy as np
from PIL import Image, ImageOps

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".gif")
FRAME_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
DEFAULT_FPS = 25.0  # of a file that tells no frame rate, such as a gif of one frame


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are decoded.

    Attributes:
        height, width: size in pixels as shown, after the rotation that the file asks for.
        num_frames: number of frames shown.
        fps: average frames per second; `None` for a folder of frames.
        duration: seconds; `None` for a folder of frames.
    """

    height: int
    width: int
    num_frames: int
    fps: float | None = None
    duration: float | None = None


def probe_video(path: str | Path) -> VideoInfo:
    """Size, frame rate and number of frames of a video file or a folder of frames.

    One frame is decoded for the size; the packets are counted, not decoded, since mkv and webm do
    not tell the number of frames and mp4 tells one that includes frames hidden by an edit list.
    (VP8 may have hidden frames that only decoding tells from shown ones: there the number is an
    upper bound.)

    Raises:
        FileNotFoundError: nothing at `path`, or a folder without frames.
        ValueError: the extension is unknown, or the file is no video that can be decoded.
    """
    path = _existing_path(path)
    if path.is_dir():
        files = frame_files(path)
        height, width = _read_frame(files[0]).shape[:2]
        return VideoInfo(height, width, num_frames=len(files))
    first_frame = next(_file_frames(path, [0]), None)
    if first_frame is None:
        raise ValueError(f"{path} has a video track without frames: encode it again")
    height, width = first_frame[1].shape[:2]
    with _open_stream(path) as stream:
        fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
        hidden = [packet.is_discard for packet in stream.container.demux(stream) if packet.size]
        if len(hidden) < stream.frames:
            raise ValueError(
                f"{path} is truncated: it announces {stream.frames} frames and holds "
                f"{len(hidden)}; copy or encode it again"
            )
    num_frames = hidden.count(False)
    return VideoInfo(height, width, num_frames, fps, num_frames / fps)


def sample_frame_indices(
    info: VideoInfo,
    fps: float | None = None,
    num_frames: int | None = None,
    stride: int | None = None,
) -> list[int]:
    """Indices, in increasing order, of the frames to keep. At most one of the three ways may be
    asked for; none keeps every frame.

    Args:
        info: the video to sample; only its number of frames and, for `fps`, its rate are read.
        fps: for each k >= 0 the first frame at or after k / fps seconds; every frame if the video
            is slower.
        num_frames: frame k * total // num_frames for k < num_frames.
        stride: every stride-th frame.
    """
    total = info.num_frames
    given = {"fps": fps, "num_frames": num_frames, "stride": stride}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"sample by one of fps, num_frames and stride, got {given}")
    if any(value <= 0 for value in given.values()):
        raise ValueError(f"fps, num_frames and stride must be positive, got {given}")
    if fps is not None:
        if info.fps is None:
            raise ValueError(
                "sampling by fps needs the frame rate of the video, which frames alone do not "
                "have: sample by stride or num_frames"
            )
        # Rationals: in floating point k * (30 / 10) may fall just above a frame's index.
        step = max(_rational(info.fps) / _rational(fps), Fraction(1))
        return [math.ceil(k * step) for k in range(math.floor((total - 1) / step) + 1)]
    if num_frames is not None:
        if num_frames > total:
            raise ValueError(
                f"cannot sample num_frames={num_frames} from a video of {total} frames"
            )
        return [k * total // num_frames for k in range(num_frames)]
    return list(range(0, total, stride or 1))


def fitted_size(height: int, width: int, shortest: int, longest: float) -> tuple[int, int]:
    """The largest (height, width) of this shape with sides of at most `shortest` and `longest`."""
    short, long = sorted((height, width))
    if long * shortest > longest * short:
        shortest = max(1, round(longest * short / long))
    longest = int(min(longest, shortest * long // short))
    return (shortest, longest) if height <= width else (longest, shortest)


def iter_frames(
    path: str | Path,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    stride: int | None = None,
    frame_indices: Sequence[int] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a video file or a folder of frames, holding one frame at a time.

    Args:
        path: mp4, avi, mkv, webm, mov or gif file, or a folder of jpg, png, bmp or webp frames,
            which are taken in natural order ("2.png" before "10.png").
        fps, num_frames, stride: see [`sample_frame_indices`].
        frame_indices: increasing indices of the frames to keep, instead of the three.

    Yields:
        The frame's index in the source and its RGB pixels, uint8 `(height, width, 3)`, rotated as
        the file asks.

    Raises:
        FileNotFoundError: nothing at `path`, or a folder without frames.
        ValueError: the file cannot be decoded (to the last frame asked for); frames of a folder
            differ in size.
    """
    info = probe_video(path)  # finds a truncated file before the work starts
    if frame_indices is None:
        frame_indices = sample_frame_indices(info, fps, num_frames, stride)
    frames = _folder_frames if Path(path).is_dir() else _file_frames
    yield from frames(Path(path), frame_indices)


def read_video(
    path: str | Path,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    stride: int | None = None,
    frame_indices: Sequence[int] | None = None,
) -> tuple[np.ndarray, VideoInfo, list[int]]:
    """The frames that [`iter_frames`] yields for the same arguments, in one array that is filled
    frame by frame, so that no more of the source is held than is returned.

    Returns:
        frames uint8 `(num_frames, height, width, 3)`, the [`VideoInfo`] of the source (its own
        frame rate and number of frames, not those of the sample), and the index of each returned
        frame in the source.
    """
    info = probe_video(path)
    if frame_indices is None:
        frame_indices = sample_frame_indices(info, fps, num_frames, stride)
    frames = np.empty((len(frame_indices), info.height, info.width, 3), np.uint8)
    indices = []
    for index, frame in iter_frames(path, frame_indices=frame_indices):
        frames[len(indices)] = frame
        indices.append(index)
    if not indices:
        raise ValueError(
            f"{path} has none of the frames {list(frame_indices)}: it has {info.num_frames} frames"
        )
    return frames[: len(indices)], info, indices


def _existing_path(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a video file or a folder of frames")
    if path.is_file() and path.suffix.lower() not in VIDEO_EXTENSIONS:
        raise ValueError(
            f"{path} has an unknown extension: give a {', '.join(VIDEO_EXTENSIONS)} file "
            "or a folder of frames"
        )
    return path


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder in natural order; `FileNotFoundError` if it holds none."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in FRAME_EXTENSIONS]
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise FileNotFoundError(
            f"the folder {folder} holds no frames: put {', '.join(FRAME_EXTENSIONS)} files in it"
        )
    return sorted(files, key=_natural_order)


def _natural_order(file: Path) -> list[tuple[int, str]]:
    """Sort key that compares the numbers in a name as numbers."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _read_frame(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except OSError as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from error


def _folder_frames(folder: Path, frame_indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    files = frame_files(folder)
    first_shape = None
    for index in frame_indices:
        frame = _read_frame(files[index])
        first_shape = first_shape or frame.shape
        if frame.shape != first_shape:
            raise ValueError(
                f"{files[index]} has {frame.shape[1]}x{frame.shape[0]} pixels but the frame before "
                f"has {first_shape[1]}x{first_shape[0]}: frames of one video need one size"
            )
        yield index, frame


def _file_frames(path: Path, frame_indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    wanted = iter(frame_indices)
    target = next(wanted, None)
    with _open_stream(path) as stream:
        stream.thread_type = "AUTO"
        for index, frame in enumerate(stream.container.decode(stream)):
            if index == target:
                yield index, _upright_rgb(frame)
                target = next(wanted, None)
            if target is None:
                return


def _upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    rgb = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90)  # counter-clockwise, as np.rot90 turns
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns)) if quarter_turns else rgb


@contextmanager
def _open_stream(path: Path) -> Iterator[av.VideoStream]:
    """The first video stream of a file; PyAV's errors become a `ValueError` that names the file."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(
                    f"{path} has no video track (it may be audio only): give a file with a picture"
                )
            yield container.streams.video[0]
    except av.FFmpegError as error:
        raise ValueError(
            f"{path} cannot be decoded ({error.strerror}): it is truncated, damaged or no video; "
            "copy or encode it again"
        ) from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, whose file takes the place of `path` when the block
    ends without an error; after an error it is deleted and what was at `path` stays.

    Raises:
        ValueError: on entering, if no file can be written there.
    """
    path = Path(path)
    check_writable(path)
    partial = path.with_name(f".{uuid4().hex}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raise a `ValueError` that says why if no file can be written at `path`. Leaves nothing
    behind."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder; give the name of a file")
    probe = path.with_name(f".{uuid4().hex}")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"cannot write {path}: {error.strerror}; give a path in an existing folder "
            "that you may write to"
        ) from error


class VideoWriter:
    """Writes RGB frames to an H.264 mp4 file.

    The pixels are yuv420p, which every player shows. yuv420p has no odd sizes: those are written as
    yuv444p, which keeps the exact size and plays in FFmpeg-based players (mpv, VLC) but not in
    every browser.

    A context manager: the frames go to a temporary file in the same folder, which takes the place
    of `path` when the block ends without an error. A partly written file never replaces a finished
    one.

    Args:
        path: the .mp4 file to write.
        fps: frames per second.
        height, width: size of the frames in pixels.

    Raises:
        ValueError: no file can be written at `path` (found here, before any work), or it does not
            end in .mp4; on leaving the block, if no frame was written.
    """

    def __init__(self, path: str | Path, *, fps: float, height: int, width: int):
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"cannot write {self.path}: the name of a video must end in .mp4")
        check_writable(self.path)
        self.fps = fps
        self.height = height
        self.width = width

    def __enter__(self) -> "VideoWriter":
        with ExitStack() as stack:
            partial = stack.enter_context(atomic_path(self.path))
            container = stack.enter_context(av.open(str(partial), "w", format="mp4"))
            # veryfast: a third of the default's time for files of about the same size
            options = {"crf": "18", "preset": "veryfast"}
            self._stream = container.add_stream(
                "libx264", rate=_rational(self.fps), options=options
            )
            self._stream.height, self._stream.width = self.height, self.width
            odd = self.height % 2 or self.width % 2
            self._stream.pix_fmt = "yuv444p" if odd else "yuv420p"
            self._num_frames = 0
            stack.push(self._finish)
            self._exit = stack.pop_all().__exit__
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one RGB frame, uint8 `(height, width, 3)`."""
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"{self.path} takes uint8 frames of shape {(self.height, self.width, 3)}, "
                f"got {frame.dtype} {frame.shape}"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._stream.container.mux(self._stream.encode(frame))
        self._num_frames += 1

    def __exit__(self, *exception) -> bool | None:
        return self._exit(*exception)

    def _finish(self, exception_type, *_) -> None:
        if exception_type is not None:
            return
        if self._num_frames == 0:
            raise ValueError(f"no frame was written to {self.path}")
        self._stream.container.mux(self._stream.encode())


def _rational(fps: float) -> Fraction:
    """The exact rate, such as 30000 / 1001, that floating point rounded."""
    return Fraction(fps).limit_denominator(10_000)
