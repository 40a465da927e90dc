# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from proxyformer_hf.modeling_proxyformer import ProxyFormerVideoFeatures
from proxyformer_hf.pipeline_referring_video_segmentation import (
    DEFAULT_CHECKPOINT,
    TASK,
    PastFrames,
    ReferringVideoSegmentationPipeline,
    _glance_every,
)
from proxyformer_hf.video_io import read_video
from tests.test_modeling_proxyformer_detector import perturbed_model
from tests.tiny_model import (
    HEIGHT,
    NUM_FRAMES,
    TINY_TIMM,
    WIDTH,
    perturb,
    save_noise_clip,
    save_tiny_checkpoint,
    tiny_model,
    tiny_processor,
)

FPS = 12.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_checkpoint(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pipe(checkpoint) -> ReferringVideoSegmentationPipeline:
    return pipeline(TASK, model=checkpoint, device="cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    save_noise_clip(path, FPS)
    return path


@pytest.fixture(scope="module")
def frames(video) -> np.ndarray:
    return read_video(video)[0]


def assert_same_result(result: dict, expected: dict) -> None:
    np.testing.assert_array_equal(result["masks"], expected["masks"])
    np.testing.assert_allclose(result["boxes"], expected["boxes"], rtol=1e-4, atol=1e-3)
    assert result["score"] == pytest.approx(expected["score"], rel=1e-4)
    assert result["label"] == expected["label"]
    assert result["frame_indices"] == expected["frame_indices"]


def test_result_is_the_models_answer_window_by_window(pipe, video, frames):
    result = pipe(video, "a dog", window=3)
    answers = []
    for start in (0, 3, 6):
        inputs = pipe.processor(videos=frames[start : start + 3], text="a dog", return_tensors="pt")
        with torch.no_grad():
            outputs = pipe.model(**inputs)
        answers += pipe.processor.post_process_referring_segmentation(outputs, [(HEIGHT, WIDTH)])
    masks = np.concatenate([answer["masks"] for answer in answers])
    assert masks.any() and not masks.all()
    np.testing.assert_array_equal(result["masks"], masks)
    np.testing.assert_allclose(
        result["boxes"], np.concatenate([answer["boxes"] for answer in answers]), rtol=1e-5
    )
    first, second, third = (answer["score"] for answer in answers)
    assert result["score"] == pytest.approx((3 * first + 3 * second + third) / 7)


@pytest.mark.parametrize(
    "model",
    [
        perturb(tiny_model(vision_config=TINY_TIMM)),
        perturbed_model(vision_config=TINY_TIMM, grounding_map=True, frozen_grounding=True),
    ],
    ids=["plain", "detector"],
)
def test_window_looks_back_on_a_frame_of_those_before(model, video, frames):
    pipe = ReferringVideoSegmentationPipeline(model=model, processor=tiny_processor(), device="cpu")
    result = pipe(video, "a dog", window=4)
    inputs = pipe.processor(videos=frames[[0, 4, 5, 6]], text="a dog", return_tensors="pt")
    with torch.no_grad():
        outputs = pipe.model(**inputs)
    (answer,) = pipe.processor.post_process_referring_segmentation(outputs, [(HEIGHT, WIDTH)])
    np.testing.assert_array_equal(result["masks"][4:], answer["masks"][1:])
    np.testing.assert_allclose(result["boxes"][4:], answer["boxes"][1:], rtol=1e-4)
    score = pipe(frames[:4], "a dog")["score"]
    assert result["score"] == pytest.approx((4 * score + 3 * answer["score"]) / 7)


def test_past_frames_are_spread_over_all_that_was_seen():
    past, kept = PastFrames(3), []
    for start in (0, 12, 24, 36):
        places = torch.arange(start, start + 12.0)[None, :, None]
        features = ProxyFormerVideoFeatures(encoded_map=places, lateral_maps=(10 * places,))
        linked = past.link(features)
        assert linked.encoded_map[0, -12:].tolist() == places[0].tolist()
        assert linked.lateral_maps[0].tolist() == (10 * places).tolist()
        kept.append(linked.encoded_map[0, :-12, 0].tolist())
    # the nearest there are to the ends and the middle: 5.5, 11.5, 17.5
    assert kept == [[], [0, 5, 11], [0, 11, 23], [0, 23, 35]]


@pytest.mark.parametrize(
    ("fps", "frame_indices", "expected"),
    [
        (24.0, range(36), 3),
        (30.0, range(36), 3),
        (60.0, range(36), 7),
        (1000.0, range(36), 8),
        (24.0, range(0, 72, 2), 1),
        (60.0, range(0, 72, 2), 3),
        (6.0, range(36), 1),
        (24.0, [5], 1),
        (None, range(36), 1),
    ],
)
def test_detector_and_classifier_see_eight_frames_a_second_or_more(fps, frame_indices, expected):
    assert _glance_every(fps, [*frame_indices]) == expected


def test_files_are_glanced_at_and_arrays_looked_at(pipe, frames, tmp_path, monkeypatch):
    asked, look = [], pipe.model.get_video_features

    def record(*args, glance_every, **kwargs):
        asked.append(glance_every)
        return look(*args, glance_every=glance_every, **kwargs)

    monkeypatch.setattr(pipe.model, "get_video_features", record)
    save_noise_clip(tmp_path / "clip.mp4", 24.0)
    pipe(tmp_path / "clip.mp4", "a dog")
    pipe(frames, "a dog")
    assert asked == [3, 1]


def test_result_has_the_documented_form(pipe, video):
    result = pipe(video, "a dog")
    assert list(result) == ["label", "score", "masks", "boxes", "fps", "frame_indices"]
    assert result["label"] == "a dog" and 0 <= result["score"] <= 1 and result["fps"] == FPS
    assert result["masks"].shape == (NUM_FRAMES, HEIGHT, WIDTH) and result["masks"].dtype == bool
    assert result["boxes"].shape == (NUM_FRAMES, 4)
    assert (result["boxes"] >= 0).all() and (result["boxes"] <= [WIDTH, HEIGHT] * 2).all()
    assert result["frame_indices"] == list(range(NUM_FRAMES))


def test_several_expressions_give_the_results_of_each(pipe, video):
    results = pipe(video, ["a dog", "the red car on the left"], window=4)
    assert isinstance(results, list)
    for result, text in zip(results, ["a dog", "the red car on the left"], strict=True):
        assert_same_result(result, pipe(video, text, window=4))


def test_several_expressions_encode_the_video_once(pipe, video, monkeypatch):
    encoder, calls = pipe.model.model.video_encoder, []
    forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda *args: calls.append(0) or forward(*args))
    pipe(video, ["a dog", "a cat", "a car"])
    assert len(calls) == 1


def test_list_with_one_expression_gives_a_list(pipe, video):
    (result,) = pipe(video, ["a dog"])
    assert_same_result(result, pipe(video, "a dog"))


@pytest.mark.parametrize("form", ["str", "folder", "pil", "list", "numpy", "channels_first"])
def test_every_form_of_video_gives_the_same_masks(pipe, video, frames, form, tmp_path):
    if form == "folder":
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / f"{index}.png")
    forms = {
        "str": str(video),
        "folder": tmp_path,
        "pil": [Image.fromarray(frame) for frame in frames],
        "list": list(frames),
        "numpy": frames,
        "channels_first": torch.from_numpy(frames).permute(0, 3, 1, 2),
    }
    result = pipe(forms[form], "a dog", window=4)
    assert_same_result(result, pipe(video, "a dog", window=4))
    assert result["fps"] == (FPS if form == "str" else None)


@pytest.mark.parametrize(
    ("sampling", "indices"),
    [({"stride": 3}, [0, 3, 6]), ({"num_frames": 2}, [0, 3]), ({"fps": 4}, [0, 3, 6])],
)
def test_frames_are_sampled(pipe, video, frames, sampling, indices):
    result = pipe(video, "a dog", **sampling)
    assert result["frame_indices"] == indices
    np.testing.assert_array_equal(result["masks"], pipe(frames[indices], "a dog")["masks"])
    if "fps" not in sampling:  # frames alone have no rate
        assert_same_result(pipe(list(frames), "a dog", **sampling), result)


def test_parameters_of_the_constructor_hold_for_calls(checkpoint, video):
    strided = pipeline(TASK, model=checkpoint, device="cpu", stride=3)
    assert strided(video, "a dog")["frame_indices"] == [0, 3, 6]
    assert strided(video, "a dog", stride=5)["frame_indices"] == [0, 5]


def test_masks_are_empty_below_the_least_score(pipe, video):
    found = pipe(video, "a dog", threshold=0.0)
    score = found["score"]
    assert 0 < score < 1 and found["masks"].all()
    assert pipe(video, "a dog", threshold=0.0, min_score=score - 1e-4)["masks"].all()
    doubtful = pipe(video, "a dog", threshold=0.0, min_score=score + 1e-4)
    assert not doubtful["masks"].any() and doubtful["score"] == score


def test_threshold_bounds_the_masks(pipe, video):
    assert pipe(video, "a dog", threshold=0.0)["masks"].all()
    assert not pipe(video, "a dog", threshold=1.0)["masks"].any()


def test_size_changes_what_the_model_sees(pipe, video, monkeypatch):
    shapes, encode = [], pipe.model.get_video_features

    def spy(pixel_values_videos, **kwargs):
        shapes.append(tuple(pixel_values_videos.shape))
        return encode(pixel_values_videos, **kwargs)

    monkeypatch.setattr(pipe.model, "get_video_features", spy)
    result = pipe(video, "a dog", size={"height": 64, "width": 96})
    assert shapes == [(1, NUM_FRAMES, 3, 64, 96)]
    assert result["masks"].shape == (NUM_FRAMES, HEIGHT, WIDTH)


@pytest.mark.parametrize("single_region", [False, True])
def test_short_clip_is_seen_at_several_sizes(frames, single_region):
    model = perturb(tiny_model(single_region=single_region, short_clip_scales=[1, 1.5]))
    pipe = ReferringVideoSegmentationPipeline(model=model, processor=tiny_processor(), device="cpu")
    width = WIDTH - 2  # no multiple of the masks' stride
    clip = frames[:2, :, :width]
    result = pipe(clip, "a dog")
    model.config.single_region = False
    seen, boxes, scores = [], [], []
    for size in ({"shortest_edge": 32, "longest_edge": 64}, {"height": HEIGHT, "width": width}):
        inputs = pipe.processor(videos=clip, text="a dog", return_tensors="pt", size=size)
        with torch.no_grad():
            outputs = model(**inputs)
        rows, columns = inputs["pixel_values_videos"].shape[-2:]
        logits = outputs.referred_masks[0].numpy()
        pixels = bilinear(logits, 4 * logits.shape[1], 4 * logits.shape[2])
        seen.append(bilinear(pixels[:, :rows, :columns], HEIGHT, width))
        boxes.append(outputs.referred_boxes[0].numpy())
        scores.append(outputs.referred_scores.item())
    whole = np.pad(np.mean(seen, 0), [(0, 0), (0, 0), (0, 2)], mode="edge")
    grid = whole.reshape(2, HEIGHT // 4, 4, WIDTH // 4, 4).mean((2, 4))  # the model's masks' own
    expected = bilinear(sigmoid(grid), HEIGHT, WIDTH)[..., :width] > 0.5
    if single_region:
        assert max(ndimage.label(mask)[1] for mask in expected) > 1
        for mask, every, cells in zip(result["masks"], expected, grid, strict=True):
            y, x = np.unravel_index(cells.argmax(), cells.shape)
            labels, _ = ndimage.label(every)
            region = labels == labels[4 * y + 1, 4 * x + 1]
            assert (mask != region).mean() < 0.01  # regions of cells and of pixels may differ
    else:
        assert expected.any() and not expected.all()
        assert (result["masks"] != expected).mean() < 0.001  # where one half is met by rounding
    cx, cy, w, h = np.moveaxis(np.mean(boxes, 0), -1, 0)
    corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1).clip(0, 1)
    np.testing.assert_allclose(
        result["boxes"], corners * [width, HEIGHT, width, HEIGHT], rtol=1e-4, atol=1e-3
    )
    assert result["score"] == pytest.approx(np.mean(scores))


def test_short_clip_is_told_from_its_class(frames):
    model, clip, texts = perturbed_model(class_contrast=0.5), frames[:2], ["a dog", "wine glass"]
    pipe = ReferringVideoSegmentationPipeline(model=model, processor=tiny_processor(), device="cpu")
    size = {"height": HEIGHT, "width": WIDTH}
    pipe.processor.video_processor.size = size
    names = list(model.config.detector_config.id2label.values())
    with torch.no_grad():
        means = [mean_word(pipe, text, special=True) for text in texts]
        of_names = np.stack([mean_word(pipe, name, special=False) for name in names])
        cosines = means @ of_names.T / np.linalg.norm(of_names, axis=1)
        nearest = [names[k] for k in cosines.argmax(1)]
        inputs = pipe.processor(videos=clip, text=texts + nearest, return_tensors="pt")
        outputs = model(**inputs)
    said, general = outputs.referred_masks.numpy().reshape(2, 2, 2, HEIGHT // 4, WIDTH // 4)
    contrasted = 1.5 * said - 0.5 * general
    for k, result in enumerate(pipe(clip, texts)):
        pixels = bilinear(contrasted[k], HEIGHT, WIDTH)
        grid = pixels.reshape(2, HEIGHT // 4, 4, WIDTH // 4, 4).mean((2, 4))
        expected = bilinear(sigmoid(grid), HEIGHT, WIDTH) > 0.5
        assert (result["masks"] != expected).mean() < 0.001
        assert ((bilinear(said[k], HEIGHT, WIDTH) > 0) != expected).mean() > 0.02
        assert result["score"] == pytest.approx(outputs.referred_scores[k].item())
        assert result["boxes"].shape == (2, 4)
    model.config.class_contrast = 0.0
    plain = pipe(clip, texts)
    model.config.class_contrast = 0.5
    for asked, expected in zip(pipe(clip, texts, size=size), plain, strict=True):
        assert_same_result(asked, expected)


def mean_word(pipe: ReferringVideoSegmentationPipeline, text: str, special: bool) -> np.ndarray:
    """Mean of what the text encoder says of the tokens, with or without the first and the last."""
    inputs = pipe.processor(text=text, return_tensors="pt")
    hidden = pipe.model.model.text_encoder(**inputs)[0][0].numpy()
    return (hidden if special else hidden[1:-1]).mean(0)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def bilinear(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's enlargement of each map (n, h, w), the coordinates of whose pixels are centres."""
    resized = [Image.fromarray(each).resize((width, height), Image.BILINEAR) for each in maps]
    return np.stack([np.asarray(each) for each in resized])


def test_only_short_clips_are_seen_at_several_sizes(frames, monkeypatch):
    model = tiny_model(short_clip_scales=[1, 1.5])
    pipe = ReferringVideoSegmentationPipeline(model=model, processor=tiny_processor(), device="cpu")
    shapes, encode = [], model.get_video_features

    def spy(pixel_values_videos, **kwargs):
        shapes.append(tuple(pixel_values_videos.shape[1::2]))
        return encode(pixel_values_videos, **kwargs)

    monkeypatch.setattr(model, "get_video_features", spy)
    pipe(frames, "a dog", size={"height": 64, "width": 96})
    assert shapes == [(NUM_FRAMES, 64)]
    shapes.clear()
    pipe(np.concatenate([frames, frames[:2]]), "a dog")
    assert shapes == [(9, 32)]
    shapes.clear()
    pipe(frames, "a dog", window=4)
    assert shapes == [(4, 32), (3, 32)]
    shapes.clear()
    pipe(np.concatenate([frames, frames[:1]]), "a dog")
    assert shapes == [(8, 32), (8, 48)]


def test_list_of_requests(pipe, video, frames):
    requests = [{"video": video, "text": "a dog"}, {"video": frames[:2], "text": ["a cat", "b"]}]
    dog, cat_and_b = pipe(requests)
    assert_same_result(dog, pipe(video, "a dog"))
    assert_same_result(cat_and_b[0], pipe(frames[:2], "a cat"))
    assert pipe([]) == []


def test_generator_of_requests_is_consumed_one_by_one(pipe, video):
    taken = []

    def requests():
        for text in ("a dog", "a cat", "a car"):
            taken.append(text)
            yield {"video": video, "text": text}

    results = iter(pipe(requests()))
    assert next(results)["label"] == "a dog"
    assert "a car" not in taken
    assert [result["label"] for result in results] == ["a cat", "a car"]


class CountedFrames(Sequence):
    """Frames that are counted as they are read."""

    def __init__(self, frames: np.ndarray):
        self.frames, self.num_read = frames, 0

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:
        self.num_read += 1
        return self.frames[index]


def test_stream_reads_no_further_than_its_window(pipe, frames):
    video = CountedFrames(frames)
    stream = pipe.stream(video, "a dog", window=2)
    assert video.num_read == 0
    assert next(stream)["frame_indices"] == [0, 1]
    assert video.num_read == 3  # one more, to know that this window is not the last


def test_stream_joined_is_the_calls_result(pipe, video):
    parts = list(pipe.stream(video, ["a dog", "a cat"], window=3))
    assert [len(part[0]["masks"]) for part in parts] == [3, 3, 1]
    for row, expected in enumerate(pipe(video, ["a dog", "a cat"], window=3)):
        masks = np.concatenate([part[row]["masks"] for part in parts])
        np.testing.assert_array_equal(masks, expected["masks"])
        assert sum((part[row]["frame_indices"] for part in parts), []) == expected["frame_indices"]


def test_streams_that_take_turns_are_those_of_each_alone(pipe, video, frames):
    videos = (video, frames[::-1].copy())
    alone = [list(pipe.stream(each, "a dog", window=4)) for each in videos]
    in_turn = zip(*(pipe.stream(each, "a dog", window=4) for each in videos), strict=True)
    for parts, expected in zip(in_turn, zip(*alone, strict=True), strict=True):
        for part, other in zip(parts, expected, strict=True):
            assert_same_result(part, other)


@pytest.mark.parametrize("options", [{}, {"dtype": torch.float32}], ids=["plain", "with a dtype"])
def test_saved_pipeline_loads_again(checkpoint, options, video, tmp_path):
    pipe = pipeline(TASK, model=checkpoint, device="cpu", **options)
    pipe.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert "custom_pipelines" not in config
    loaded = pipeline(TASK, model=str(tmp_path / "saved"), device="cpu")
    assert_same_result(loaded(video, "a dog"), pipe(video, "a dog"))


def test_half_precision_model_takes_its_own_pixels(checkpoint, video):
    result = pipeline(TASK, model=checkpoint, device="cpu", dtype=torch.bfloat16)(video, "a dog")
    assert result["masks"].shape == (NUM_FRAMES, HEIGHT, WIDTH)


def test_default_model_is_a_folder_of_the_package(checkpoint, monkeypatch):
    default = PIPELINE_REGISTRY.supported_tasks[TASK]["default"]
    assert default["model"] == (str(DEFAULT_CHECKPOINT), None)
    monkeypatch.setitem(default, "model", (checkpoint, None))
    assert isinstance(pipeline(TASK, device="cpu"), ReferringVideoSegmentationPipeline)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("VIDEO",), {}, "an expression is missing"),
        (("VIDEO", " \t"), {}, "blank"),
        (("VIDEO", []), {}, "no expression"),
        (("VIDEO", "a dog"), {"window": 0}, "window must be at least 1 frame"),
        (("VIDEO", "a dog"), {"batch_size": 2}, "batch_size must be 1"),
        (("VIDEO", "a dog"), {"num_workers": 1}, "num_workers must be 0"),
        (("VIDEO", "a dog"), {"stride": 2, "num_frames": 3}, "one of fps, num_frames and stride"),
        (("missing.mp4", "a dog"), {}, "missing.mp4"),
        (([], "a dog"), {}, "no frames"),
        ((np.zeros((0, 8, 8, 3), np.uint8), "a dog"), {}, "no frames"),
        ((np.zeros((2, 8, 8, 4), np.uint8), "a dog"), {}, "channels"),
    ],
)
def test_bad_input_is_refused(pipe, video, arguments, options, message):
    arguments = [video if isinstance(item, str) and item == "VIDEO" else item for item in arguments]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pipe(*arguments, **options)


def test_unknown_parameter_is_refused(pipe, video):
    with pytest.raises(TypeError, match="unknown pipeline parameter: frames"):
        pipe(video, "a dog", frames=3)
