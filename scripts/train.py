# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Train a ProxyFormer by a recipe (scripts/recipes/)."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import typer
from convert_deeplab_mobilenetv2 import load_deeplab
from evaluate_dev import quick_scores
from transformers import AutoTokenizer, TimmBackboneConfig

from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.training import Recipe, train
from proxyformer_hf.video_processing_proxyformer import ProxyFormerVideoProcessor

NECK_NAMES = {"aspp": "pixel_conv", "pooling": "image_conv", "projection": "join_conv"}


def text_folder(name: str) -> str:
    """The `model` folder of an installed package; any other name is transformers' business."""
    is_package = name.isidentifier() and not Path(name).exists() and find_spec(name)
    return str(Path(find_spec(name).origin).parent / "model") if is_package else name


def build(
    recipe: Recipe, start_from: Path | None = None
) -> tuple[ProxyFormerForReferringSegmentation, ProxyFormerProcessor]:
    """The model on pretrained backbones, or with the weights of a checkpoint; and its processor."""
    vision = TimmBackboneConfig(freeze_batch_norm_2d=True, **recipe.vision)
    text = text_folder(recipe.text)
    torch.manual_seed(recipe.seed)
    model = ProxyFormerForReferringSegmentation.from_backbones(vision, text, **recipe.model)
    if recipe.vision_weights:
        backbone, head = load_deeplab(recipe.vision_weights)
        encoder = model.model.video_encoder
        result = encoder.backbone._backbone.load_state_dict(backbone, strict=False)
        if result.missing_keys:
            raise ValueError(f"{recipe.vision_weights} lacks {result.missing_keys}")
        if encoder.neck is not None:
            neck = {
                f"{NECK_NAMES[name]}.{kind}": tensor
                for (name, kind), tensor in ((k.split("."), t) for k, t in head.items())
                if name in NECK_NAMES
            }
            encoder.neck.load_state_dict(neck)
    if start_from is not None:
        # a packaged checkpoint is stored in float16
        model = ProxyFormerForReferringSegmentation.from_pretrained(
            start_from, config=model.config, dtype=torch.float32
        )
    video_processor = ProxyFormerVideoProcessor(
        image_mean=list(recipe.image_mean), image_std=list(recipe.image_std)
    )
    return model, ProxyFormerProcessor(video_processor, AutoTokenizer.from_pretrained(text))


def main(
    recipe: Annotated[Path, typer.Option(help="yaml of what differs from the defaults")],
    data_dir: Annotated[Path, typer.Option(help="folder with davis16_train_240p and coco_small")],
    output_dir: Annotated[Path, typer.Option(help="folder for last/ (the model) and log.jsonl")],
    max_steps: int = 6000,
    start_from: Annotated[
        Path | None, typer.Option(help="checkpoint whose weights to begin with")
    ] = None,
    resume: bool = False,
    num_workers: int = 1,
    checkpoint_minutes: float = 5.0,
    evaluate_every: Annotated[int, typer.Option(help="steps between quick dev scores")] = 500,
) -> None:
    settings = Recipe.from_yaml(recipe)
    model, processor = build(settings, start_from)
    train(
        model,
        processor,
        settings,
        data_dir,
        output_dir,
        max_steps,
        resume,
        num_workers,
        checkpoint_minutes,
        partial(quick_scores, model, processor, data_dir),
        evaluate_every,
    )


if __name__ == "__main__":
    typer.run(main)
