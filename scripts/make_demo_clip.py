# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Makes the clip that ships with the package: a camera pans from a cup to an astronaut.

Both photographs come inside scikit-image's wheel (`pip install scikit-image`): `coffee` by Rachel
Michetti (CC0) and `astronaut`, Eileen Collins, by NASA (public domain).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from proxyformer_hf.video_io import VideoWriter

ASSET = Path(__file__).parents[1] / "src/proxyformer_hf/assets/demo.mp4"
WIDTH, HEIGHT, FPS, NUM_FRAMES = 448, 256, 24, 84


def diptych() -> Image.Image:
    """The astronaut on the left and the cup on the right, at one height."""
    astronaut, cup = Image.fromarray(data.astronaut()), Image.fromarray(data.coffee())
    astronaut = astronaut.crop((0, 0, 400, astronaut.height))  # without the model shuttle
    cup = cup.crop((60, 0, 540, cup.height))
    cup = cup.resize(
        (round(cup.width * astronaut.height / cup.height), astronaut.height),
        Image.Resampling.LANCZOS,
    )
    scene = Image.new("RGB", (astronaut.width + cup.width, astronaut.height))
    scene.paste(astronaut, (0, 0))
    scene.paste(cup, (astronaut.width, 0))
    return scene


def pan(scene: Image.Image) -> Iterator[np.ndarray]:
    """A camera that moves from the right end to the left end and zooms out, easing in and out."""
    for progress in np.linspace(0, 1, NUM_FRAMES):
        eased = progress * progress * (3 - 2 * progress)
        height = scene.height * (0.92 + 0.08 * eased)
        width = height * WIDTH / HEIGHT
        left = (scene.width - width) * (1 - eased)
        top = (scene.height - height) / 2
        view = scene.resize(
            (WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=(left, top, left + width, top + height)
        )
        yield np.asarray(view)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ASSET)
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(args.output, fps=FPS, height=HEIGHT, width=WIDTH) as writer:
        for frame in pan(diptych()):
            writer.write(frame)
    print(f"{args.output}: {NUM_FRAMES} frames, {args.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
