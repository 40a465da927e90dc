# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.ops import box_convert
from torchvision.transforms.v2 import functional as tvF
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.video_utils import VideoMetadata

from proxyformer_hf.video_io import VideoWriter, read_video
from proxyformer_hf.video_processing_proxyformer import ProxyFormerVideoProcessor

MEAN = np.array(IMAGENET_DEFAULT_MEAN, np.float32)
STD = np.array(IMAGENET_DEFAULT_STD, np.float32)


def random_video(num_frames=3, height=24, width=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def unresized():
    return ProxyFormerVideoProcessor(do_resize=False)


def normalised(video):
    """(T, H, W, 3) uint8 to (T, 3, H, W) as the model takes it, by the formula."""
    return ((video.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)


def as_video_file(video, folder):
    path = folder / "video.mp4"
    with VideoWriter(path, fps=10, height=video.shape[1], width=video.shape[2]) as writer:
        for frame in video:
            writer.write(frame)
    return path


def as_frame_folder(video, folder):
    for index, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"{index}.png")
    return folder


FORMS = {
    "numpy, channels last": lambda video: video,
    "numpy, channels first": lambda video: video.transpose(0, 3, 1, 2),
    "torch, channels last": torch.from_numpy,
    "torch, channels first": lambda video: torch.from_numpy(video).movedim(-1, 1),
    "PIL images": lambda video: [Image.fromarray(frame) for frame in video],
    "list of arrays": list,
    "list of tensors": lambda video: list(torch.from_numpy(video).movedim(-1, 1)),
    "integers of 64 bits": lambda video: video.astype(np.int64),
    "floats up to 255": lambda video: video.astype(np.float32),
    "floats up to 1": lambda video: video.astype(np.float64) / 255,
    "a batch of one": lambda video: [video],
    "five dimensions": lambda video: video[None],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_video_gives_the_same_pixels(form):
    video = random_video()
    features = unresized()(FORMS[form](video), return_tensors="pt")
    assert features.pixel_values_videos.dtype == torch.float32
    np.testing.assert_allclose(features.pixel_values_videos[0], normalised(video), atol=2e-6)
    assert features.frame_mask.all() and features.frame_mask.shape == (1, 3)
    assert features.pixel_mask.all() and features.pixel_mask.shape == (1, 24, 40)


@pytest.mark.parametrize("as_type", [str, Path])
@pytest.mark.parametrize("store", [as_video_file, as_frame_folder])
def test_paths_give_the_pixels_that_are_stored(tmp_path, store, as_type):
    path = store(random_video(), tmp_path)
    stored, _, _ = read_video(path)
    features = unresized()(as_type(path), return_tensors="pt")
    np.testing.assert_allclose(features.pixel_values_videos[0], normalised(stored), atol=2e-6)


def test_float_video_is_resized_and_not_rescaled_twice():
    video = random_video(height=400, width=700)
    processor = ProxyFormerVideoProcessor()
    from_bytes = processor(video, return_tensors="pt").pixel_values_videos
    from_floats = processor(video / 255.0, return_tensors="pt").pixel_values_videos
    assert from_bytes.shape[-2:] == (360, 630)
    # A byte video is rounded to bytes after each axis is resized.
    assert (from_bytes - from_floats).abs().max() < 1.01 / 255 / STD.min()


def test_grey_and_transparent_images_become_rgb():
    frame = random_video(1)[0]
    rgba = Image.fromarray(np.dstack([frame, np.full((24, 40), 7, np.uint8)]))
    grey = Image.fromarray(frame[..., 0])
    features = unresized()([rgba, grey], return_tensors="pt")
    expected = np.stack([frame, np.repeat(frame[..., :1], 3, -1)])
    np.testing.assert_allclose(features.pixel_values_videos[0], normalised(expected), atol=2e-6)


@pytest.mark.parametrize(
    "size, resized",
    [
        ((480, 854), (360, 640)),  # DAVIS
        ((720, 1280), (360, 640)),
        ((360, 640), (360, 640)),
        ((1280, 720), (640, 360)),
        ((320, 426), (360, 479)),  # A2D: 479.25 is truncated
        ((272, 640), (272, 640)),
        ((100, 1003), (64, 640)),
        ((500, 500), (360, 360)),
    ],
)
def test_default_size_is_that_of_the_fields_code(size, resized):
    video = np.zeros((1, *size, 3), np.uint8)
    features = ProxyFormerVideoProcessor()(video, return_tensors="pt")
    assert features.pixel_values_videos.shape[-2:] == resized


def test_resized_pixels_are_torchvisions():
    video = random_video(2, 90, 160)
    processor = ProxyFormerVideoProcessor(size={"shortest_edge": 45, "longest_edge": 80})
    expected = tvF.resize(torch.from_numpy(video).movedim(-1, 1), [45, 80], antialias=True)
    features = processor(video, return_tensors="pt")
    expected = normalised(expected.movedim(1, -1).numpy())
    np.testing.assert_allclose(features.pixel_values_videos[0], expected, atol=2e-6)


def test_mean_and_deviation_are_configurable():
    processor = ProxyFormerVideoProcessor(
        do_resize=False, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
    )
    video = random_video()
    expected = (video / 127.5 - 1).transpose(0, 3, 1, 2)
    result = processor(video, return_tensors="pt").pixel_values_videos[0]
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_batch_of_mixed_videos_is_padded_with_zeros_and_masked(tmp_path):
    stored = as_video_file(random_video(4, 32, 16, seed=1), tmp_path)
    videos = [
        random_video(3, 24, 40),
        stored,
        [Image.fromarray(frame) for frame in random_video(1, 10, 12, seed=2)],
    ]
    features = unresized()(videos, return_tensors="pt")
    assert features.pixel_values_videos.shape == (3, 4, 3, 32, 40)
    for row, (num_frames, height, width) in enumerate([(3, 24, 40), (4, 32, 16), (1, 10, 12)]):
        alone = unresized()(videos[row], return_tensors="pt").pixel_values_videos[0]
        expected = torch.zeros(4, 3, 32, 40)
        expected[:num_frames, :, :height, :width] = alone
        torch.testing.assert_close(features.pixel_values_videos[row], expected, rtol=0, atol=0)
        assert features.frame_mask[row].tolist() == [t < num_frames for t in range(4)]
        rows, columns = torch.arange(32)[:, None], torch.arange(40)
        assert features.pixel_mask[row].equal((rows < height) & (columns < width))
    assert features.frame_mask.dtype == features.pixel_mask.dtype == torch.bool


@pytest.mark.parametrize(
    "sampling, expected",
    [({"stride": 3}, [0, 3, 6, 9]), ({"num_frames": 2}, [0, 5]), ({"fps": 4}, [0, 3, 5, 8])],
)
def test_sampling_a_file(tmp_path, sampling, expected):
    path = as_video_file(random_video(10), tmp_path)  # 10 frames per second
    features = unresized()(path, return_tensors="pt", return_metadata=True, **sampling)
    whole = unresized()(path, return_tensors="pt").pixel_values_videos
    assert features.pixel_values_videos.equal(whole[:, expected])
    assert features.video_metadata == [
        VideoMetadata(
            total_num_frames=10,
            fps=10.0,
            width=40,
            height=24,
            duration=1.0,
            video_backend="pyav",
            frames_indices=expected,
        )
    ]


def test_sampling_an_array_and_its_metadata():
    video = random_video(10)
    features = unresized()(video, stride=4, return_tensors="pt", return_metadata=True)
    np.testing.assert_allclose(features.pixel_values_videos[0], normalised(video[::4]), atol=2e-6)
    assert features.video_metadata == [
        VideoMetadata(total_num_frames=10, height=24, width=40, frames_indices=[0, 4, 8])
    ]


def test_sampling_of_a_call_replaces_that_of_the_processor():
    processor = ProxyFormerVideoProcessor(do_resize=False, stride=2)
    assert processor(random_video(10)).frame_mask.shape == (1, 5)
    assert processor(random_video(10), num_frames=3).frame_mask.shape == (1, 3)


def test_stride_survives_saving_and_loading(tmp_path):
    ProxyFormerVideoProcessor(stride=2, size={"shortest_edge": 10}).save_pretrained(tmp_path)
    loaded = ProxyFormerVideoProcessor.from_pretrained(tmp_path)
    assert loaded.stride == 2
    assert dict(loaded.size) == {"shortest_edge": 10}


def test_channels_of_an_ambiguous_shape_can_be_told():
    video = random_video(2, height=3, width=8)
    for form, data_format in [
        (video, "channels_last"),
        (video.transpose(0, 3, 1, 2)[..., :3], "channels_first"),
    ]:
        features = unresized()(
            form, input_data_format=data_format, return_tensors="pt", return_metadata=True
        )
        expected = video if data_format == "channels_last" else video[:, :, :3]
        np.testing.assert_allclose(features.pixel_values_videos[0], normalised(expected), atol=2e-6)
        assert features.video_metadata[0].height == 3


nan_video = np.full((2, 8, 8, 3), 0.5)
nan_video[1, 2, 3, 0] = np.nan


@pytest.mark.parametrize(
    "video, message",
    [
        (nan_video, "NaN or infinite pixels"),
        (np.full((2, 8, 8, 3), np.inf), "NaN or infinite pixels"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"no frames or no pixels: its shape is \(0, 3, 8, 8\)"),
        (np.zeros((2, 0, 8, 3), np.uint8), "no frames or no pixels"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"3 channels \(RGB\).*got \(2, 8, 8, 4\)"),
        (np.zeros((2, 1, 8, 8), np.uint8), r"3 channels \(RGB\).*got \(2, 1, 8, 8\)"),
        (np.zeros((2, 3, 8, 3), np.uint8), "ambiguous: pass input_data_format='channels_first'"),
        (
            np.zeros((8, 8, 3), np.uint8),
            r"a video is \(num_frames, height, width, 3\).*\(8, 8, 3\)",
        ),
        ([np.zeros((8, 8), np.uint8)], r"got an array of shape \(8, 8\)"),
        (np.full((2, 8, 8, 3), -1.0), r"must be in \[0, 1\] or \[0, 255\], got \[-1, -1\]"),
        (np.full((2, 8, 8, 3), 300), r"integer pixels must be in \[0, 255\], got \[300, 300\]"),
        ([], "an empty list: give at least one frame"),
        ([[]], "an empty list: give at least one frame"),
        (7, "a video is a path, a list of PIL images or an array of four dimensions, got int"),
        ([Image.new("RGB", (8, 8)), Image.new("RGB", (8, 9))], "frame 1 has the shape"),
        ([Image.new("RGB", (8, 8)), "x.png"], "frame 1 is a str"),
    ],
)
def test_bad_videos_are_refused(video, message):
    with pytest.raises(ValueError, match=message):
        unresized()(video)


def test_wrong_channel_format_is_refused():
    with pytest.raises(ValueError, match="3 channels.* as channels_first"):
        unresized()(random_video(), input_data_format="channels_first")


def test_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.mp4 does not exist"):
        unresized()("nowhere.mp4")


def test_two_ways_of_sampling_are_refused():
    with pytest.raises(ValueError, match="one of fps, num_frames and stride"):
        unresized()(random_video(), stride=2, num_frames=2)


def model_outputs(rows, num_frames, height, width, **masks):
    """Outputs for inputs of height x width: masks of a quarter of it, boxes and scores."""
    generator = torch.Generator().manual_seed(0)
    mask_size = (math.ceil(height / 4), math.ceil(width / 4))
    return SimpleNamespace(
        referred_masks=torch.randn(rows, num_frames, *mask_size, generator=generator),
        referred_boxes=torch.rand(rows, num_frames, 4, generator=generator) * 0.2 + 0.4,
        referred_scores=torch.rand(rows, generator=generator),
        **{"frame_mask": None, "pixel_mask": None} | masks,
    )


def reference_masks(logits, input_size, target_size, threshold):
    """The recipe in one go over all frames, with the cut by hand."""
    height, width = input_size
    logits = logits[:, None, : math.ceil(height / 4), : math.ceil(width / 4)]
    large = F.interpolate(logits.sigmoid(), scale_factor=4, mode="bilinear", align_corners=False)
    large = large[..., :height, :width]
    return F.interpolate(large, target_size, mode="bilinear")[:, 0] > threshold


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_masks_are_resized_to_the_source(threshold):
    outputs = model_outputs(2, 3, 30, 42)
    sizes = [(61, 83), (20, 28)]
    results = ProxyFormerVideoProcessor().post_process_referring_segmentation(
        outputs, sizes, threshold
    )
    for row, size in enumerate(sizes):
        # Without a pixel mask the masks' own size times 4 is taken to be real: 32 x 44.
        expected = reference_masks(outputs.referred_masks[row], (32, 44), size, threshold)
        assert results[row]["masks"].dtype == torch.bool
        assert results[row]["masks"].equal(expected)
        assert results[row]["score"] == outputs.referred_scores[row].item()
        corners = box_convert(outputs.referred_boxes[row], "cxcywh", "xyxy")
        corners = corners * torch.tensor([size[1], size[0], size[1], size[0]])
        torch.testing.assert_close(results[row]["boxes"], corners)


def test_a_surer_background_does_not_move_the_outline():
    outputs = model_outputs(1, 1, 32, 64)
    outputs.referred_masks[0, 0, :, :8], outputs.referred_masks[0, 0, :, 8:] = 3.0, -12.0
    (result,) = ProxyFormerVideoProcessor().post_process_referring_segmentation(outputs, [(32, 64)])
    assert result["masks"][0, :, :31].all() and not result["masks"][0, :, 33:].any()


def test_padding_does_not_reach_the_masks():
    frame_mask = torch.tensor([[True, True, False], [True, True, True]])
    pixel_mask = torch.zeros(2, 40, 64, dtype=torch.bool)
    pixel_mask[0, :30, :42] = True
    pixel_mask[1] = True
    outputs = model_outputs(2, 3, 40, 64, frame_mask=frame_mask, pixel_mask=pixel_mask)
    outputs.referred_masks[0, :, 8:] = math.nan
    outputs.referred_masks[0, :, :, 11:] = math.nan
    first, second = ProxyFormerVideoProcessor().post_process_referring_segmentation(
        outputs, [(60, 84), (40, 64)]
    )
    assert first["masks"].shape == (2, 60, 84) and first["boxes"].shape == (2, 4)
    expected = reference_masks(outputs.referred_masks[0, :2], (30, 42), (60, 84), 0.5)
    assert first["masks"].equal(expected)
    assert second["masks"].shape == (3, 40, 64)


def test_rows_of_several_expressions_take_the_masks_of_their_video():
    frame_mask = torch.tensor([[True, False], [True, True]])
    outputs = model_outputs(6, 2, 8, 8, frame_mask=frame_mask)
    results = ProxyFormerVideoProcessor().post_process_referring_segmentation(outputs, [(8, 8)] * 6)
    assert [len(result["masks"]) for result in results] == [1, 1, 1, 2, 2, 2]


def test_boxes_stay_inside_the_frame():
    outputs = model_outputs(1, 1, 8, 8)
    outputs.referred_boxes[0, 0] = torch.tensor([0.9, 0.1, 0.4, 0.4])
    (result,) = ProxyFormerVideoProcessor().post_process_referring_segmentation(outputs, [(10, 20)])
    torch.testing.assert_close(result["boxes"], torch.tensor([[14.0, 0.0, 20.0, 3.0]]))


def test_a_target_size_per_row_is_needed():
    with pytest.raises(ValueError, match="one target size per row of the output: 1 for 2"):
        ProxyFormerVideoProcessor().post_process_referring_segmentation(
            model_outputs(2, 1, 8, 8), [(8, 8)]
        )


@pytest.mark.parametrize("size", [(480, 854), (30, 42), (33, 47)])
def test_a_mask_survives_the_way_to_the_models_size_and_back(size):
    """Logits painted at the model's stride from a disc come back as that disc."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(y - height / 2, x - width / 2) < height / 3
    features = ProxyFormerVideoProcessor()(np.zeros((1, *size, 3), np.uint8), return_tensors="pt")
    input_size = features.pixel_mask.shape[1:]
    logits = F.interpolate(
        torch.from_numpy(disc)[None, None].float() * 20 - 10,
        [math.ceil(side / 4) for side in input_size],
        mode="bilinear",
        antialias=True,
    )
    outputs = model_outputs(1, 1, *input_size, pixel_mask=features.pixel_mask)
    outputs.referred_masks = logits
    (result,) = ProxyFormerVideoProcessor().post_process_referring_segmentation(outputs, [size])
    mask = result["masks"][0].numpy()
    assert (mask & disc).sum() / (mask | disc).sum() > 0.97
