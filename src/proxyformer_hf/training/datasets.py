# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""From a recipe to batches: the sources of training clips, their order and their shares.

A sample depends on (seed, epoch, index) alone and the order of an epoch on (seed, epoch), so that a
run goes on from any batch as if it had not stopped, whatever the number of workers.
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..data.clips import ClipCollator, TrainingClips
from ..data.load import load_rvos_dataset
from ..data.pseudo_clips import ImageMotion
from ..data.referring_clips import MovingShapesClips, ReferringClips
from ..data.seeded import Sample, SeededDataset
from ..data.sources import DEV_VIDEOS, LabelledVideo, load_images, load_videos
from ..data.transforms import (
    RandomShortSide,
    image_pretraining_transform,
    largest_sides,
    paper_transform,
    training_transform,
)
from ..evaluation.protocols import find_protocol
from ..processing_proxyformer import ProxyFormerProcessor
from .agreement import ignore_stop_signals
from .recipe import DataRecipe, Recipe

STILLS_AND_VIDEOS = "stills-and-videos"
MOVING_SHAPES = "moving-shapes"
EPOCH_SAMPLES = 4000  # of stills-and-videos, unless its options tell num_samples
TRANSFORMS = {"video": training_transform, "image": image_pretraining_transform}

EXPRESSION_SAMPLES = 200  # of a source without rows, for a vocabulary
SIZE_SAMPLES = 16  # of a source that is not resized, to find its largest clip
PICTURE_FRAMES = 5
DEV_SIZE, DEV_EXPRESSION = 192, 2  # short side; an expression that holds in the whole video


class ClipSize(NamedTuple):
    """Of a batch's clips after padding; height and width in pixels."""

    num_frames: int
    height: int
    width: int
    expressions: int


class TrainingSet(ConcatDataset):
    """All sources of a recipe, one after another.

    Attributes:
        sources: by their place in the recipe and name, as "data.0 (ref-youtube-vos train)".
    """

    def __init__(self, sources: dict[str, SeededDataset]):
        super().__init__(sources.values())
        self.sources = sources

    def set_epoch(self, epoch: int) -> None:
        for source in self.sources.values():
            source.set_epoch(epoch)


def training_dataset(recipe: Recipe) -> TrainingSet:
    """The sources of a recipe; their indices are read, or made and cached.

    Raises:
        ValueError: a data set is not as its download lays it out, or an option is unknown; names
            the entry of the recipe.
    """
    sources = {}
    for number, told in enumerate(recipe.data):
        name = f"data.{number} ({told.name} {told.split})"
        try:
            sources[name] = _source(told, recipe.run.seed)
        except (ValueError, TypeError, FileNotFoundError) as error:  # TypeError: of the options
            raise ValueError(f"{name}: {error}") from error
    return TrainingSet(sources)


def _source(told: DataRecipe, seed: int) -> SeededDataset:
    if told.name == STILLS_AND_VIDEOS:
        options = {"num_samples": EPOCH_SAMPLES} | told.options
        images, videos = load_images(told.data_dir), load_videos(told.data_dir)
        return TrainingClips(images, videos, told.clips, seed=seed, **options)
    options = {"seed": seed, "expressions": told.expressions}
    if told.name == MOVING_SHAPES:
        if told.split != "train":
            raise ValueError("moving-shapes is made to train on in its split train alone")
        return MovingShapesClips(told.num_frames, _transform(told), **options, **told.options)
    rows = load_rvos_dataset(told.name, told.data_dir, told.split, **told.options)
    transform = _transform(told)
    if told.num_frames > 1 and all(length == 1 for length in rows["num_frames"]):
        transform = v2.Compose([ImageMotion(), *([transform] if transform else [])])
    return ReferringClips(
        rows, told.data_dir, told.num_frames, transform, sampling=told.sampling, **options
    )


def _transform(told: DataRecipe) -> v2.Transform | None:
    if told.transform is None:
        return None
    if isinstance(told.transform, str):
        return TRANSFORMS[told.transform]()
    return paper_transform(**told.transform)


def training_expressions(dataset: TrainingSet) -> Iterator[str]:
    """What is said in training, for a vocabulary: all expressions of data sets on disk, and those
    of some samples of sources that make theirs."""
    for source in dataset.sources.values():
        if isinstance(source, ReferringClips):
            yield from source.rows["expression"]
        else:
            for index in range(min(len(source), EXPRESSION_SAMPLES)):
                yield from source[index]["expressions"]


class BatchCollator(ClipCollator):
    """Batches that also tell which samples they are made of: `ids`, a string each, which is no
    input of the model."""

    def __call__(self, samples: list[Sample]) -> dict[str, Any]:
        return super().__call__(samples) | {"ids": [sample["id"] for sample in samples]}


def batches_per_epoch(dataset: TrainingSet, recipe: Recipe, num_processes: int = 1) -> int:
    """Micro-batches of a process in an epoch, a multiple of `gradient_accumulation_steps`: samples
    that make no whole update of all processes are left out.

    Raises:
        ValueError: the data are not enough for one update.
    """
    run = recipe.run
    samples = num_processes * run.batch_size * run.gradient_accumulation_steps
    updates = len(dataset) // samples
    if updates == 0:
        raise ValueError(
            f"an epoch has {len(dataset)} samples, fewer than the {samples} of one update "
            f"({num_processes} processes, run.batch_size {run.batch_size}, "
            f"run.gradient_accumulation_steps {run.gradient_accumulation_steps}): lower these"
        )
    return updates * run.gradient_accumulation_steps


def training_loader(
    dataset: TrainingSet,
    recipe: Recipe,
    processor: ProxyFormerProcessor,
    *,
    epoch: int,
    num_processes: int = 1,
    process_index: int = 0,
    first_batch: int = 0,
) -> DataLoader:
    """The micro-batches of a process in an epoch, from `first_batch` on.

    All processes go through the same random order; at each step they take `batch_size` samples
    after another. The dataset is set to the epoch: use up a loader before the next is made.

    Returns:
        Batches of [`BatchCollator`].

    Raises:
        ValueError: see [`batches_per_epoch`].
    """
    run = recipe.run
    num_batches = batches_per_epoch(dataset, recipe, num_processes)
    order = np.random.default_rng((run.seed, epoch)).permutation(len(dataset))
    shape = num_batches, num_processes, run.batch_size
    batches = order[: np.prod(shape)].reshape(shape)[first_batch:, process_index]
    dataset.set_epoch(epoch)
    return DataLoader(
        dataset,
        batch_sampler=batches.tolist(),
        num_workers=run.num_workers,
        collate_fn=BatchCollator(processor),
        worker_init_fn=ignore_stop_signals,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # so that starting the loader draws nothing from the model's
    )


def largest_clip(dataset: TrainingSet, recipe: Recipe) -> ClipSize:
    """The largest size that a batch's clips can have; of sources that are not resized, the largest
    of some samples."""
    sizes = [
        size
        for told, source in zip(recipe.data, dataset.sources.values(), strict=True)
        for size in _clip_sizes(told, source)
    ]
    if recipe.run.batch_size == 1:
        return max(sizes, key=lambda size: size.num_frames * size.height * size.width)
    # Clips of several sources, upright and lying, are padded to one size.
    return ClipSize(*map(max, zip(*sizes, strict=True)))


def _clip_sizes(told: DataRecipe, source: SeededDataset) -> Iterator[ClipSize]:
    if isinstance(source, TrainingClips):
        clips = told.clips
        yield ClipSize(clips.num_frames, *clips.video_size, clips.num_expressions)
        for size in (clips.image_size, clips.image_size[::-1], clips.paired_size):
            yield ClipSize(clips.image_frames, *size, clips.num_expressions)
    elif told.transform is not None:
        short, long = largest_sides(source.transform)
        yield ClipSize(told.num_frames, short, long, told.expressions)
        yield ClipSize(told.num_frames, long, short, told.expressions)
    else:
        for index in np.linspace(0, len(source) - 1, min(SIZE_SAMPLES, len(source)), dtype=int):
            size = source[int(index)]["frames"].shape[2:]
            yield ClipSize(told.num_frames, *size, told.expressions)


def fixed_clips(recipe: Recipe, count: int) -> list[Sample]:
    """Clips of the first videos of the validation split, with one expression each, to draw the
    model's predictions on; as large as the protocol gives them to the model.

    Raises:
        ValueError: the split has no masks, or is not as its download lays it out.
    """
    settings = recipe.validation
    if settings.benchmark == "dev":
        return [_dev_clip(video) for video in load_videos(settings.data_dir, DEV_VIDEOS[:count])]
    protocol = find_protocol(settings.benchmark, settings.protocol)
    split = settings.split or protocol.split
    rows = load_rvos_dataset(settings.benchmark, settings.data_dir, split, **protocol.options)
    videos: dict[str, list[int]] = {}
    for index, video in enumerate(rows["video_id"]):
        videos.setdefault(video, []).append(index)
    # Another expression of each, since the first ones may be of one kind.
    chosen = [of[k % len(of)] for k, of in enumerate(islice(videos.values(), count))]
    resize = RandomShortSide((protocol.shortest_edge,), protocol.longest_edge or math.inf)
    clips = [
        ReferringClips(
            rows.select([row]), settings.data_dir, PICTURE_FRAMES, resize, training=False
        )
        for row in chosen
    ]
    return [clip[len(clip) // 2] for clip in clips]


def _dev_clip(video: LabelledVideo) -> Sample:
    indices = np.linspace(0, len(video) - 1, PICTURE_FRAMES, dtype=int).tolist()
    frames, masks = map(np.stack, zip(*map(video.frame, indices), strict=True))
    sample = {
        "frames": tv_tensors.Video(torch.from_numpy(frames).permute(0, 3, 1, 2)),
        "masks": tv_tensors.Mask(torch.from_numpy(masks[None].astype(np.uint8))),
        "annotated": torch.ones(PICTURE_FRAMES, dtype=torch.bool),
        "expressions": [video.expressions[DEV_EXPRESSION]],
        "id": f"dev/{video.name}/{DEV_EXPRESSION}@{','.join(map(str, indices))}",
    }
    return v2.Compose([RandomShortSide((DEV_SIZE,)), v2.ToPureTensor()])(sample)
