# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.tiny_model import save_tiny_checkpoint

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import draw_failures as script  # noqa: E402


def test_every_question_gets_a_tile(tmp_path: Path):
    save_tiny_checkpoint(tmp_path / "model")
    script.main(tmp_path / "failures.png", str(tmp_path / "model"))
    sheet = np.asarray(Image.open(tmp_path / "failures.png"))
    tiles = [
        sheet[y + 40 : y + 240, x : x + 320] for y in (4, 248, 492) for x in range(4, 1300, 324)
    ]
    assert sheet.shape == (646, 1140, 3) and len(tiles) == len(script.QUESTIONS)
    assert all(tile.std() > 20 for tile in tiles)


def test_photographs_are_cropped_and_not_stretched():
    left = script.photograph("stereo_motorcycle")
    assert left.shape == (300, 400, 3) and left.dtype == np.uint8
    grey = script.photograph("camera")
    assert (grey[..., 0] == grey[..., 1]).all()
    whole = np.asarray(Image.fromarray(script.data.camera()[64:448]).resize((400, 300)))
    assert np.abs(grey[..., 0].astype(int) - whole).mean() < 5
