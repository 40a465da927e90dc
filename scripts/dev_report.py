# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Tables and pictures of scripts/evaluate_dev.py."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

TILE = 260  # pixels, with margin and text
TILE_COLUMNS = 6
WORST, WORST_COLUMNS = 20, 5
PLOT, PLOT_MARGIN = 240, 40  # pixels of the plot's side, and around it


class Tile(NamedTuple):
    """A picture, uint8 (height, width, 3), with bool masks (height, width), and their IoU."""

    pixels: np.ndarray
    mask: np.ndarray
    truth: np.ndarray
    text: str
    iou: float


# Tables


def print_report(report: Mapping[str, Any]) -> None:
    print_table("videos", report["videos"] | {"mean": report["mean"]})
    for name in ("images", "any objects"):
        for table in (name, f"{name} by fact", f"{name} by size"):
            print_table(table, report[table])
    print_table("composed", report["composed"])
    print_table("passing", {"pasted object": report["passing"]})
    print_table("absent", report["absent"])
    print_table("score", {f"from {row['from']:.1f}": row for row in report["reliability"]})
    speed = report["speed"]
    print(f"{speed['fps']:.1f} frames per second for one expression, threads: {speed['threads']}")


def print_table(title: str, rows: Mapping[str, Mapping[str, float | int | None]]) -> None:
    """A line a row; fractions (float) in percent, counts (int) as they are, None as a dash."""
    columns = [name for name in next(iter(rows.values()), {}) if name != "from"]
    widths = [max(8, len(name) + 2) for name in columns]
    names = "".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))
    print(f"{title:24}{names}")
    for row_name, row in rows.items():
        cells = [cell(row[name]) for name in columns]
        line = "".join(f"{text:>{width}}" for text, width in zip(cells, widths, strict=True))
        print(f"{row_name:24}{line}")
    print()


def cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


# Pictures


def draw_extremes(tiles: list[Tile], path: Path) -> None:
    """A row each of the worst, median and best masks."""
    tiles, count = sorted(tiles, key=lambda tile: tile.iou), TILE_COLUMNS
    middle = max(0, (len(tiles) - count) // 2)
    draw_sheet([tiles[:count], tiles[middle : middle + count], tiles[-count:]], path)


def draw_worst(tiles: list[Tile], path: Path) -> None:
    """The worst masks; of those equally bad, the ones of the largest objects."""
    worst = sorted(tiles, key=lambda tile: (tile.iou, -tile.truth.mean()))[:WORST]
    draw_sheet([worst[k : k + WORST_COLUMNS] for k in range(0, len(worst), WORST_COLUMNS)], path)


def draw_sheet(rows: list[list[Tile]], path: Path) -> None:
    """Predicted masks in red, the true outlines in green, IoU in percent and expression below."""
    sheet = Image.new("RGB", (max(map(len, rows)) * TILE, len(rows) * TILE), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            pixels = tile.pixels.astype(float)
            pixels[tile.mask] = 0.5 * pixels[tile.mask] + (127, 0, 0)
            pixels[inner_edge(tile.truth)] = (0, 255, 0)
            picture = Image.fromarray(pixels.astype(np.uint8))
            picture.thumbnail((TILE - 4, TILE - 60))
            sheet.paste(picture, (x * TILE, y * TILE))
            text = textwrap.fill(f"{100 * tile.iou:.0f} {tile.text}", 40)
            draw.text((x * TILE, (y + 1) * TILE - 56), text, fill="black")
    sheet.save(path)


def inner_edge(mask: np.ndarray) -> np.ndarray:
    """The pixels of a bool (height, width) mask that are up to 2 from its border."""
    shifted = [np.roll(mask, shift, axis) for axis in (0, 1) for shift in (-2, 2)]
    return mask & ~np.logical_and.reduce(shifted)


def draw_reliability(bins: list[dict[str, float | None]], path: Path) -> None:
    """Share of what is present by score, a dot a bin, its area by the number of expressions; the
    line is that of a calibrated score."""
    side = PLOT + 2 * PLOT_MARGIN
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)

    def at(x: float, y: float) -> tuple[float, float]:
        return PLOT_MARGIN + x * PLOT, PLOT_MARGIN + (1 - y) * PLOT

    draw.rectangle([*at(0, 1), *at(1, 0)], outline="black")
    draw.line([*at(0, 0), *at(1, 1)], fill="gray")
    for tick in (0, 0.5, 1):
        (x, bottom), (left, y) = at(tick, 0), at(0, tick)
        draw.text((x, bottom + 4), f"{tick:g}", fill="black", anchor="mt")
        draw.text((left - 6, y), f"{tick:g}", fill="black", anchor="rm")
    draw.text((side / 2, side - 4), "score", fill="black", anchor="mb")
    draw.text((4, 8), "share that is present", fill="black", anchor="lt")
    filled = [row for row in bins if row["number"]]
    points = [at(row["score"], row["present"]) for row in filled]
    draw.line(points, fill="darkorange", width=2)
    most = max(row["number"] for row in filled)
    for row, (x, y) in zip(filled, points, strict=True):
        radius = 2 + 8 * (row["number"] / most) ** 0.5
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill="darkorange")
    picture.save(path)
