# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from proxyformer_hf.data.clips import ClipRecipe
from proxyformer_hf.data.referring_clips import ReferringClips
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.training.agreement import ignore_stop_signals
from proxyformer_hf.training.datasets import (
    ClipSize,
    batches_per_epoch,
    fixed_clips,
    largest_clip,
    training_dataset,
    training_expressions,
    training_loader,
)
from proxyformer_hf.training.recipe import DataRecipe, Recipe, RunRecipe, ValidationRecipe
from tests.tiny_model import save_tiny_checkpoint, tiny_model
from tests.toy_data import make_data_folder

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

SHAPES = DataRecipe(
    "moving-shapes",
    options={"num_videos": 11, "height": 64, "width": 64},
    num_frames=3,
    transform=None,
    expressions=3,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in ("ref-youtube-vos", "refcoco"):
        write_fixture(name, root / name)
    make_data_folder(root / "toy")
    return root


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_checkpoint(folder)
    return ProxyFormerProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def joint(data) -> Recipe:
    """Two sources: one of images as clips, one of videos."""
    size = {"short_sides": [32, 40], "max_size": 64}
    return Recipe(
        data=[
            DataRecipe("refcoco", str(data / "refcoco"), num_frames=3, transform=size),
            DataRecipe(
                "ref-youtube-vos",
                str(data / "ref-youtube-vos"),
                num_frames=3,
                transform=size,
                expressions=2,
            ),
        ],
        run=RunRecipe(max_steps=1, batch_size=2, num_workers=0),
    )


def with_run(recipe: Recipe, **fields) -> Recipe:
    run = RunRecipe(**{"max_steps": 1, "batch_size": 2, "num_workers": 0} | fields)
    return Recipe(data=recipe.data, run=run)


def order(dataset, recipe: Recipe, **place) -> list[list[int]]:
    """Indices of the samples of each batch; nothing is decoded."""
    return list(training_loader(dataset, recipe, None, **place).batch_sampler)


def equal(first: dict, second: dict) -> bool:
    assert first.keys() == second.keys()
    return first["ids"] == second["ids"] and all(
        torch.equal(first[name], second[name]) for name in first if name != "ids"
    )


def test_processes_share_the_order_of_one():
    recipe = Recipe(data=[SHAPES], run=RunRecipe(max_steps=1, batch_size=2))
    dataset = training_dataset(recipe)
    parts = [
        order(dataset, recipe, epoch=3, num_processes=2, process_index=index) for index in (0, 1)
    ]
    assert [len(part) for part in parts] == [2, 2]  # 8 of 11 samples
    together = [index for pair in zip(*parts, strict=True) for batch in pair for index in batch]
    assert len(set(together)) == 8
    alone = [index for batch in order(dataset, recipe, epoch=3) for index in batch]
    assert len(alone) == 10 and alone[:8] == together
    permutation = np.random.default_rng((0, 3)).permutation(11)
    assert alone == permutation[:10].tolist()


def test_an_epoch_is_a_whole_number_of_updates():
    recipe = Recipe(data=[SHAPES])
    dataset = training_dataset(recipe)
    for batch_size, steps, processes, batches in ((1, 1, 1, 11), (2, 2, 1, 4), (1, 3, 2, 3)):
        run = {"batch_size": batch_size, "gradient_accumulation_steps": steps}
        other = with_run(recipe, **run)
        assert batches_per_epoch(dataset, other, processes) == batches
        assert len(training_loader(dataset, other, None, epoch=0, num_processes=processes)) == (
            batches
        )
    with pytest.raises(ValueError, match="11 samples, fewer than the 12 .*batch_size 2.*steps 3"):
        batches_per_epoch(dataset, with_run(recipe, gradient_accumulation_steps=3), 2)


def test_epochs_and_seeds_have_their_own_order_and_samples(processor):
    recipe = Recipe(data=[SHAPES], run=RunRecipe(max_steps=1, batch_size=2, num_workers=0))
    dataset = training_dataset(recipe)
    assert order(dataset, recipe, epoch=1) == order(dataset, recipe, epoch=1)
    assert order(dataset, recipe, epoch=1) != order(dataset, recipe, epoch=2)
    seeded = with_run(recipe, seed=1)
    assert order(dataset, recipe, epoch=1) != order(training_dataset(seeded), seeded, epoch=1)
    ids = [
        {
            name
            for batch in training_loader(dataset, recipe, processor, epoch=e)
            for name in batch["ids"]
        }
        for e in (0, 1)
    ]
    assert len(ids[0]) == len(ids[1]) == 10 and not ids[0] & ids[1]


def test_a_loader_goes_on_from_a_batch_without_the_samples_before(joint, processor, monkeypatch):
    dataset = training_dataset(joint)
    whole = list(training_loader(dataset, joint, processor, epoch=1))
    read = []
    for source in dataset.sources.values():
        draw = type(source)._sample
        monkeypatch.setattr(
            source, "_sample", lambda i, rng, s=source, f=draw: read.append(i) or f(s, i, rng)
        )
    first = len(whole) - 3
    rest = list(training_loader(dataset, joint, processor, epoch=1, first_batch=first))
    assert len(rest) == 3 and all(map(equal, rest, whole[first:]))
    assert len(read) < 2 * 3 + 5  # a sample may be drawn again
    assert not list(training_loader(dataset, joint, processor, epoch=1, first_batch=len(whole)))


def test_workers_give_the_batches_that_the_process_itself_gives(joint, processor):
    batches = []
    for num_workers in (0, 2):
        recipe = with_run(joint, num_workers=num_workers)
        dataset = training_dataset(recipe)
        before = torch.get_rng_state()
        loader = training_loader(dataset, recipe, processor, epoch=2)
        assert loader.worker_init_fn is ignore_stop_signals
        batches.append(list(islice(loader, 4)))
        assert torch.equal(torch.get_rng_state(), before)
    assert all(map(equal, *batches))


def test_sources_are_mixed_and_images_move(joint, processor):
    dataset = training_dataset(joint)
    assert [*dataset.sources] == ["data.0 (refcoco train)", "data.1 (ref-youtube-vos train)"]
    images, videos = dataset.sources.values()
    assert len(dataset) == len(images) + len(videos)
    assert isinstance(images, ReferringClips) and len(images) == 12
    frames = images[0]["frames"]
    assert len(frames) == 3 and not torch.equal(frames[0], frames[1])
    seen, counts = set(), set()
    for batch in training_loader(dataset, joint, processor, epoch=0):
        names = {name.split("/")[0] for name in batch["ids"]}
        seen.add(frozenset(names))
        rows, clips = len(batch["input_ids"]), len(batch["pixel_values_videos"])
        assert rows % clips == 0 and batch["mask_labels"].shape[0] == rows
        if "ref-youtube-vos" in names:
            counts.add(rows // clips)
        unknown = batch["mask_labels"].flatten(1).eq(-1).all(1)
        known = (~unknown).unflatten(0, (clips, -1)).sum(1)
        assert known.ge(1).all()
    assert frozenset({"refcoco", "ref-youtube-vos"}) in seen and 2 in counts


def test_a_model_takes_a_batch_without_its_ids(joint, processor):
    dataset = training_dataset(joint)
    batch = next(iter(training_loader(dataset, joint, processor, epoch=0)))
    assert len(batch.pop("ids")) == 2
    assert torch.isfinite(tiny_model().train()(**batch).loss)


def test_images_in_pretraining_do_not_move(data):
    recipe = Recipe(data=[DataRecipe("refcoco", str(data / "refcoco"), num_frames=1)])
    (source,) = training_dataset(recipe).sources.values()
    assert source[0]["frames"].shape[0] == 1
    assert not any("ImageMotion" in str(part) for part in source.transform.transforms)


def test_stills_and_videos_have_an_epoch_of_their_own(data, processor):
    clips = ClipRecipe(video_size=(48, 80), image_size=(56, 72))
    told = DataRecipe("stills-and-videos", str(data / "toy"), clips=clips)
    assert len(training_dataset(Recipe(data=[told]))) == 4000
    told.options = {"num_samples": 6}
    recipe = Recipe(data=[told], run=RunRecipe(max_steps=1, batch_size=2, num_workers=0))
    dataset = training_dataset(recipe)
    batches = list(training_loader(dataset, recipe, processor, epoch=5))
    assert len(batches) == 3
    names = sorted(name for batch in batches for name in batch["ids"])
    assert names == [f"stills-and-videos/5/{index}" for index in range(6)]
    assert all(batch["mask_labels"].shape[0] == 6 for batch in batches)


def test_vocabulary_comes_from_rows_and_from_samples(data):
    shapes = DataRecipe(**vars(SHAPES) | {"options": SHAPES.options | {"num_videos": 2}})
    refcoco = DataRecipe("refcoco", str(data / "refcoco"))
    dataset = training_dataset(Recipe(data=[shapes, refcoco]))
    made, images = dataset.sources.values()
    expected = made[0]["expressions"] + made[1]["expressions"] + list(images.rows["expression"])
    assert list(training_expressions(dataset)) == expected


@pytest.mark.parametrize(
    ("batch_size", "sources", "largest"),
    [
        (1, {"transform": "video"}, ClipSize(3, 512, 640, 2)),
        (2, {"transform": "video"}, ClipSize(3, 640, 640, 2)),
        (1, {"transform": "image"}, ClipSize(3, 768, 800, 2)),
        (2, {"transform": {"short_sides": [24, 32], "max_size": 48}}, ClipSize(3, 48, 48, 2)),
        (1, {"transform": None}, ClipSize(3, 72, 96, 2)),  # heights of 64 and 72
    ],
)
def test_the_largest_clip_is_what_the_transform_can_give(data, batch_size, sources, largest):
    folder = str(data / "ref-youtube-vos")
    told = DataRecipe("ref-youtube-vos", folder, num_frames=3, expressions=2, **sources)
    recipe = Recipe(data=[told], run=RunRecipe(max_steps=1, batch_size=batch_size))
    assert largest_clip(training_dataset(recipe), recipe) == largest


def test_the_largest_batch_of_several_sources_holds_them_all(data):
    clips = ClipRecipe(video_size=(48, 80), image_size=(56, 72), paired_size=(40, 90))
    toy = DataRecipe("stills-and-videos", str(data / "toy"), clips=clips)
    for batch_size, largest in ((2, ClipSize(3, 72, 90, 3)), (1, ClipSize(3, 64, 64, 3))):
        recipe = Recipe(data=[toy, SHAPES], run=RunRecipe(max_steps=1, batch_size=batch_size))
        assert largest_clip(training_dataset(recipe), recipe) == largest


def test_fixed_clips_are_of_the_validation_split_and_the_protocols_size(data):
    recipe = Recipe(
        data=[SHAPES],
        validation=ValidationRecipe(
            "refcoco", "per-expression", str(data / "refcoco"), split="testA"
        ),
    )
    (sample,) = fixed_clips(recipe, 5)  # one image
    assert sample["frames"].shape == (5, 3, 360, 540)
    assert sample["masks"].shape == (1, 5, 360, 540) and sample["masks"].any()
    assert len(sample["expressions"]) == 1 and sample["id"].startswith("refcoco/COCO")
    folder = str(data / "ref-youtube-vos")
    recipe.validation = ValidationRecipe("ref-youtube-vos", data_dir=folder)
    samples = fixed_clips(recipe, 2)
    for k, (sample, video) in enumerate(zip(samples, ("0062f687f1", "00f88c4f0a"), strict=True)):
        assert sample["id"].startswith(f"ref-youtube-vos/{video}/{k}@")  # another expression each


def test_fixed_clips_of_the_development_videos(data, monkeypatch):
    monkeypatch.setattr("proxyformer_hf.training.datasets.DEV_VIDEOS", ("bus", "boat"))
    validation = ValidationRecipe("dev", data_dir=str(data / "toy"))
    (sample,) = fixed_clips(Recipe(data=[SHAPES], validation=validation), 1)
    assert sample["frames"].shape == (5, 3, 192, 342) and sample["masks"].shape[:2] == (1, 5)
    assert sample["expressions"] == ["a bus moving to the right"]
    assert sample["masks"][0].flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"name": "refcoc"}, r"data.1 \(refcoc train\): there is no data set 'refcoc'"),
        ({"name": "mevis", "data_dir": "nowhere"}, r"data.1 \(mevis train\): .*nowhere is no fol"),
        ({"name": "mevis"}, r"data.1 \(mevis train\): mevis needs data_dir"),
        ({"name": "moving-shapes", "options": {"hight": 1}}, r"data.1 \(moving.*argument 'hight'"),
        ({"name": "moving-shapes", "split": "valid"}, r"data.1 \(moving-shapes valid\): .* train"),
        ({"name": "stills-and-videos", "data_dir": "nowhere"}, r"data.1 \(stills.*No such file"),
    ],
)
def test_a_wrong_source_is_named_by_its_place_in_the_recipe(told, message):
    with pytest.raises(ValueError, match=message):
        training_dataset(Recipe(data=[SHAPES, DataRecipe(**told)]))
