# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What an evaluation leaves behind: a table, JSON, a CSV of the videos and a page of pictures."""

import csv
import json
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.decoding import read_frames
from ..masks import davis_palette
from ..video_io import atomic_path
from .predictions import read_settings
from .scoring import Evaluation, Item, read_example

PICTURES = 3  # of the best, of the median and of the worst items
TILE_WIDTH, MARGIN, FONT_SIZE, LINE_HEIGHT = 320, 6, 14, 18  # pixels
STEP = TILE_WIDTH + MARGIN
PACKAGES = ("proxyformer-hf", "datasets", "numpy", "pycocotools", "scipy", "torch")


def format_table(evaluation: Evaluation) -> str:
    """What was scored, then a score a line."""
    protocol = evaluation.protocol
    videos = {item.row["video_id"] for item in evaluation.items}
    width = max(map(len, evaluation.scores))
    limited = "" if protocol.num_videos is None else ", the first of the split only"
    lines = [
        f"{protocol.benchmark} {evaluation.split}, protocol {protocol.name}: {len(videos)} videos"
        + limited,
        *(f"{name:{width}}  {value:6.2f}" for name, value in evaluation.scores.items()),
    ]
    if evaluation.absent:
        lines.append(f"no predictions, so that they scored 0: {', '.join(evaluation.absent)}")
    return "\n".join(lines)


def write_report(
    evaluation: Evaluation,
    data_dir: str | Path | None,
    predictions_dir: str | Path,
    output_dir: str | Path,
) -> list[Path]:
    """Write `scores-<protocol>.json`, `.csv` and `.png`; returns their paths.

    The JSON holds the protocol's name, `num_videos` if only so many were scored, the settings
    that are stored with the predictions ({} for those of other systems), versions, the scores and
    those of every item; the CSV the means over each video's items; the picture is `draw_page`'s.
    """
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    stem = f"scores-{evaluation.protocol.name}"
    paths = [output / f"{stem}.json", output / f"{stem}.csv", output / f"{stem}.png"]
    report = {
        "benchmark": evaluation.protocol.benchmark,
        "protocol": evaluation.protocol.name,
        "split": evaluation.split,
        "num_videos": evaluation.protocol.num_videos,
        "scores": evaluation.scores,
        "absent": list(evaluation.absent),
        "settings": read_settings(Path(predictions_dir)),
        "versions": {name: version(name) for name in PACKAGES},
        "items": [describe(item) for item in evaluation.items],
    }
    with atomic_path(paths[0]) as partial:
        partial.write_text(json.dumps(report, indent=2), encoding="utf-8")
    videos = video_means(evaluation.items)
    with atomic_path(paths[1]) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, videos[0])
        writer.writeheader()
        writer.writerows(videos)
    with atomic_path(paths[2]) as partial:
        draw_page(evaluation, data_dir, Path(predictions_dir)).save(partial)
    return paths


def describe(item: Item) -> dict[str, Any]:
    names = {name: item.row[name] for name in ("video_id", "expression_id", "expression")}
    if item.annotator is not None:
        names |= {"annotator": item.annotator, "object_id": item.object_id}
    return names | item.scores


def video_means(items: list[Item]) -> list[dict[str, Any]]:
    """Per video the number of its items and their mean scores."""
    of_video = defaultdict(list)
    for item in items:
        of_video[item.row["video_id"]].append(item.scores)
    return [
        {"video_id": video, "items": len(group)}
        | {name: mean(scores[name] for scores in group) for name in group[0]}
        for video, group in of_video.items()
    ]


def draw_page(
    evaluation: Evaluation, data_dir: str | Path | None, predictions_dir: Path
) -> Image.Image:
    """Best, median and worst items: frame, ground truth and prediction under the expression.

    The frame is the one where the object is largest. On Ref-DAVIS17 all objects are drawn, as they
    compete for pixels.
    """
    palette = np.reshape(davis_palette(), (256, 3))
    strips = []
    for place, item in pick(evaluation.items):
        index, *id_maps = read_example(evaluation.protocol, data_dir, predictions_dir, item)
        frame = read_frames(data_dir, item.row, [index])[0].permute(1, 2, 0).numpy()
        overlays = [
            np.where(ids[..., None] > 0, (frame + palette[ids]) / 2, frame) for ids in id_maps
        ]
        strips.append(draw_strip(title_of(place, item), [frame, *overlays]))
    height = LINE_HEIGHT + sum(strip.height for strip in strips)
    page = Image.new("RGB", (strips[0].width, MARGIN + height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(FONT_SIZE)
    for number, name in enumerate(("frame", "ground truth", "prediction")):
        draw.text((MARGIN + number * STEP, MARGIN), name, "gray", font)
    top = MARGIN + LINE_HEIGHT
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    return page


def pick(items: list[Item]) -> Iterator[tuple[str, Item]]:
    """The best, the median and the worst few by their first score, each with its place; of each
    video one in a place."""
    ranked = sorted(items, key=first_score, reverse=True)
    middle = sorted(range(len(ranked)), key=lambda rank: abs(2 * rank + 1 - len(ranked)))
    orders = {"best": ranked, "median": [ranked[i] for i in middle], "worst": ranked[::-1]}
    for place, order in orders.items():
        of_video: dict[str, Item] = {}
        for item in order:
            of_video.setdefault(item.row["video_id"], item)
        for item in list(of_video.values())[:PICTURES]:
            yield place, item


def first_score(item: Item) -> float:
    return next(iter(item.scores.values()))


def title_of(place: str, item: Item) -> str:
    (name, *_), row = item.scores, item.row
    said = row["expression"] or "(no expression)"
    what = f"expression {row['expression_id']}"
    if item.annotator is not None:
        what = f"object {item.object_id} of annotator {item.annotator}"
    return f"{place}, {name} {first_score(item):.1f}: {said} ({row['video_id']}, {what})"


def draw_strip(title: str, tiles: list[np.ndarray]) -> Image.Image:
    """Pictures `(height, width, 3)` of one size, in [0, 255], side by side under a title."""
    height, width = tiles[0].shape[:2]
    size = TILE_WIDTH, max(1, round(TILE_WIDTH * height / width))
    lines = textwrap.wrap(title, width=len(tiles) * STEP // (FONT_SIZE // 2))
    top = MARGIN + len(lines) * LINE_HEIGHT
    strip = Image.new("RGB", (len(tiles) * STEP + MARGIN, top + size[1] + MARGIN), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(FONT_SIZE)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + number * LINE_HEIGHT), line, "black", font)
    for number, tile in enumerate(tiles):
        picture = Image.fromarray(tile.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
        strip.paste(picture, (MARGIN + number * STEP, top))
    return strip
