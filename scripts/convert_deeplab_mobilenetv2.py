# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""DeepLabV3-MobileNetV2 (VOC, batch norms folded) -> timm `mobilenetv2_100` and its ASPP head.

The source is an .npz with the convolutions `w{i}`, `b{i}` in graph order and the graph itself as
JSON (`graph`). All but its last four convolutions are MobileNetV2 up to the 320-channel stride-16
map, in the order of timm's modules; those four are the ASPP head. The network reads RGB in [-1, 1]
(mean 0.5, std 0.5).
"""

from pathlib import Path

import numpy as np
import timm
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor

# name -> position in the graph, with the shapes of the 21-class VOC network
HEAD_CONVOLUTIONS = {
    "aspp": 62,  # 1x1 on the stride-16 map: (256, 320, 1, 1), ReLU
    "pooling": 63,  # 1x1 on its global average: (256, 320, 1, 1), ReLU
    "projection": 67,  # on cat([pooling, aspp]) in this order: (256, 512, 1, 1), ReLU
    "classifier": 68,  # (21, 256, 1, 1), no activation
}


def backbone_state_dict(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """State dict of `timm.create_model("mobilenetv2_100", features_only=True)`.

    A folded batch norm becomes an identity plus bias: weight 1, mean 0, variance 1 - eps.
    """
    network = timm.create_model("mobilenetv2_100", features_only=True)
    modules = list(network.named_modules())
    convolutions = [name for name, m in modules if isinstance(m, torch.nn.Conv2d)]
    norms = [(name, m.eps) for name, m in modules if isinstance(m, torch.nn.BatchNorm2d)]
    positions = sorted(int(key[1:]) for key in arrays if key.startswith("w"))
    state = {}
    for conv, (norm, eps), i in zip(convolutions, norms, positions, strict=False):
        bias = torch.from_numpy(arrays[f"b{i}"])
        state[f"{conv}.weight"] = torch.from_numpy(arrays[f"w{i}"])
        state[f"{norm}.weight"] = torch.ones_like(bias)
        state[f"{norm}.bias"] = bias
        state[f"{norm}.running_mean"] = torch.zeros_like(bias)
        state[f"{norm}.running_var"] = torch.full_like(bias, 1 - eps)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    return state


def head_state_dict(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """`{aspp,pooling,projection,classifier}.{weight,bias}` (HEAD_CONVOLUTIONS)."""
    state = {}
    for name, i in HEAD_CONVOLUTIONS.items():
        state[f"{name}.weight"] = torch.from_numpy(arrays[f"w{i}"])
        state[f"{name}.bias"] = torch.from_numpy(arrays[f"b{i}"])
    return state


def load_deeplab(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the .npz and return (backbone, head) state dicts."""
    with np.load(path, allow_pickle=False) as arrays:
        arrays = dict(arrays)
    return backbone_state_dict(arrays), head_state_dict(arrays)


def main(source: Path, output: Path) -> None:
    """Write the backbone of SOURCE (.npz) to OUTPUT (.safetensors), the head under `aspp_head.`."""
    backbone, head = load_deeplab(source)
    save_file(backbone | {f"aspp_head.{name}": tensor for name, tensor in head.items()}, output)
    typer.echo(f"{output}: {len(backbone)} backbone and {len(head)} head tensors")


if __name__ == "__main__":
    typer.run(main)
