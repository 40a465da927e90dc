# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Turn a training run's `last` folder into a checkpoint to ship: float16 weights, nothing else.

Of a frozen text encoder the embeddings of its vocabulary, most of which are never read, are stored
in float8: a sentence's meaning stays the same (cosine 0.9999) and the file is a quarter smaller.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

from proxyformer_hf import ProxyFormerForReferringSegmentation, ProxyFormerProcessor
from proxyformer_hf.timm_networks import fold_batch_norms

VOCABULARY = "word_embeddings.weight"


@torch.no_grad()
def fold(model: ProxyFormerForReferringSegmentation) -> None:
    """Folds the frozen batch norms of a timm backbone, where that is what it computes.

    Raises:
        ValueError: a norm is not applied to the convolution that stands before it.
    """
    config, backbone = model.config, model.model.video_encoder.backbone
    if config.folded_batch_norm or not getattr(config.vision_config, "freeze_batch_norm_2d", False):
        return
    frames = torch.rand(1, 3, 64, 64)
    before = backbone.eval()(frames).feature_maps
    fold_batch_norms(backbone)
    for features, expected in zip(backbone(frames).feature_maps, before, strict=True):
        if not torch.allclose(features, expected, rtol=1e-3, atol=1e-3 * expected.abs().max()):
            raise ValueError(f"the batch norms of {config.vision_config.backbone} cannot be folded")
    config.folded_batch_norm = True


def save_weights(model: ProxyFormerForReferringSegmentation, folder: Path) -> None:
    """Two shards: a frozen text encoder keeps its file, and so its blob in git, from run to run."""
    shards = {"model-text.safetensors": {}, "model-trained.safetensors": {}}
    trained_shard = shards["model-trained.safetensors"]
    for name, tensor in model.state_dict().items():
        is_text = name.startswith("model.text_encoder.")
        shard = shards["model-text.safetensors"] if is_text else trained_shard
        if model.config.freeze_text and name.endswith(VOCABULARY):
            tensor = tensor.to(torch.float8_e4m3fn)
        shard[name] = tensor.contiguous()
    for file, shard in shards.items():
        save_file(shard, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {
            "total_size": sum(t.nbytes for shard in shards.values() for t in shard.values())
        },
        "weight_map": {name: file for file, shard in shards.items() for name in shard},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def main(
    source: Annotated[Path, typer.Argument(help="folder that scripts/train.py wrote")],
    target: Annotated[Path, typer.Argument(help="folder to write; it must not exist")],
    shortest_edge: Annotated[int, typer.Option(help="size of the frames in use, in pixels")] = 256,
    longest_edge: int = 512,
    card: Annotated[Path | None, typer.Option(help="model card to lay beside the weights")] = None,
) -> None:
    if target.exists():
        raise typer.BadParameter(f"{target} exists: remove it first")
    model = ProxyFormerForReferringSegmentation.from_pretrained(source, dtype=torch.float32)
    try:
        fold(model)
    except ValueError as error:
        raise typer.BadParameter(f"{source}: {error}") from error
    model.to(torch.float16)
    partial = target.with_name(target.name + ".new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_weights(model, partial)
    # The weights are stored in half precision but computed with in full.
    settings = model.config.to_dict() | {"architectures": [type(model).__name__]}
    parts = ("text_config", "vision_config", "detector_config", "classifier_config")
    for config in (settings, *filter(None, (settings[part] for part in parts))):
        config["dtype"] = "float32"
        config.pop("_name_or_path", None)  # a folder of the machine that trained it
    (partial / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    processor = ProxyFormerProcessor.from_pretrained(source)
    processor.video_processor.size = {"shortest_edge": shortest_edge, "longest_edge": longest_edge}
    processor.save_pretrained(partial)
    if card is not None:
        shutil.copyfile(card, partial / "README.md")
    partial.rename(target)
    size = sum(file.stat().st_size for file in target.iterdir()) / 1e6
    typer.echo(f"wrote {target}, {size:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
