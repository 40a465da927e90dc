# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Scores of a checkpoint on the development videos and images (data/sources.py), in percent.

Videos: J, the mean IoU over all frames of a video (1 where both masks are empty), then over its
expressions and the videos. Images: of objects with look-alikes, IoU for the right expression and
for a look-alike's (swapped), by written and template expressions, and for objects of 3% of the
image or more. Both: for the meaningless expression "an object" (blind).
"""

import json
import textwrap
from collections import defaultdict
from itertools import permutations
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw
from tqdm import tqdm

from proxyformer_hf.data.clips import Camera, ImageScene
from proxyformer_hf.data.expressions import phrase
from proxyformer_hf.data.sources import (
    DEV_VIDEOS,
    LabelledImage,
    LabelledVideo,
    load_images,
    load_videos,
)
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor

BLIND = "an object"
MAX_LOOK_ALIKES = 4  # of a category in an image, the largest
LARGE = 0.03  # of the image


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean over frames (T, height, width) of intersection over union; 1 where both are empty."""
    intersection = (prediction & truth).sum((1, 2))
    union = (prediction | truth).sum((1, 2))
    return float(np.where(union > 0, intersection / np.maximum(union, 1), 1.0).mean())


@torch.no_grad()
def segment(model, processor, frames: np.ndarray, expressions: list[str], size: int) -> np.ndarray:
    """Masks bool (E, T, height, width) of uint8 frames (T, height, width, 3)."""
    inputs = processor(
        videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
        text=[expressions],
        size={"shortest_edge": size, "longest_edge": 2 * size},
        do_sample_frames=False,
        return_tensors="pt",
    ).to(model.device)
    outputs = model(**inputs)
    results = processor.post_process_referring_segmentation(
        outputs, [frames.shape[1:3]] * len(expressions)
    )
    return np.stack([np.asarray(result["masks"].cpu()) for result in results])


def video_scores(
    model, processor, videos: list[LabelledVideo], size: int, ids: list[int], stride: int, clip: int
) -> dict[str, dict[str, float]]:
    """J of the expressions `ids` and blind per video, on every `stride`-th frame."""
    scores = {}
    for video in tqdm(videos, desc="videos", leave=False):
        texts = [video.expressions[i] for i in ids] + [BLIND]
        frames, truth = zip(*map(video.frame, range(0, len(video), stride)), strict=True)
        masks = [
            segment(model, processor, np.stack(frames[start : start + clip]), texts, size)
            for start in range(0, len(frames), clip)
        ]
        each = [iou(rows, np.stack(truth)) for rows in np.concatenate(masks, axis=1)]
        scores[video.name] = {"right": float(np.mean(each[:-1])), "blind": each[-1]}
    return scores


def dev_expressions(image: LabelledImage) -> list[tuple[str, int, str]]:
    """(kind, instance, expression) of all instances with a look-alike of the same kind; fixed."""
    scene, rng = ImageScene((image, Camera.still(image))), np.random.default_rng(image.image_id)
    found = []
    for category in sorted(image.look_alikes()):
        group = [i for i in scene.targets() if image.instances[i].category == category]
        group.sort(key=lambda i: -image.instances[i].area)
        written = [
            ("written", i, image.instances[i].written[0])
            for i in group
            if image.instances[i].written
        ]
        described = [(i, scene.facts(i)) for i in group]
        described = [(i, facts) for i, facts in described if facts][:MAX_LOOK_ALIKES]
        template = [
            ("template", i, phrase(facts[rng.integers(len(facts))], scene.views[0][i], rng))
            for i, facts in described
        ]
        found += [entry for entries in (written, template) if len(entries) > 1 for entry in entries]
    return found


def image_scores(
    model, processor, images: list[LabelledImage], size: int, num_frames: int
) -> tuple[dict[str, dict[str, float]], list[dict]]:
    """Right, swapped and blind IoU by kind of expression, and the record of each expression."""
    values, records = defaultdict(lambda: defaultdict(list)), []

    def add(name: str, kind: str, prediction: np.ndarray, target: np.ndarray) -> None:
        for group in (kind, "all") if target.mean() < LARGE else (kind, "all", "large"):
            values[group][name].append(iou(prediction, target))

    for image in tqdm(images, desc="images", leave=False):
        entries = dev_expressions(image)
        if not entries:
            continue
        truth = {i: mask_of(image, i) for _, i, _ in entries}
        clip = np.repeat(image.pixels[None], num_frames, axis=0)
        masks = segment(model, processor, clip, [text for *_, text in entries] + [BLIND], size)
        masks = masks[:, num_frames // 2][:, None]
        rows = list(zip(entries, masks[:-1], strict=True))
        for (kind, i, text), mask in rows:
            add("right", kind, mask, truth[i])
            add("blind", kind, masks[-1], truth[i])
            right = iou(mask, truth[i])
            records.append(
                {"image": image, "text": text, "iou": right, "mask": mask[0], "truth": truth[i][0]}
            )
        for ((kind, i, _), _), ((other_kind, j, _), other_mask) in permutations(rows, 2):
            same = image.instances[i].category == image.instances[j].category
            if kind == other_kind and same:
                add("swapped", kind, other_mask, truth[i])
    scores = {
        kind: {name: float(np.mean(v)) for name, v in by_name.items()}
        | {"expressions": len(by_name["right"]), "pairs": len(by_name["swapped"]) // 2}
        for kind, by_name in sorted(values.items())
    }
    return scores, records


def mask_of(image: LabelledImage, index: int) -> np.ndarray:
    """The instance's mask, bool (1, height, width)."""
    return Camera.still(image).masks(image.instances[index].polygons)


def quick_scores(model, processor, data_dir: Path) -> dict[str, float]:
    """A few numbers in percent for the log of a training run, in about 20 s on one core."""
    videos = load_videos(data_dir, DEV_VIDEOS)
    images = load_images(data_dir, dev=True)[::3]
    j = video_scores(model, processor, videos, size=192, ids=[2, 4], stride=12, clip=4).values()
    by_kind, _ = image_scores(model, processor, images, size=224, num_frames=1)
    return {
        "dev_J": 100 * float(np.mean([score["right"] for score in j])),
        "dev_J_blind": 100 * float(np.mean([score["blind"] for score in j])),
    } | {f"dev_image_{name}": 100 * by_kind["all"][name] for name in ("right", "swapped", "blind")}


def draw_sheet(records: list[dict], path: Path, count: int = 6) -> None:
    """A row each of the worst, median and best masks (red; green: the true outline)."""
    records = sorted(records, key=lambda record: record["iou"])
    middle = max(0, (len(records) - count) // 2)
    rows = [records[:count], records[middle : middle + count], records[-count:]]
    sheet = Image.new("RGB", (count * 260, 3 * 260), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, record in enumerate(row):
            pixels = record["image"].pixels.astype(float)
            pixels[record["mask"]] = 0.5 * pixels[record["mask"]] + (127, 0, 0)
            truth = record["truth"]
            edge = truth & ~(
                np.roll(truth, 2, 0)
                & np.roll(truth, -2, 0)
                & np.roll(truth, 2, 1)
                & np.roll(truth, -2, 1)
            )
            pixels[edge] = (0, 255, 0)
            tile = Image.fromarray(pixels.astype(np.uint8))
            tile.thumbnail((256, 200))
            sheet.paste(tile, (x * 260, y * 260))
            text = f"{100 * record['iou']:.0f} {record['text']}"
            draw.text((x * 260, y * 260 + 204), textwrap.fill(text, 40), fill="black")
    sheet.save(path)


def main(
    checkpoint: Annotated[Path, typer.Option(help="folder with model and processor")],
    data_dir: Annotated[Path, typer.Option(help="folder with davis16_train_240p and coco_small")],
    output: Annotated[Path, typer.Option(help="folder for dev.json and dev.png")] = Path(
        "runs/dev"
    ),
    size: Annotated[int, typer.Option(help="short side in pixels")] = 288,
    stride: Annotated[int, typer.Option(help="score every n-th frame of the videos")] = 1,
    clip: Annotated[int, typer.Option(help="frames that the model sees at once")] = 8,
    image_frames: Annotated[int, typer.Option(help="copies of an image that make a clip")] = 1,
    max_images: int = 60,
) -> None:
    model = ProxyFormerForReferringSegmentation.from_pretrained(checkpoint).eval()
    processor = ProxyFormerProcessor.from_pretrained(checkpoint)
    videos = load_videos(data_dir, DEV_VIDEOS)
    by_video = video_scores(model, processor, videos, size, [2, 3, 4], stride, clip)
    images = load_images(data_dir, dev=True)[:max_images]
    by_kind, records = image_scores(model, processor, images, size, image_frames)
    mean = {
        name: float(np.mean([s[name] for s in by_video.values()])) for name in ("right", "blind")
    }

    print(f"{'video J':24}{'right':>8}{'blind':>8}")
    for name, scores in (*by_video.items(), ("mean", mean)):
        print(f"{name:24}{100 * scores['right']:8.1f}{100 * scores['blind']:8.1f}")
    print(f"{'image IoU':24}{'right':>8}{'swapped':>8}{'blind':>8}{'number':>8}{'pairs':>8}")
    for kind, scores in by_kind.items():
        percent = "".join(f"{100 * scores[name]:8.1f}" for name in ("right", "swapped", "blind"))
        print(f"{kind:24}{percent}{scores['expressions']:8}{scores['pairs']:8}")
    output.mkdir(parents=True, exist_ok=True)
    report = {"videos": by_video, "mean": mean, "images": by_kind, "size": size, "stride": stride}
    (output / "dev.json").write_text(json.dumps(report, indent=2))
    draw_sheet(records, output / "dev.png")


if __name__ == "__main__":
    typer.run(main)
