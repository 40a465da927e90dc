# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import tracemalloc
import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from proxyformer_hf.video_io import (
    VideoInfo,
    VideoWriter,
    atomic_path,
    check_writable,
    iter_frames,
    probe_video,
    read_video,
    sample_frame_indices,
)

REAL_VIDEOS = Path(__file__).parents[2] / "shared" / "data" / "videos"

LOSSLESS = {
    "mp4": ("libx264rgb", "rgb24", {"qp": "0"}),
    "mov": ("png", "rgb24", {}),
    "mkv": ("ffv1", "bgr0", {}),
    "avi": ("ffv1", "bgr0", {}),
    "webm": ("libvpx-vp9", "gbrp", {"lossless": "1"}),
}


def random_frames(num_frames=12, height=32, width=48):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def write_with_pyav(path, frames, codec="libx264rgb", pix_fmt="rgb24", options=None, rotation=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options or {"qp": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for frame in frames:
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_folder(folder, frames):
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame_{index}.png")
    return folder


@pytest.mark.parametrize("extension", LOSSLESS)
def test_every_container_gives_the_frames_that_were_encoded(tmp_path, extension):
    frames = random_frames()
    path = write_with_pyav(tmp_path / f"video.{extension}", frames, *LOSSLESS[extension])
    decoded, info, indices = read_video(path)
    np.testing.assert_array_equal(decoded, frames)
    assert info == VideoInfo(height=32, width=48, num_frames=12, fps=10.0, duration=1.2)
    assert indices == list(range(12))


def test_gif_gives_the_frames_that_pillow_reads(tmp_path):
    path = tmp_path / "video.gif"
    images = [Image.fromarray(frame).quantize(32) for frame in random_frames(5)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0)
    decoded, info, _ = read_video(str(path))
    assert info == VideoInfo(height=32, width=48, num_frames=5, fps=10.0, duration=0.5)
    np.testing.assert_array_equal(decoded, np.stack([image.convert("RGB") for image in images]))


def test_gif_of_one_frame_has_the_default_rate(tmp_path):
    path = tmp_path / "video.gif"
    Image.fromarray(random_frames(1)[0]).save(path)
    assert probe_video(path).num_frames == 1
    assert probe_video(path).fps > 0


def test_upper_case_extension_is_known(tmp_path):
    path = write_with_pyav(tmp_path / "video.mp4", random_frames(2))
    path = path.rename(tmp_path / "VIDEO.MP4")
    assert probe_video(path).num_frames == 2


@pytest.mark.parametrize("rotation, quarter_turns", [(90, 1), (-90, 3), (180, 2)])
def test_rotation_of_the_display_matrix_is_applied(tmp_path, rotation, quarter_turns):
    frames = random_frames(3)
    path = write_with_pyav(tmp_path / "video.mov", frames, "png", "rgb24", {}, rotation)
    decoded, info, _ = read_video(path)
    expected = np.rot90(frames, quarter_turns, axes=(1, 2))
    np.testing.assert_array_equal(decoded, expected)
    assert (info.height, info.width) == expected.shape[1:3]


def test_rotation_direction_is_that_of_a_phone(tmp_path):
    """A phone held upright stores the picture on its side and asks for 90 degrees clockwise, -90 in
    a display matrix: what is stored at the left edge is shown at the top."""
    frames = np.zeros((1, 32, 48, 3), np.uint8)
    frames[:, :, :8] = 255
    path = write_with_pyav(tmp_path / "video.mov", frames, "png", "rgb24", {}, rotation=-90)
    decoded, _, _ = read_video(path)
    assert decoded[0, :8].min() == 255
    assert decoded[0, 8:].max() == 0


def test_exif_rotation_of_a_folder_frame_is_applied(tmp_path):
    frame = random_frames(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # show rotated by 90 degrees clockwise
    Image.fromarray(frame).save(tmp_path / "0.png", exif=exif)
    decoded, info, _ = read_video(tmp_path)
    np.testing.assert_array_equal(decoded[0], np.rot90(frame, -1))
    assert (info.height, info.width) == (48, 32)


def test_frames_hidden_by_an_edit_list_are_neither_counted_nor_returned(tmp_path):
    frames = random_frames(10)
    whole = write_with_pyav(tmp_path / "whole.mp4", frames)
    cut = tmp_path / "cut.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as container,
    ):
        stream = source.streams.video[0]
        copied = container.add_stream_from_template(stream)
        shift = int(Fraction(4, 10) / stream.time_base)  # the first four frames lie before time 0
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - shift,
                    packet.dts - shift,
                    copied,
                )
                container.mux(packet)
    decoded, info, indices = read_video(cut)
    np.testing.assert_array_equal(decoded, frames[4:])
    assert (info.num_frames, indices) == (6, list(range(6)))


def test_folder_is_read_in_natural_order_whatever_the_frames_formats(tmp_path):
    frames = random_frames(3)
    Image.fromarray(frames[0]).save(tmp_path / "frame2.png")
    Image.fromarray(frames[1]).save(tmp_path / "frame10.BMP")
    Image.fromarray(frames[2]).save(tmp_path / "frame011.webp", lossless=True)
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame1.png").write_bytes(b"not an image")
    decoded, info, indices = read_video(tmp_path)
    np.testing.assert_array_equal(decoded, frames)
    assert info == VideoInfo(height=32, width=48, num_frames=3, fps=None, duration=None)
    assert indices == [0, 1, 2]


def brute_force_fps(total, source_fps, fps):
    times = [Fraction(index) / source_fps for index in range(total)]
    kept, tick = [], 0
    for index, time in enumerate(times):
        if time >= Fraction(tick) / fps:
            kept.append(index)
            tick = max(tick + 1, int(time * fps) + 1)
    return kept


@pytest.mark.parametrize("source_fps", [10, 25, 30, Fraction(30000, 1001)])
@pytest.mark.parametrize("fps", [1, 3, 5, 10, 12.5, 60])
def test_sampling_by_fps_keeps_the_first_frame_of_each_tick(source_fps, fps):
    info = VideoInfo(1, 1, num_frames=47, fps=float(source_fps))
    assert sample_frame_indices(info, fps=fps) == brute_force_fps(47, source_fps, Fraction(fps))


def test_sampling_by_count_and_stride():
    info = VideoInfo(1, 1, num_frames=10)
    assert sample_frame_indices(info) == list(range(10))
    assert sample_frame_indices(info, num_frames=3) == [0, 3, 6]
    assert sample_frame_indices(info, num_frames=10) == list(range(10))
    assert sample_frame_indices(info, stride=4) == [0, 4, 8]
    assert sample_frame_indices(info, stride=100) == [0]


@pytest.mark.parametrize(
    "sampling, message",
    [
        ({"fps": 2, "stride": 3}, "one of fps, num_frames and stride"),
        ({"num_frames": 11}, "num_frames=11 from a video of 10 frames"),
        ({"num_frames": 0}, "must be positive"),
        ({"stride": -1}, "must be positive"),
        ({"fps": 2}, "needs the frame rate"),
    ],
)
def test_impossible_sampling_is_refused(sampling, message):
    with pytest.raises(ValueError, match=message):
        sample_frame_indices(VideoInfo(1, 1, num_frames=10), **sampling)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "folder"])
@pytest.mark.parametrize(
    "sampling, expected",
    [
        ({"stride": 5}, [0, 5, 10]),
        ({"num_frames": 4}, [0, 3, 6, 9]),
        ({"frame_indices": [2, 3, 11]}, [2, 3, 11]),
    ],
)
def test_sampled_frames_are_those_at_the_indices(tmp_path, kind, sampling, expected):
    frames = random_frames()
    if kind == "folder":
        path = write_folder(tmp_path / "frames", frames)
    else:
        path = write_with_pyav(tmp_path / f"video.{kind}", frames, *LOSSLESS[kind])
    decoded, info, indices = read_video(path, **sampling)
    assert indices == expected
    assert info.num_frames == 12
    np.testing.assert_array_equal(decoded, frames[expected])


def test_file_is_sampled_by_its_own_frame_rate(tmp_path):
    frames = random_frames()
    path = write_with_pyav(tmp_path / "video.mp4", frames)  # 10 frames per second
    decoded, _, indices = read_video(path, fps=4)
    assert indices == [0, 3, 5, 8, 10]
    np.testing.assert_array_equal(decoded, frames[indices])


def test_iterating_holds_one_frame(tmp_path):
    path = write_with_pyav(tmp_path / "video.mp4", random_frames())
    references, most_alive = [], 0
    for _, frame in iter_frames(path):
        references.append(weakref.ref(frame))
        del frame
        most_alive = max(most_alive, sum(reference() is not None for reference in references))
    assert len(references) == 12
    assert most_alive <= 1


@pytest.mark.parametrize("num_frames", [2, 40])
def test_reading_holds_no_more_than_it_returns(tmp_path, num_frames):
    frames = random_frames(40, 128, 128)
    path = write_with_pyav(tmp_path / "video.mkv", frames, *LOSSLESS["mkv"])
    frame_bytes = frames[0].nbytes
    tracemalloc.start()
    read_video(path, num_frames=num_frames)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # PyAV's own buffers are outside; here the frame in hand and its copy come on top.
    assert num_frames * frame_bytes <= peak < (num_frames + 3) * frame_bytes


def test_file_is_not_decoded_beyond_the_last_frame_asked_for(tmp_path, monkeypatch):
    path = write_with_pyav(tmp_path / "video.mp4", random_frames())
    converted = []
    original = av.VideoFrame.to_ndarray
    monkeypatch.setattr(
        "proxyformer_hf.video_io._upright_rgb",
        lambda frame: converted.append(frame.pts) or original(frame, format="rgb24"),
    )
    frames = iter_frames(path)
    assert not converted
    next(frames)
    next(frames)
    assert len(converted) == 3  # the probe's for the size, and the two asked for


def test_missing_file():
    with pytest.raises(FileNotFoundError, match="nowhere.mp4 does not exist: give a video file"):
        probe_video("nowhere.mp4")


def test_folder_without_frames(tmp_path):
    (tmp_path / "notes.txt").write_text("not a frame")
    with pytest.raises(FileNotFoundError, match="holds no frames: put .jpg"):
        read_video(tmp_path)


def test_unknown_extension(tmp_path):
    (tmp_path / "video.txt").write_text("not a video")
    with pytest.raises(ValueError, match="video.txt has an unknown extension: give a .mp4"):
        next(iter_frames(tmp_path / "video.txt"))


def test_audio_only_file(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="sound.mp4 has no video track .it may be audio only"):
        read_video(path)


def test_mp4_without_its_index(tmp_path):
    path = write_with_pyav(tmp_path / "video.mp4", random_frames())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="video.mp4 cannot be decoded .*truncated, damaged"):
        read_video(path)


@pytest.mark.parametrize("extension", ["avi", "mov"])
def test_truncated_file_whose_frames_are_announced(tmp_path, extension):
    frames = random_frames(20)
    path = tmp_path / f"video.{extension}"
    options = {"movflags": "faststart"} if extension == "mov" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("png", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="is truncated: it announces 20 frames and holds"):
        next(iter_frames(path))


def test_error_midway_is_raised_after_the_frames_before_it(tmp_path):
    path = write_with_pyav(tmp_path / "video.mp4", random_frames(40))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) * 3 // 4] = bytes(len(content) // 4)
    path.write_bytes(content)
    frames = iter_frames(path)
    next(frames)
    with pytest.raises(ValueError, match="video.mp4 cannot be decoded"):
        list(frames)


def test_file_that_is_no_video(tmp_path):
    path = tmp_path / "video.mkv"
    path.write_bytes(b"not a video" * 100)
    with pytest.raises(ValueError, match="video.mkv cannot be decoded"):
        probe_video(path)


def test_empty_file(tmp_path):
    path = tmp_path / "video.mp4"
    path.touch()
    with pytest.raises(ValueError, match="video.mp4 cannot be decoded"):
        probe_video(path)


def test_video_track_without_frames(tmp_path):
    path = tmp_path / "video.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "rgb24"
        container.start_encoding()
    with pytest.raises(ValueError, match="video.avi has a video track without frames"):
        read_video(path)


def test_indices_beyond_the_end(tmp_path):
    path = write_with_pyav(tmp_path / "video.mp4", random_frames(3))
    with pytest.raises(ValueError, match=r"none of the frames \[7\]: it has 3 frames"):
        read_video(path, frame_indices=[7])


def test_folder_frames_of_different_sizes(tmp_path):
    folder = write_folder(tmp_path / "frames", random_frames(3))
    Image.fromarray(random_frames(1, 16, 20)[0]).save(folder / "frame_1.png")
    with pytest.raises(ValueError, match="frame_1.png has 20x16 pixels .* 48x32"):
        read_video(folder)


def test_damaged_folder_frame(tmp_path):
    folder = write_folder(tmp_path / "frames", random_frames(3))
    (folder / "frame_1.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="frame_1.png cannot be read as an image"):
        read_video(folder)


@pytest.mark.parametrize(
    "height, width, pix_fmt",
    [(32, 48, "yuv420p"), (33, 48, "yuv444p"), (32, 47, "yuv444p"), (33, 47, "yuv444p")],
)
def test_writer_keeps_size_rate_and_picture(tmp_path, height, width, pix_fmt):
    row = np.linspace(0, 255, width).astype(np.uint8)
    frames = np.stack([np.full((height, width, 3), row[None, :, None]) for _ in range(6)])
    path = tmp_path / "out.mp4"
    with VideoWriter(path, fps=30000 / 1001, height=height, width=width) as writer:
        for frame in frames:
            writer.write(frame)
    decoded, info, _ = read_video(path)
    assert decoded.shape == frames.shape
    assert info.fps == pytest.approx(30000 / 1001, rel=1e-9)
    assert np.abs(decoded.astype(int) - frames).mean() < 4
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", pix_fmt)
    assert list(tmp_path.iterdir()) == [path]


def test_failed_writing_keeps_the_finished_file(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"a finished file")
    with (
        pytest.raises(KeyboardInterrupt),
        VideoWriter(path, fps=10, height=32, width=48) as writer,
    ):
        writer.write(random_frames(1)[0])
        raise KeyboardInterrupt
    assert path.read_bytes() == b"a finished file"
    assert list(tmp_path.iterdir()) == [path]


def test_finished_file_is_replaced_at_the_end_only(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"an older file")
    with VideoWriter(path, fps=10, height=32, width=48) as writer:
        for frame in random_frames(3):
            writer.write(frame)
        assert path.read_bytes() == b"an older file"
    assert probe_video(path).num_frames == 3


def test_writing_no_frame_is_an_error_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(ValueError, match="no frame was written to .*out.mp4"),
        VideoWriter(tmp_path / "out.mp4", fps=10, height=32, width=48),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frame", [np.zeros((32, 48, 3)), np.zeros((48, 32, 3), np.uint8), np.zeros((32, 48), np.uint8)]
)
def test_writer_refuses_frames_of_another_kind(tmp_path, frame):
    with (
        pytest.raises(ValueError, match=r"takes uint8 frames of shape \(32, 48, 3\)"),
        VideoWriter(tmp_path / "out.mp4", fps=10, height=32, width=48) as writer,
    ):
        writer.write(frame)


def test_unwritable_paths_are_found_at_construction(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for path, message in [
        (tmp_path / "nowhere" / "out.mp4", "No such file or directory; give a path in an existing"),
        (tmp_path / "file" / "out.mp4", "Not a directory; give a path in an existing folder"),
        (tmp_path / "folder.mp4", "it is a folder; give the name of a file"),
        (tmp_path / "out.avi", "the name of a video must end in .mp4"),
    ]:
        with pytest.raises(ValueError, match=message):
            VideoWriter(path, fps=10, height=32, width=48)


def test_checking_a_path_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_replaces_only_after_success(tmp_path):
    path = tmp_path / "out.txt"
    with atomic_path(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(RuntimeError), atomic_path(path) as partial:
        partial.write_text("second")
        raise RuntimeError
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not REAL_VIDEOS.exists(), reason="the real videos are not beside this checkout")
@pytest.mark.parametrize(
    "name, expected",
    [
        ("bear.mp4", VideoInfo(480, 854, 82, 30.0, 82 / 30)),
        ("bikes.mp4", VideoInfo(272, 640, 250, 25.0, 10.0)),
    ],
)
def test_real_videos_agree_with_their_containers(name, expected):
    info = probe_video(REAL_VIDEOS / name)
    assert info == expected
    with av.open(str(REAL_VIDEOS / name)) as container:
        assert container.streams.video[0].frames == info.num_frames
        for index, frame in enumerate(container.decode(video=0)):
            if index == info.num_frames // 2:
                reference = frame.to_ndarray(format="rgb24")
    decoded, _, indices = read_video(REAL_VIDEOS / name, num_frames=2)
    assert indices == [0, info.num_frames // 2]
    np.testing.assert_array_equal(decoded[1], reference)
