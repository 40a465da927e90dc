# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from proxyformer_hf.data.moving_shapes import generate_video
from proxyformer_hf.data.shape_expressions import KINDS
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from tests.tiny_model import TINY_TIMM, tiny_model, tiny_processor

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.append(str(SCRIPTS))
import pretrain_shapes as script  # noqa: E402

LOOK = {"stride": 16, "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.5, 1.0]}


def named_clips(length: int = 10, num_frames: int = 5, only_shapes: float = 0.0):
    return script.NamedClips("valid", length, num_frames, only_shapes, **LOOK)


def reading_model(**fields) -> ProxyFormerForReferringSegmentation:
    return tiny_model(
        vision_config=TINY_TIMM,
        encoded_stride=16,
        temporal_convolution=True,
        grounding_map=True,
        text_to_video=True,
        **fields,
    )


def cells(mask: np.ndarray, stride: int) -> np.ndarray:
    """How many of its pixels (T, height, width) lie in each stride x stride cell."""
    counts = np.zeros((len(mask), mask.shape[1] // stride, mask.shape[2] // stride))
    for frame, row, column in np.argwhere(mask):
        counts[frame, row // stride, column // stride] += 1
    return counts


@pytest.mark.parametrize("num_frames", [1, 5])
@pytest.mark.parametrize("only_shapes", [False, True])
def test_a_clip_comes_with_its_objects_and_what_is_said_of_them(only_shapes: bool, num_frames: int):
    clip = named_clips(10, num_frames, 1.0 if only_shapes else 0.0)[7]

    video = generate_video(7, "valid", num_frames=num_frames, seed=1, only_shapes=only_shapes)
    scaled = video.frames / 255
    expected = (scaled - np.array(LOOK["mean"])) / np.array(LOOK["std"])
    np.testing.assert_allclose(clip.pixels.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    shown = [
        (number, one)
        for number, one in enumerate(video.scene.objects, start=1)
        if (video.object_map == number).any()
    ]
    assert clip.counts == [len(shown)]
    for (number, one), spread, cover, values in zip(
        shown, clip.spread, clip.cover, clip.names.tolist(), strict=True
    ):
        mask = video.object_map == number
        np.testing.assert_allclose(spread.numpy(), cells(mask, 16) / mask.sum(), atol=1e-6)
        np.testing.assert_allclose(cover.numpy(), cells(mask, 4) / 16, atol=1e-6)
        said = dict(zip(script.NAMES, values, strict=True))
        motion = said.pop("motion")
        if num_frames == 1:
            assert motion == script.UNNAMED
        else:
            way = " ".join(filter(None, (one.motion, one.direction)))
            assert script.NAMES["motion"][motion] == way
        for name, value in said.items():
            known = script.NAMES[name][value] if value != script.UNNAMED else ""
            assert known == getattr(one, name)
    for expression, text, meant in zip(
        video.expressions, clip.texts[0], clip.meant[0].tolist(), strict=True
    ):
        assert text == expression.text
        assert shown[meant][0] == expression.object_id


def test_a_frame_is_named_from_the_places_of_its_objects():
    reader = script.FrameReader(reading_model()).eval()
    clips = named_clips(3, num_frames=1)

    names = torch.cat(reader(script.collate([clips[i] for i in range(3)])).names, dim=1)

    expected = []
    for i in range(3):
        features = reader.backbone(clips[i].pixels).feature_maps[2][0]  # of stride 16
        expected += [
            nn.Linear.forward(reader.classifier, (features * spread[0]).sum((1, 2)))
            for spread in clips[i].spread
        ]
    torch.testing.assert_close(names, torch.stack(expected))


def test_a_batch_reads_as_each_of_its_clips_does():
    reader = script.ClipReader(reading_model(), tiny_processor()).eval()
    clips = named_clips(3)

    together = reader(script.collate([clips[i] for i in range(3)]))
    alone = [reader(script.collate([clips[i]])) for i in range(3)]

    torch.testing.assert_close(together.masks, torch.cat([one.masks for one in alone]))
    for name, scores in enumerate(together.names):
        torch.testing.assert_close(scores, torch.cat([one.names[name] for one in alone]))
    for choices, one in zip(together.choices, alone, strict=True):
        assert choices.shape == (len(KINDS), len(one.masks))
        torch.testing.assert_close(choices, one.choices[0])


def test_the_choice_is_that_of_the_models_own_grounding_map():
    model, processor = reading_model(), tiny_processor()
    clip = named_clips()[4]

    choices = script.ClipReader(model, processor).eval()(clip._replace(pixels=clip.pixels[None]))

    inputs = processor(text=clip.texts, return_tensors="pt")
    outputs = model.model(pixel_values_videos=clip.pixels[None], **inputs)
    for scores, logits in zip(choices.choices[0], outputs.grounding_logits, strict=True):
        for score, spread in zip(scores, clip.spread, strict=True):
            assert score.item() == pytest.approx((logits * spread).sum().item(), abs=1e-5)


def test_the_loss_asks_for_names_choices_and_outlines():
    generator = torch.Generator().manual_seed(0)
    clips = named_clips(2)
    batch = script.collate([clips[i] for i in range(2)])
    batch.names[0, 3] = script.UNNAMED  # a size that changes
    count = sum(batch.counts)
    names = tuple(
        torch.randn(count, len(values), generator=generator) for values in script.NAMES.values()
    )
    masks = torch.randn(batch.cover.shape, generator=generator)
    choices = [torch.randn(len(KINDS), own, generator=generator) for own in batch.counts]

    loss = script.reading_loss(script.Readings(names, masks, choices), batch)

    expected = 0.0
    for weight, scores, values in zip(
        script.WEIGHTS.values(), names, batch.names.T.tolist(), strict=True
    ):
        terms = [
            -F.softmax(row, 0)[value].log().item()
            for row, value in zip(scores, values, strict=True)
            if value != script.UNNAMED
        ]
        expected += weight * sum(terms) / len(terms)
    chosen = [
        -F.softmax(row, 0)[meant].log().item()
        for scores, own in zip(choices, batch.meant.tolist(), strict=True)
        for row, meant in zip(scores, own, strict=True)
    ]
    expected += sum(chosen) / len(chosen)
    drawn, cover = masks.sigmoid().double(), batch.cover.double()
    entropy = -(cover * drawn.log() + (1 - cover) * (1 - drawn).log())
    dice = [
        1 - (2 * (ours * theirs).sum() + 1) / ((ours**2).sum() + (theirs**2).sum() + 1)
        for ours, theirs in zip(drawn, cover, strict=True)
    ]
    expected += entropy.mean().item() + sum(dice).item() / count
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_words_that_are_silenced_do_not_change_the_video():
    model, processor = reading_model(), tiny_processor()
    pixels = named_clips()[2].pixels[None]

    def videos() -> torch.Tensor:
        inputs = processor(text=[["red star", "the lowest one"]], padding=True, return_tensors="pt")
        return model.model(pixel_values_videos=pixels, **inputs).last_hidden_state

    first, second = videos()
    assert (first - second).abs().max() > 1e-3
    script.silence_words(model)
    first, second = videos()
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.fixture
def new_process():
    """Accelerate keeps the precision that a process began with: other tests have another one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.mark.usefixtures("new_process")
def test_a_recipe_starts_from_what_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        f"base: [{SCRIPTS / 'recipes/moving_shapes_stills.yaml'}]\n"
        "model: {config: {hidden_size: 32, num_hidden_layers: 1}}\n"
        "data: [{name: moving-shapes, num_frames: 1, transform: null, expressions: 3,"
        " options: {num_videos: 20}}]\n"
    )

    script.main(recipe, tmp_path / "start", frame_steps=2, clip_steps=2, batch_size=2, workers=0)

    told = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    frames, clips = list(script.NAMES)[:-1], list(script.NAMES)
    assert told == [*frames, *clips, *(f"chosen by {kind}" for kind in KINDS), "mask"]
    settings = script.load_recipe(recipe, None, [f"model.start_from={tmp_path / 'start'}"])
    model, processor = script.build_model(settings)
    assert isinstance(processor, ProxyFormerProcessor)
    assert model.model.video_encoder.temporal_convolution.weight.abs().max() > 0
    assert model.model.encoder.layers[0].text_to_video.attention.o_proj.weight.abs().max() == 0
