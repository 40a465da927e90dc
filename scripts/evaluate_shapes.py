# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Does a checkpoint understand moving-shapes? J&F in percent, by kind of expression.

    right     of the object that the expression means
    swapped   of another object of the same video: what the expression must not give
    shuffled  right, with the frames of the video in another order

Videos are shown at their own size. A model that ignores the words has right equal to swapped; one
that ignores the order of the frames has right equal to shuffled on motion.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from tqdm import tqdm

from proxyformer_hf import ProxyFormerForReferringSegmentation, ProxyFormerProcessor
from proxyformer_hf.data.moving_shapes import ShapesVideo, generate_video
from proxyformer_hf.data.shape_expressions import KINDS
from proxyformer_hf.metrics.region_boundary import boundary_accuracy, region_similarity
from proxyformer_hf.visualization import contact_sheet, draw_masks

PICTURES = 8  # videos on the page


def j_and_f(prediction: np.ndarray, truth: np.ndarray) -> float:
    """(J + F) / 2 of bool (T, height, width), a mean over the frames, in percent."""
    scores = region_similarity(prediction, truth) + boundary_accuracy(prediction, truth)
    return 50 * float(scores.mean())


def new_order(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """A random order that is neither the old one nor its reverse, which many motions survive."""
    forwards = np.arange(num_frames)
    while True:
        order = rng.permutation(num_frames)
        if num_frames < 3 or not any(np.array_equal(order, o) for o in (forwards, forwards[::-1])):
            return order


class Segmenter:
    """Masks of a checkpoint, bool (E, T, height, width), for uint8 (T, height, width, 3)."""

    def __init__(self, checkpoint: Path):
        self.processor = ProxyFormerProcessor.from_pretrained(checkpoint)
        self.model = ProxyFormerForReferringSegmentation.from_pretrained(checkpoint).eval()

    @torch.no_grad()
    def __call__(self, frames: np.ndarray, expressions: list[str]) -> np.ndarray:
        inputs = self.processor(
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
            text=[expressions],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )
        results = self.processor.post_process_referring_segmentation(
            self.model(**inputs), [frames.shape[1:3]] * len(expressions)
        )
        return np.stack([result["masks"].numpy() for result in results])


def truths(video: ShapesVideo) -> dict[int, np.ndarray]:
    """The mask of each object that an expression of the video means."""
    meant = {expression.object_id for expression in video.expressions}
    return {object_id: video.object_map == object_id for object_id in sorted(meant)}


def score_video(
    video: ShapesVideo, segment: Segmenter, order: np.ndarray
) -> Iterator[tuple[str, str, float]]:
    """Condition, kind of expression and J&F; swapped is a mean over the other objects."""
    texts = [expression.text for expression in video.expressions]
    masks, shuffled = segment(video.frames, texts), segment(video.frames[order], texts)
    objects = truths(video)
    for expression, mask, mask_shuffled in zip(video.expressions, masks, shuffled, strict=True):
        meant = objects[expression.object_id]
        others = [truth for i, truth in objects.items() if i != expression.object_id]
        yield "right", expression.kind, j_and_f(mask, meant)
        yield "swapped", expression.kind, float(np.mean([j_and_f(mask, o) for o in others]))
        yield "shuffled", expression.kind, j_and_f(mask_shuffled, meant[order])


def draw_page(segment: Segmenter, num_frames: int, seed: int, path: Path) -> None:
    """The first and the last frame of some videos, with all expressions' predictions."""
    tiles = []
    for index in range(PICTURES):
        video = generate_video(index, "valid", num_frames=num_frames, seed=seed)
        texts = [expression.text for expression in video.expressions]
        masks = segment(video.frames, texts)
        for t in (0, num_frames - 1):
            frame = np.kron(video.frames[t], np.ones((4, 4, 1), np.uint8))  # room for the legend
            large = [np.kron(mask[t], np.ones((4, 4), bool)) for mask in masks]
            right = [
                j_and_f(mask, video.object_map == e.object_id) / 100
                for mask, e in zip(masks, video.expressions, strict=True)
            ]
            tiles.append(draw_masks(frame, large, texts, right))
    contact_sheet(tiles, columns=4, tile_width=480).save(path)


def main(
    checkpoint: Annotated[Path, typer.Argument(help="folder of a trained model")],
    num_videos: Annotated[int, typer.Option(help="videos of the split 'valid'")] = 500,
    num_frames: int = 5,
    seed: Annotated[int, typer.Option(help="of the data set and of the shuffling")] = 0,
    output: Annotated[Path | None, typer.Option(help="folder for scores.json and a page")] = None,
) -> None:
    segment, scores = Segmenter(checkpoint), defaultdict(list)
    rng = np.random.default_rng(seed)
    for index in tqdm(range(num_videos), unit="video"):
        video = generate_video(index, "valid", num_frames=num_frames, seed=seed)
        for condition, kind, value in score_video(video, segment, new_order(num_frames, rng)):
            scores[condition, kind].append(value)
            scores[condition, "all"].append(value)
    table = {
        condition: {kind: float(np.mean(scores[condition, kind])) for kind in (*KINDS, "all")}
        for condition in ("right", "swapped", "shuffled")
    }
    typer.echo(f"J&F, {len(scores['right', 'all'])} expressions, {num_videos} videos")
    typer.echo(" " * 9 + "".join(f"{kind:>11}" for kind in (*KINDS, "all")))
    for condition, row in table.items():
        typer.echo(f"{condition:9}" + "".join(f"{value:11.1f}" for value in row.values()))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        settings = {"num_videos": num_videos, "num_frames": num_frames, "seed": seed}
        (output / "scores.json").write_text(json.dumps(settings | table, indent=2) + "\n")
        draw_page(segment, num_frames, seed, output / "page.png")


if __name__ == "__main__":
    typer.run(main)
