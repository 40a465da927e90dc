# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Write the cards in model_cards/ of what the recipes make: one per stage, not yet measured."""

from pathlib import Path

from transformers import TimmBackboneConfig

from proxyformer_hf.configuration_proxyformer import RESNET_50, ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import PRESETS, VideoSwinConfig
from proxyformer_hf.model_card import render_card
from proxyformer_hf.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
STAGES = (
    "refcoco_pretraining",
    "ref_youtube_vos",
    "ref_youtube_vos_finetuning",
    "joint",
    "a2d_sentences",
    "a2d_sentences_finetuning",
)
BACKBONES = {  # ending of the recipe's name -> configuration
    "": TimmBackboneConfig(**RESNET_50),
    **{f"_video_swin_{size}": VideoSwinConfig.from_preset(size) for size in PRESETS},
}


def stage_card(stage: str) -> tuple[Path, str]:
    """A card's path and text."""
    name = f"proxyformer-{stage.replace('_', '-')}"
    models = []
    for ending, vision in BACKBONES.items():
        recipe = load_recipe(ROOT / f"scripts/recipes/{stage}{ending}.yaml")
        config = ProxyFormerConfig(vision_config=vision, **recipe.model.config)
        config.text_config._name_or_path = recipe.model.text
        models.append((config, recipe))
    return ROOT / f"model_cards/{name}.md", render_card(name, models)


if __name__ == "__main__":
    for path, text in map(stage_card, STAGES):
        path.write_text(text, encoding="utf-8")
