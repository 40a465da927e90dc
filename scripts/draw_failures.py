# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Draws what a checkpoint gets wrong, for its model card, on photographs that may be shown.

    python scripts/draw_failures.py model_cards/proxyformer-lite-failures.jpg

The photographs come inside scikit-image's wheel (`pip install scikit-image`) and are CC0 or in the
public domain: a cat by Stefan van der Walt, a cup by Rachel Michetti, Eileen Collins by NASA, a
rocket by SpaceX, a motorcycle by the Middlebury stereo vision project, a cameraman.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageOps
from skimage import data
from transformers import pipeline

from proxyformer_hf.pipeline_referring_video_segmentation import TASK
from proxyformer_hf.visualization import contact_sheet, draw_masks

SIZE, TILE = (400, 300), 280  # pixels; of the width of a tile
QUESTIONS = (  # two parts and two absent things; small things beside large ones; unheard nouns
    ("chelsea", "the cat's nose"),
    ("chelsea", "a dog"),
    ("coffee", "the saucer"),
    ("coffee", "a glass of water"),
    ("astronaut", "the flag"),
    ("astronaut", "the name tag"),
    ("rocket", "the launch pad"),
    ("rocket", "an airplane"),
    ("stereo_motorcycle", "the toolbox"),
    ("stereo_motorcycle", "a car"),
    ("camera", "the coat"),
    ("camera", "the tall building"),
)


def photograph(name: str) -> np.ndarray:
    """Pixels uint8 (height, width, 3) of one of scikit-image's, cropped to `SIZE`."""
    pixels = getattr(data, name)()
    picture = Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels)
    return np.asarray(ImageOps.fit(picture.convert("RGB"), SIZE))


def main(
    output: Annotated[Path, typer.Argument(help="picture to write")],
    model: Annotated[str | None, typer.Option(help="folder or Hub name")] = None,
) -> None:
    pipe = pipeline(TASK, model=model)
    tiles = []
    for name, expression in QUESTIONS:
        pixels = photograph(name)
        result = pipe(pixels[None].copy(), expression)
        tiles.append(draw_masks(pixels, result["masks"], [expression], [result["score"]]))
    contact_sheet(tiles, tile_width=TILE).save(output, quality=70)


if __name__ == "__main__":
    typer.run(main)
