# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Makes a checkpoint's score a probability, by clips of its training data (Platt scaling).

The score that the model was trained to give tells what is shown from what is not, but not by how
much: a focal loss leaves it near 0.5. A logistic regression on the logit of the score gives
`score_scale` and `score_offset` of the configuration; half of its samples show their object.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from scipy.optimize import minimize
from scipy.special import expit, logit
from tqdm import tqdm

from proxyformer_hf.data.clips import ClipCollator, ClipRecipe, TrainingClips
from proxyformer_hf.data.sources import load_images, load_videos
from proxyformer_hf.modeling_proxyformer import (
    SCORE_EPS,
    ProxyFormerForReferringSegmentation,
)
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor


def fit(scores: np.ndarray, present: np.ndarray) -> tuple[float, float]:
    """Scale and offset of the logits with the smallest cross-entropy. Present and absent count
    the same, whatever their numbers.

    Args:
        scores: (n,) in [0, 1].
        present: (n,) bool.

    Raises:
        ValueError: all are present, or absent; or high scores mean absence.
    """
    if present.all() or not present.any():
        raise ValueError("the score cannot be calibrated by clips that all show, or all lack, it")
    logits = logit(np.clip(scores, SCORE_EPS, 1 - SCORE_EPS))
    weights = np.where(present, 0.5 / present.mean(), 0.5 / (1 - present.mean()))

    def loss(parameters: np.ndarray) -> float:
        margin = np.where(present, 1, -1) * (parameters[0] * logits + parameters[1])
        return float((weights * np.logaddexp(0, -margin)).mean())

    scale, offset = minimize(loss, (1.0, 0.0), method="L-BFGS-B").x
    if scale <= 0:
        raise ValueError("high scores mean absence: train the model further before calibrating it")
    return float(scale), float(offset)


@torch.no_grad()
def collect(
    model: ProxyFormerForReferringSegmentation,
    processor: ProxyFormerProcessor,
    clips: TrainingClips,
) -> tuple[np.ndarray, np.ndarray]:
    """Uncalibrated scores (n,) of all expressions of the clips, and whether they are shown."""
    collate, scores, present = ClipCollator(processor), [], []
    for index in tqdm(range(len(clips)), unit="clip"):
        batch = collate([clips[index]])
        labels = batch.pop("mask_labels")
        scores += model(**batch).referred_scores.tolist()
        present += (labels > 0).flatten(1).any(1).tolist()
    raw = (logit(np.clip(scores, SCORE_EPS, 1 - SCORE_EPS)) - model.config.score_offset) / (
        model.config.score_scale
    )
    return expit(raw), np.array(present)


def main(
    checkpoint: Annotated[Path, typer.Argument(help="folder with model and processor; changed")],
    data_dir: Annotated[Path, typer.Argument(help="folder with davis16_train_240p and coco_small")],
    clips: Annotated[int, typer.Option(help="number of clips")] = 400,
    seed: int = 0,
) -> None:
    model = ProxyFormerForReferringSegmentation.from_pretrained(checkpoint).eval()
    processor = ProxyFormerProcessor.from_pretrained(checkpoint)
    recipe = ClipRecipe(image_frames=1, image_size=(288, 416), video_share=0.3, absent_share=1.0)
    samples = TrainingClips(load_images(data_dir), load_videos(data_dir), recipe, clips, seed)
    scores, present = collect(model, processor, samples)
    scale, offset = fit(scores, present)
    path = checkpoint / "config.json"
    settings = json.loads(path.read_text()) | {"score_scale": scale, "score_offset": offset}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    typer.echo(
        f"{len(scores)} expressions, {present.mean():.0%} of things shown: "
        f"score_scale {scale:.3f}, score_offset {offset:.3f}"
    )


if __name__ == "__main__":
    typer.run(main)
