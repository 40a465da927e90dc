# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
WEIGHTS = SHARED / "weights" / "deeplabv3_mnv2_pascal_float.npz"
sys.path.append(str(REPOSITORY / "scripts"))
from convert_deeplab_mobilenetv2 import load_deeplab  # noqa: E402

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="needs the DeepLabV3 weights")

ACTIVATIONS = {0: lambda x: x, 1: F.relu, 3: lambda x: x.clamp(0, 6)}


def run_graph(arrays, pixels: torch.Tensor) -> dict[int, torch.Tensor]:
    """Literal execution of the stored graph: operation number -> output."""
    graph = json.loads(str(arrays["graph"]))
    values, outputs = {graph["inp"]: pixels}, {}
    for op in graph["ops"]:
        inputs = [values[i] for i in op["i"]]
        n = op["n"]
        if op["op"] == "conv":
            weight, bias = torch.from_numpy(arrays[f"w{n}"]), torch.from_numpy(arrays[f"b{n}"])
            padding = op["d"] * (weight.shape[-1] - 1) // 2  # SAME, for odd sizes
            value = F.conv2d(inputs[0], weight, bias, op["s"], padding, op["d"], op["g"])
            value = ACTIVATIONS[op["act"]](value)
        elif op["op"] == "add":
            value = inputs[0] + inputs[1]
        elif op["op"] == "gap":
            value = inputs[0].mean((-2, -1), keepdim=True)
        elif op["op"] == "resize":
            value = inputs[0].expand(-1, -1, *outputs[60].shape[-2:]) if n == 64 else inputs[0]
        elif op["op"] == "cat":
            value = torch.cat(inputs, 1)
        else:
            value = inputs[0]
        values[op["o"]] = outputs[n] = value
    return outputs


@pytest.fixture(scope="module")
def arrays():
    return dict(np.load(WEIGHTS))


@pytest.fixture(scope="module")
def pixels():
    path = SHARED / "data/davis16_train_240p/JPEGImages/bus/00000.jpg"
    image = Image.open(path).resize((257, 161))
    return torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None] / 127.5 - 1


def test_timm_network_equals_the_stored_graph_at_each_stride(arrays, pixels):
    backbone, _ = load_deeplab(WEIGHTS)
    network = timm.create_model("mobilenetv2_100", features_only=True, output_stride=16).eval()
    network.load_state_dict(backbone, strict=True)
    with torch.no_grad():
        outputs = run_graph(arrays, pixels)
        features = network(pixels)
    for feature, operation in zip(features, (2, 9, 20, 46, 60), strict=True):
        scale = outputs[operation].abs().max()
        torch.testing.assert_close(feature / scale, outputs[operation] / scale, atol=1e-5, rtol=0)


def test_head_on_the_stride_16_map_sees_the_bus(arrays, pixels):
    _, head = load_deeplab(WEIGHTS)
    with torch.no_grad():
        outputs = run_graph(arrays, pixels)
        x = outputs[60]
        conv = {name: (head[f"{name}.weight"], head[f"{name}.bias"]) for name in HEAD_NAMES}
        pooled = F.conv2d(x.mean((-2, -1), keepdim=True), *conv["pooling"]).relu()
        local = F.conv2d(x, *conv["aspp"]).relu()
        joined = torch.cat([pooled.expand_as(local), local], 1)
        logits = F.conv2d(F.conv2d(joined, *conv["projection"]).relu(), *conv["classifier"])
    torch.testing.assert_close(logits, outputs[68], atol=1e-4, rtol=1e-5)
    bus = 6  # Pascal VOC order: background, aeroplane, bicycle, bird, boat, bottle, bus
    assert (logits.argmax(1) == bus).float().mean() > 0.1


HEAD_NAMES = ("aspp", "pooling", "projection", "classifier")
