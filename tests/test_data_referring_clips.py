# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from proxyformer_hf.data.clips import ClipCollator
from proxyformer_hf.data.decoding import read_frames, read_masks
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.moving_shapes import generate_video
from proxyformer_hf.data.records import NO_MASKS, DataError
from proxyformer_hf.data.referring_clips import MovingShapesClips, ReferringClips
from proxyformer_hf.data.transforms import PhotometricDistortion, RandomMirror, RandomShortSide
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from tests.tiny_model import perturb, save_tiny_checkpoint, tiny_model

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Rows of a benchmark in miniature and their folder."""
    root = tmp_path_factory.mktemp("data")

    def rows_and_folder(name: str, split: str = "train"):
        folder = root / name
        if not folder.exists():
            write_fixture(name, folder)
        return load_rvos_dataset(name, folder, split, cache_dir=root / "cache"), folder

    return rows_and_folder


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_checkpoint(folder)
    return ProxyFormerProcessor.from_pretrained(folder)


def small_augmentation() -> v2.Compose:
    return v2.Compose([RandomMirror(), RandomShortSide((40, 48, 64), 80), PhotometricDistortion()])


def equal(first: dict, second: dict) -> bool:
    return first["expressions"] == second["expressions"] and all(
        torch.equal(first[name], second[name]) for name in ("frames", "masks", "annotated")
    )


def places(sample: dict, frames: torch.Tensor) -> list[int]:
    """Indices in the video of the frames of a sample that was not transformed."""
    return [[torch.equal(own, frame) for frame in frames].index(True) for own in sample["frames"]]


def test_every_expression_gives_a_clip_around_each_nth_frame(load):
    rows, folder = load("ref-youtube-vos")
    clips = ReferringClips(rows, folder, num_frames=3)
    index = replaced = 0
    for row in rows:
        everywhere = range(row["num_frames"])
        frames = read_frames(folder, row, everywhere)
        masks, _ = read_masks(folder, row, everywhere)
        for centre in range(0, row["num_frames"], 3):
            sample, index = clips[index], index + 1
            if sample["expressions"] != [row["expression"]]:  # does not show its object
                replaced += 1
                continue
            found = places(sample, frames)
            assert found == sorted(found) and centre in found
            assert {abs(place - centre) for place in found} <= {0, 1, 2, 3}
            assert torch.equal(sample["masks"], masks[found][None]) and sample["masks"].any()
            assert sample["annotated"].all()
    assert index == len(clips) == sum(math.ceil(length / 3) for length in rows["num_frames"])
    assert replaced < 0.2 * len(clips)


@pytest.mark.parametrize("training", [True, False])
def test_clips_of_a2d_hold_their_annotated_frame(load, training):
    rows, folder = load("a2d-sentences")
    clips = ReferringClips(rows, folder, num_frames=5, training=training)
    assert len(clips) == len(rows)
    for index, row in enumerate(rows):
        sample = clips[index]
        masks, _ = read_masks(folder, row, row["annotated"])
        if sample["expressions"] != [row["expression"]]:
            assert training
            continue
        shown = sample["annotated"]
        assert shown.any() and not sample["masks"][:, ~shown].any()
        assert all(torch.equal(mask, masks[0]) for mask in sample["masks"][0, shown])
        if not training:
            (centre,) = row["annotated"]
            window = [min(max(centre + k, 0), row["num_frames"] - 1) for k in range(-2, 3)]
            assert torch.equal(sample["frames"], read_frames(folder, row, window))


def test_samples_depend_on_seed_epoch_and_index_alone(load):
    rows, folder = load("ref-youtube-vos")

    def clips(epoch: int, seed: int = 0) -> ReferringClips:
        made = ReferringClips(rows, folder, 4, small_augmentation(), seed=seed)
        made.set_epoch(epoch)
        return made

    before = torch.get_rng_state()
    reference = clips(epoch=1)
    in_order = [reference[index] for index in range(6)]
    torch.rand(7)
    resumed = clips(epoch=1)
    assert equal(resumed[4], in_order[4]) and equal(resumed[2], in_order[2])
    for other in (clips(epoch=2), clips(epoch=1, seed=1)):
        assert not any(equal(other[index], in_order[index]) for index in range(6))
    torch.set_rng_state(before)
    reference[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_persistent_workers_give_the_same_and_see_the_epoch(load):
    rows, folder = load("ref-youtube-vos")
    clips = ReferringClips(rows.select(range(6)), folder, 4, small_augmentation())
    workers = DataLoader(clips, None, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        clips.set_epoch(epoch)
        found = [*workers]
        assert len(found) == len(clips)
        assert all(equal(sample, clips[index]) for index, sample in enumerate(found))


def test_a_sample_without_its_object_is_replaced_in_training_only(load):
    rows, folder = load("ref-youtube-vos")
    lost = rows[0]["expression"]

    def lose(sample: dict) -> dict:
        kept = sample["expressions"] != [lost]
        return sample | {"masks": sample["masks"] * kept}

    clips = ReferringClips(rows, folder, 3, lose)
    expressions = {clips[index]["expressions"][0] for index in range(len(clips))}
    assert lost not in expressions and len(expressions) > 1
    first = ReferringClips(rows, folder, 3, lose, training=False)[0]
    assert first["expressions"] == [lost] and not first["masks"].any()
    with pytest.raises(DataError, match=f"none of 100 random samples of {folder}"):
        ReferringClips(rows.select([0]), folder, 3, lose)[0]


def test_rows_without_masks_give_no_clips(load):
    rows, folder = load("ref-youtube-vos")
    hidden = rows.map(lambda row: {"annotated": [], "masks": NO_MASKS})
    with pytest.raises(DataError, match="none of the 12 rows has masks"):
        ReferringClips(hidden, folder, 3)


def test_several_expressions_share_the_clip_of_their_video(load):
    rows, folder = load("ref-youtube-vos")  # four expressions a video
    clips = ReferringClips(rows, folder, num_frames=1, expressions=3)
    assert len(clips) == 2 * (8 + 7 + 2)
    by_id = {(row["video_id"], row["expression_id"]): row for row in rows}
    left_out = 0
    for sample in map(clips.__getitem__, range(len(clips))):
        _, video, shown = sample["id"].split("/")
        expressions, frames = shown.split("@")
        indices = [int(i) for i in frames.split(",")]
        said = [by_id[video, i] for i in expressions.split("+")]
        assert len(said) == 3 and len({row["expression_id"] for row in said}) == 3
        assert torch.equal(sample["frames"], read_frames(folder, said[0], indices))
        masks = {row["expression"]: read_masks(folder, row, indices)[0] for row in said}
        kept = [row["expression"] for row in said if masks[row["expression"]].any()]
        assert sample["expressions"] == kept  # those that the clip does not show are left out
        left_out += 3 - len(kept)
        for text, mask in zip(kept, sample["masks"], strict=True):
            assert torch.equal(mask, masks[text])
    assert left_out > 0


def test_all_expressions_come_in_turn_in_new_groups_each_epoch(load):
    rows, folder = load("ref-youtube-vos")
    rows = rows.filter(lambda row: row["video_id"] == rows[0]["video_id"])
    clips = ReferringClips(rows, folder, num_frames=8, expressions=2)
    groups = set()
    for epoch in range(6):
        clips.set_epoch(epoch)
        said = [{row["expression_id"] for row in clips._rows(index)[0]} for index in range(2)]
        assert said[0] | said[1] == {"0", "1", "2", "3"}
        groups.add(frozenset(map(frozenset, said)))
    assert len(clips) == 2 and len(groups) > 1


def test_more_expressions_than_a_video_has_are_those_that_it_has(load):
    rows, folder = load("a2d-sentences")
    clips = ReferringClips(rows, folder, 5, training=False, expressions=10)
    frames = {(row["video_id"], *row["annotated"]) for row in rows}
    assert len(clips) == len(frames)
    counts = [len(clips[index]["expressions"]) for index in range(len(clips))]
    assert sum(counts) == len(rows) and max(counts) > 1


def test_consecutive_sampling_takes_neighbouring_frames(load):
    rows, folder = load("a2d-sentences")
    clips = ReferringClips(rows, folder, 5, sampling="consecutive")
    for index in range(len(clips)):
        sample = clips[index]
        frames = [int(i) for i in sample["id"].split("@")[-1].split(",")]
        assert frames == list(range(frames[0], frames[0] + 5)) and sample["annotated"].any()


def test_moving_shapes_clips_are_the_generators_videos_without_end():
    clips = MovingShapesClips(5, seed=3, num_videos=2, height=64, width=80)
    assert len(clips) == 2
    for epoch in (0, 4):
        clips.set_epoch(epoch)
        sample, video = clips[1], generate_video(2 * epoch + 1, "train", 64, 80, 5, seed=3)
        frames = sample["frames"].permute(0, 2, 3, 1)
        assert torch.equal(frames, torch.from_numpy(video.frames))
        assert sample["expressions"] == [said.text for said in video.expressions]
        assert sample["id"].endswith(f"-{2 * epoch + 1:06d}/attribute+position+relation+motion")
        for mask, said in zip(sample["masks"], video.expressions, strict=True):
            assert torch.equal(mask.bool(), torch.from_numpy(video.object_map == said.object_id))


def test_a_share_of_moving_shapes_clips_differs_in_shapes_alone():
    size = {"height": 64, "width": 80}
    clips = MovingShapesClips(1, num_videos=24, only_shapes=0.5, **size)
    alone = 0
    for index in range(24):
        sample = clips[index]["frames"].permute(0, 2, 3, 1).numpy()
        kinds = [generate_video(index, num_frames=1, only_shapes=k, **size) for k in (False, True)]
        (which,) = (k for k, video in enumerate(kinds) if np.array_equal(video.frames, sample))
        alone += which
    assert 6 <= alone <= 18
    with pytest.raises(ValueError, match=r"a share in \[0, 1\], got 50"):
        MovingShapesClips(1, only_shapes=50)


def test_fewer_expressions_of_moving_shapes_are_motion_and_others_drawn():
    kinds, clips = set(), MovingShapesClips(5, expressions=2, num_videos=8, height=64, width=64)
    for index in range(8):
        sample = clips[index]
        drawn, motion = sample["id"].split("/")[-1].split("+")
        assert len(sample["expressions"]) == len(sample["masks"]) == 2
        assert motion == "motion"
        kinds.add(drawn)
    assert kinds == {"attribute", "position", "relation"}
    clips = MovingShapesClips(1, expressions=2, num_videos=8, height=64, width=64)
    said = {kind for index in range(8) for kind in clips[index]["id"].split("/")[-1].split("+")}
    assert said == {"attribute", "position", "relation"}  # a single frame shows no motion


def clip(num_frames: int, height: int, width: int, hidden: int = -1) -> dict:
    """A sample of noise with a rectangle, one frame of it perhaps not annotated."""
    generator = torch.Generator().manual_seed(height)
    masks = torch.zeros(1, num_frames, height, width, dtype=torch.uint8)
    masks[..., 9:30, 11:37] = 1
    annotated = torch.arange(num_frames) != hidden
    return {
        "frames": torch.randint(
            0, 256, (num_frames, 3, height, width), dtype=torch.uint8, generator=generator
        ),
        "masks": masks * annotated[:, None, None],
        "annotated": annotated,
        "expressions": [f"the box {'abcdefgh'[:num_frames]}"],
    }


def test_collator_pads_frames_and_labels(processor):
    samples = [clip(3, 64, 96, hidden=1), clip(5, 50, 120)]
    batch = ClipCollator(processor)(samples)
    assert batch["pixel_values_videos"].shape == (2, 5, 3, 64, 120)
    assert batch["mask_labels"].shape == (2, 5, 64, 120)
    expected = torch.full((2, 5, 64, 120), -1)
    expected[0, :3, :64, :96] = samples[0]["masks"].int()
    expected[0, 1] = -1
    expected[1, :5, :50, :120] = samples[1]["masks"].int()
    assert torch.equal(batch["mask_labels"].int(), expected)
    assert batch["frame_mask"].tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert batch["pixel_mask"].sum((1, 2)).tolist() == [64 * 96, 50 * 120]
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    pixels = (samples[1]["frames"] / 255 - mean) / std
    assert torch.allclose(batch["pixel_values_videos"][1, :, :, :50], pixels, atol=1e-5)
    assert not batch["pixel_values_videos"][0, 3:].any()
    assert batch["attention_mask"].sum(1).tolist() == [
        len(processor.tokenizer(sample["expressions"][0])["input_ids"]) for sample in samples
    ]


def test_collator_leaves_the_samples_as_they_are(processor):
    sample = clip(3, 64, 96, hidden=1) | {"masks": torch.ones(1, 3, 64, 96, dtype=torch.int8)}
    ClipCollator(processor)([sample])
    assert sample["masks"].eq(1).all()


def test_loss_of_a_padded_batch_is_that_of_its_clips(processor):
    """Matched terms are sums over clips divided by the visible frames, the other two are means;
    only the contrast between clips (jsc) has no counterpart in single ones."""
    fields = {"jsc_loss_coefficient": 0.0, "soft_selection": True, "grounding_map": True}
    model, collate = perturb(tiny_model(**fields)), ClipCollator(processor)
    samples = [clip(3, 64, 96, hidden=1), clip(5, 50, 120), clip(2, 40, 40)]
    visible = torch.tensor([2, 5, 2]) / 9
    with torch.no_grad():
        batch = model(**collate(samples)).loss_dict
        single = [model(**collate([sample])).loss_dict for sample in samples]
    assert {"loss_class", "loss_giou", "loss_mask", "loss_selection", "loss_grounding"} <= {*batch}
    for name, value in batch.items():
        terms = torch.stack([losses[name] for losses in single])
        averaged = name in ("loss_selection", "loss_grounding")
        expected = terms.mean() if averaged else (terms * visible).sum()
        assert value == pytest.approx(expected.item(), rel=1e-5), name


def test_a_step_on_a_batch_from_workers_lowers_its_loss(load, processor):
    rows, folder = load("a2d-sentences")
    clips = ReferringClips(rows, folder, 3, small_augmentation())
    batches = []
    for num_workers in (0, 2):
        loader = DataLoader(
            clips, 3, collate_fn=ClipCollator(processor), num_workers=num_workers, shuffle=False
        )
        batches.append(next(iter(loader)))
    assert batches[0].keys() == batches[1].keys()
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])
    assert (batches[0]["mask_labels"] == -1).flatten(2).all(-1).any()  # frames not annotated

    model = tiny_model().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        loss = model(**batches[0]).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert math.isfinite(losses[0]) and losses[1] < losses[0]
