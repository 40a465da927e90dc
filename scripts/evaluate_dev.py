# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Report of a checkpoint on the development videos and images (data/sources.py), in percent.

    videos    J&F, means over frames, expressions and videos; J for the meaningless "an object"
              (blind); IoU of neighbouring frames' masks, predicted and true
    images    IoU of objects with look-alikes for the right expression, for a look-alike's
              (swapped) and for "an object" (blind); the same of any two objects of an image
    composed  IoU for the right and for the other expression in videos with a pasted object
    passing   of pasted objects that come into view or leave it: IoU where they are in view, and how
              often there is no mask where they are not
    absent    how well the score tells what is not shown from what is, and how often it gets a mask
    speed     frames per second

An IoU is a mean over the frames of a clip, 1 where both masks are empty.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from dev_questions import (
    Expression,
    absent_expressions,
    absent_texts,
    any_expressions,
    compose,
    dev_expressions,
    mask_of,
    read_frames,
)
from dev_report import Tile, draw_extremes, draw_reliability, draw_worst, print_report
from tqdm import tqdm

from proxyformer_hf.data.clips import AbsentThings
from proxyformer_hf.data.sources import (
    DEV_VIDEOS,
    NOUN_PHRASE,
    LabelledImage,
    LabelledVideo,
    load_images,
    load_videos,
)
from proxyformer_hf.metrics.region_boundary import boundary_accuracy, region_similarity
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.pipeline_referring_video_segmentation import (
    ReferringVideoSegmentationPipeline,
)
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor

BLIND = "an object"
LARGE, VERY_LARGE = 0.03, 0.1  # of the image
SCENES, PASSING_SCENES = 12, 6  # composed of each video
VISIBLE = 0.005  # of the frame: an absent thing's mask that is larger is seen
VERDICT_FRAMES = 8
BINS = 10
SPEED_FRAMES, SPEED_RUNS = 16, 3

Scores = dict[str, dict[str, float]]


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean over frames (T, height, width) of intersection over union; 1 where both are empty."""
    return float(region_similarity(prediction, truth).mean())


def segment(
    model, processor, frames: np.ndarray, expressions: list[str], size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The pipeline's masks bool (E, T, height, width) and scores (E,) of uint8 frames (T, height,
    width, 3).

    `size` is the short side in pixels that the model sees; None: the pipeline's choice.
    """
    pipe = ReferringVideoSegmentationPipeline(model, processor=processor, device=model.device)
    resize = {} if size is None else {"size": {"shortest_edge": size, "longest_edge": 2 * size}}
    results = pipe(frames, expressions, **resize)
    return np.stack([r["masks"] for r in results]), np.array([r["score"] for r in results])


# Videos


def video_scores(
    model, processor, videos: list[LabelledVideo], size: int, ids: list[int], stride: int
) -> Scores:
    """J&F, J and F of the expressions `ids` and J blind per video, on every `stride`-th frame; the
    IoU of predicted, and of true, masks with those of the next frame scored."""
    scores = {}
    for video in tqdm(videos, desc="videos", leave=False):
        texts = [video.expressions[i] for i in ids] + [BLIND]
        frames, truth = read_frames(video, range(0, len(video), stride))
        *masks, blind = segment(model, processor, frames, texts, size)[0]
        region = float(np.mean([iou(rows, truth) for rows in masks]))
        boundary = float(np.mean([boundary_accuracy(rows, truth) for rows in masks]))
        scores[video.name] = {
            "J&F": (region + boundary) / 2,
            "J": region,
            "F": boundary,
            "blind": iou(blind, truth),
            "neighbours": float(np.mean([steadiness(rows) for rows in masks])),
            "true neighbours": steadiness(truth),
        }
    return scores


def steadiness(masks: np.ndarray) -> float:
    """Mean IoU of a mask (T, height, width) and the next; 1 of a single one."""
    return iou(masks[1:], masks[:-1]) if len(masks) > 1 else 1.0


# Images


@dataclass
class Answer:
    """What the model made of an expression of an image."""

    image: LabelledImage
    expression: Expression
    mask: np.ndarray  # bool (1, height, width), as the true one
    score: float
    truth: np.ndarray | None

    @property
    def category(self) -> str:
        return self.image.instances[self.expression.instance].category

    @property
    def right(self) -> float:
        return iou(self.mask, self.truth)

    def tile(self) -> Tile:
        text = self.expression.text
        return Tile(self.image.pixels, self.mask[0], self.truth[0], text, self.right)


def image_answers(
    model,
    processor,
    images: list[LabelledImage],
    ask: Callable[[LabelledImage], list[Expression]],
    size: int | None,
    num_frames: int,
) -> list[list[Answer]]:
    """Per image the answers to the expressions that `ask` gives, the last one blind."""
    answers = []
    for image in tqdm(images, desc="images", leave=False):
        expressions = ask(image)
        if not expressions:
            continue
        expressions = [*expressions, Expression("blind", None, BLIND)]
        described = {e.instance for e in expressions if e.instance is not None}
        truth = {i: mask_of(image, i) for i in described}
        clip = np.repeat(image.pixels[None], num_frames, axis=0)
        masks, scores = segment(model, processor, clip, [e.text for e in expressions], size)
        masks = masks[:, [num_frames // 2]].copy()  # lets go of the other frames
        answers.append(
            [
                Answer(image, expression, mask, float(score), truth.get(expression.instance))
                for expression, mask, score in zip(expressions, masks, scores, strict=True)
            ]
        )
    return answers


def image_scores(answers: list[list[Answer]], kinds: tuple[str, ...]) -> dict[str, Scores]:
    """Right, swapped and blind IoU of expressions of `kinds`, "by kind", "by fact" and "by size".

    Swapped is an object's IoU when another one is described: one of its category, or any other for
    the kind "any". It counts for the object's size and for the fact that was said.
    """
    values = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))

    def add(name: str, value: float, target: Answer, said: Answer) -> None:
        share = target.truth.mean()
        groups = [("by kind", "all"), ("by size", size_of(share))]
        if len(kinds) > 1:
            groups.append(("by kind", said.expression.kind))
        if share >= LARGE:
            groups.append(("by kind", "large"))
        if said.expression.fact:
            groups.append(("by fact", said.expression.fact))
        for table, group in groups:
            values[table][group][name].append(value)

    for *said, blind in answers:
        said = [answer for answer in said if answer.expression.kind in kinds]
        for answer in said:
            add("right", answer.right, answer, answer)
            add("blind", iou(blind.mask, answer.truth), answer, answer)
        for target, other in permutations(said, 2):
            kind = target.expression.kind
            rivals = kind == "any" or target.category == other.category
            if kind == other.expression.kind and rivals:
                add("swapped", iou(other.mask, target.truth), target, other)
    return {
        table: {
            group: {name: float(np.mean(each[name])) for name in ("right", "swapped", "blind")}
            | {"expressions": len(each["right"]), "pairs": -(-len(each["swapped"]) // 2)}
            for group, each in sorted(values[table].items())
        }
        for table in ("by kind", "by fact", "by size")
    }


def size_of(share: float) -> str:
    """The name of an object's size by its share of the image."""
    if share < LARGE:
        return "0-3 %"
    return "3-10 %" if share < VERY_LARGE else "over 10 %"


# Composed scenes


def composed_scores(
    model, processor, videos: list[LabelledVideo], images: list[LabelledImage], size: int
) -> Scores:
    """Right and swapped IoU, and share of identity switches, by video, of the videos' own objects,
    of pasted ones and of all."""
    values = defaultdict(lambda: defaultdict(list))
    scenes = [(video, number) for video in videos for number in range(SCENES)]
    for video, number in tqdm(scenes, desc="composed scenes", leave=False):
        scene = compose(video, images, number)
        masks, _ = segment(model, processor, scene.frames, scene.expressions, size)
        for k, owner in enumerate(("own object", "pasted object")):
            for group in (video.name, owner, "all"):
                values[group]["right"].append(iou(masks[k], scene.masks[k]))
                values[group]["swapped"].append(iou(masks[1 - k], scene.masks[k]))
                values[group]["switches"].append(switches(masks[k], scene.masks))
    order = [*(video.name for video in videos), "own object", "pasted object", "all"]
    return {group: {k: float(np.mean(v)) for k, v in values[group].items()} for group in order}


def passing_scores(
    model, processor, videos: list[LabelledVideo], images: list[LabelledImage], size: int
) -> dict[str, float]:
    """Of pasted objects that come into view or leave it: right IoU in the frames that show them,
    and the share of the other frames without a mask (over `VISIBLE`)."""
    values = defaultdict(list)
    scenes = [(video, number) for video in videos for number in range(PASSING_SCENES)]
    for video, number in tqdm(scenes, desc="passing objects", leave=False):
        scene = compose(video, images, number, passing=True)
        (mask,), _ = segment(model, processor, scene.frames, scene.expressions[1:], size)
        truth = scene.masks[1]
        shown = truth.any((1, 2))
        values["in view"].append(iou(mask[shown], truth[shown]))
        values["gone, no mask"].append((mask[~shown].mean((1, 2)) <= VISIBLE).mean())
    return {name: float(np.mean(each)) for name, each in values.items()}


def switches(mask: np.ndarray, objects: list[np.ndarray]) -> float:
    """Share of pairs of neighbouring frames between which a mask goes over to another object.

    In a frame a mask (T, height, width) is on that of the objects (T, height, width) which it
    shares most of its pixels with; where it shares none, it is on none and no switch is counted.
    """
    shared = np.stack([(mask & each).sum((1, 2)) for each in objects])
    owner = np.where(shared.any(0), shared.argmax(0), -1)
    gone_over = (owner[1:] != owner[:-1]) & (owner[1:] >= 0) & (owner[:-1] >= 0)
    return float(gone_over.mean())


# Absent things


class Verdict(NamedTuple):
    """The score of an expression, whether its object is shown, its mask's share of the clip."""

    score: float
    present: bool
    share: float


def video_verdicts(
    model,
    processor,
    videos: list[LabelledVideo],
    things: AbsentThings,
    ids: list[int],
    size: int,
) -> list[Verdict]:
    """Of the expressions `ids` and of absent things, on a clip in the middle of each video."""
    verdicts = []
    for video in tqdm(videos, desc="absent things", leave=False):
        absent = absent_texts(video.shown, things, [*video.name.encode()])
        start = max(0, (len(video) - VERDICT_FRAMES) // 2)
        frames, _ = read_frames(video, range(start, min(start + VERDICT_FRAMES, len(video))))
        texts = [*(video.expressions[i] for i in ids), *absent]
        rows = zip(*segment(model, processor, frames, texts, size), strict=True)
        verdicts += [
            Verdict(float(score), k < len(ids), float(mask.mean()))
            for k, (mask, score) in enumerate(rows)
        ]
    return verdicts


def image_verdicts(answers: list[list[Answer]]) -> list[Verdict]:
    return [
        Verdict(answer.score, answer.truth is not None, float(answer.mask.mean()))
        for each in answers
        for answer in each
        if answer.expression.kind != "blind"
    ]


def auroc(present: np.ndarray, absent: np.ndarray) -> float:
    """Chance that a score (n,) of what is present exceeds one (m,) of what is absent; ties count
    half."""
    scores = np.concatenate([present, absent])
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]  # from 1, equal scores share theirs
    n = len(present)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(absent)))


def presence_scores(verdicts: list[Verdict]) -> dict[str, float]:
    """AUROC, the calibration error (mean distance of a bin's score from its share of what is
    present), mean scores, and the share of the absent that gets a mask over `VISIBLE`."""
    present = np.array([v.score for v in verdicts if v.present])
    absent = np.array([v.score for v in verdicts if not v.present])
    bins = [row for row in reliability(verdicts) if row["number"]]
    errors = [row["number"] * abs(row["score"] - row["present"]) for row in bins]
    return {
        "AUROC": auroc(present, absent),
        "calibration error": sum(errors) / len(verdicts),
        "present score": float(present.mean()),
        "absent score": float(absent.mean()),
        "absent with mask": float(np.mean([v.share > VISIBLE for v in verdicts if not v.present])),
        "present": len(present),
        "absent": len(absent),
    }


def reliability(verdicts: list[Verdict]) -> list[dict[str, float | None]]:
    """`BINS` bins of equal width of the scores: their number, mean score and share present."""
    scores = np.array([v.score for v in verdicts])
    present = np.array([v.present for v in verdicts])
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    rows = []
    for k in range(BINS):
        inside, number = bins == k, int((bins == k).sum())
        rows.append(
            {
                "from": k / BINS,
                "number": number,
                "score": float(scores[inside].mean()) if number else None,
                "present": float(present[inside].mean()) if number else None,
            }
        )
    return rows


# The whole


def frames_per_second(model, processor, video: LabelledVideo) -> float:
    """Of one expression at the processor's own size, from pixels to masks; the median of runs."""
    frames, _ = read_frames(video, range(min(SPEED_FRAMES, len(video))))
    seconds = []
    for _ in range(SPEED_RUNS):
        started = perf_counter()
        segment(model, processor, frames, [video.expressions[NOUN_PHRASE]], size=None)
        seconds.append(perf_counter() - started)
    return len(frames) / median(seconds)


def mean_of(scores: Scores) -> dict[str, float]:
    rows = list(scores.values())
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def quick_scores(model, processor, data_dir: Path) -> dict[str, float]:
    """A few numbers in percent for the log of a training run, in about 20 s on one core."""
    videos = load_videos(data_dir, DEV_VIDEOS)
    images = load_images(data_dir, dev=True)[::3]
    mean = mean_of(video_scores(model, processor, videos, size=192, ids=[2, 4], stride=12))
    answers = image_answers(model, processor, images, dev_expressions, size=224, num_frames=1)
    by_kind = image_scores(answers, ("written", "template"))["by kind"]
    return {"dev_J": 100 * mean["J"], "dev_J_blind": 100 * mean["blind"]} | {
        f"dev_image_{name}": 100 * by_kind["all"][name] for name in ("right", "swapped", "blind")
    }


def main(
    checkpoint: Annotated[Path, typer.Option(help="folder with model and processor")],
    data_dir: Annotated[Path, typer.Option(help="folder with davis16_train_240p and coco_small")],
    output: Annotated[Path, typer.Option(help="folder for dev.json and the pictures")] = Path(
        "runs/dev"
    ),
    size: Annotated[
        int | None, typer.Option(help="short side in pixels; else the pipeline's own choice")
    ] = None,
    stride: Annotated[int, typer.Option(help="score every n-th frame of the videos")] = 1,
    image_frames: Annotated[int, typer.Option(help="copies of an image that make a clip")] = 1,
    max_images: int = 60,
) -> None:
    model = ProxyFormerForReferringSegmentation.from_pretrained(checkpoint).eval()
    processor = ProxyFormerProcessor.from_pretrained(checkpoint)
    run, ids = (model, processor), [2, 3, 4]
    videos, images = load_videos(data_dir, DEV_VIDEOS), load_images(data_dir, dev=True)
    things = AbsentThings(images)

    def ask(image: LabelledImage) -> list[Expression]:
        return dev_expressions(image) + any_expressions(image) + absent_expressions(image, things)

    # what stands for a video is seen as one, however few frames of it are scored
    video_size = size or processor.video_processor.size.shortest_edge
    by_video = video_scores(*run, videos, video_size, ids, stride)
    answers = image_answers(*run, images[:max_images], ask, size, image_frames)
    look_alikes = image_scores(answers, ("written", "template"))
    any_objects = image_scores(answers, ("any",))
    composed = composed_scores(*run, videos, images, video_size)
    passing = passing_scores(*run, videos, images, video_size)
    on_images = image_verdicts(answers)
    on_videos = video_verdicts(*run, videos, things, ids, video_size)
    verdicts = {"images": on_images, "videos": on_videos, "all": on_images + on_videos}
    report = {
        "settings": {"size": size, "stride": stride, "image_frames": image_frames},
        "videos": by_video,
        "mean": mean_of(by_video),
        "images": look_alikes["by kind"],
        "images by fact": look_alikes["by fact"],
        "images by size": look_alikes["by size"],
        "any objects": any_objects["by kind"],
        "any objects by fact": any_objects["by fact"],
        "any objects by size": any_objects["by size"],
        "composed": composed,
        "passing": passing,
        "absent": {name: presence_scores(each) for name, each in verdicts.items()},
        "reliability": reliability(verdicts["all"]),
        "speed": {
            "fps": frames_per_second(*run, videos[0]),
            "threads": torch.get_num_threads(),
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "dev.json").write_text(json.dumps(report, indent=2))
    print_report(report)
    shown = [a for each in answers for a in each if a.truth is not None]
    draw_extremes([a.tile() for a in shown if a.expression.kind != "any"], output / "dev.png")
    best_first = sorted(shown, key=lambda a: -a.right)
    worst_of_object = {(a.image.image_id, a.expression.instance): a.tile() for a in best_first}
    draw_worst([*worst_of_object.values()], output / "worst.png")
    draw_reliability(report["reliability"], output / "reliability.png")


if __name__ == "__main__":
    typer.run(main)
