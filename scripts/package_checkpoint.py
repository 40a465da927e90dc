# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Turn a training run's `last` folder into a checkpoint to ship: float16 weights, nothing else."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

from proxyformer_hf import ProxyFormerForReferringSegmentation, ProxyFormerProcessor


def main(
    source: Annotated[Path, typer.Argument(help="folder that scripts/train.py wrote")],
    target: Annotated[Path, typer.Argument(help="folder to write; it must not exist")],
    shortest_edge: Annotated[int, typer.Option(help="size of the frames in use, in pixels")] = 288,
    longest_edge: int = 512,
    card: Annotated[Path | None, typer.Option(help="model card to lay beside the weights")] = None,
) -> None:
    if target.exists():
        raise typer.BadParameter(f"{target} exists: remove it first")
    partial = target.with_name(target.name + ".new")
    shutil.rmtree(partial, ignore_errors=True)
    ProxyFormerForReferringSegmentation.from_pretrained(source).to(torch.float16).save_pretrained(
        partial
    )
    # The weights are stored in half precision but computed with in full.
    settings = json.loads((partial / "config.json").read_text())
    for config in (settings, settings["text_config"], settings["vision_config"]):
        config["dtype"] = "float32"
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
