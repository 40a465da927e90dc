# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from proxyformer_hf.configuration_nanodet import NanoDetConfig
from proxyformer_hf.modeling_nanodet import NanoDetBackbone

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "scripts"))
import convert_nanodet  # noqa: E402

COCO = [  # the 80 classes of its detection task, by torchvision
    name
    for name in FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    if name not in ("__background__", "N/A")
]


# of NanoDet's recipes, for BGR of 0 to 255
BGR_MEAN, BGR_STD = torch.tensor([[103.53, 116.28, 123.675], [57.375, 57.12, 58.395]])


@pytest.fixture(scope="module")
def original() -> NanoDetBackbone:
    """For BGR, of random weights that float16 holds exactly and that keep the size of the maps."""
    torch.manual_seed(0)
    model = NanoDetBackbone(NanoDetConfig(num_labels=80))
    with torch.no_grad():
        for weight in model.parameters():
            scale = 0.1 if weight.ndim == 1 else math.sqrt(2 / weight[0].numel())
            weight.normal_(std=scale).copy_(weight.half())
    return model.eval()


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """RGB in [0, 1]."""
    return torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(0)).double()


def as_original_reads(picture: Tensor) -> Tensor:
    return (255 * picture.flip(1) - BGR_MEAN.view(3, 1, 1)) / BGR_STD.view(3, 1, 1)


def graph_of(model: NanoDetBackbone) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Nodes and constants as TensorFlow.js has them: weights (rows, columns, in, out).

    The nodes are shuffled, and every other addition has the bias first.
    """
    nodes, arrays = [], {"axis": np.array(3, np.int32), "none": np.zeros((0, 2), np.int32)}
    for number, module in enumerate(m for m in model.modules() if isinstance(m, nn.Conv2d)):
        weight = module.weight.detach().numpy().transpose(2, 3, 1, 0)
        ending = f"_{number}" if number else ""
        conv, bias = f"graph/convolution{ending}", f"unknown_{2 * number}"
        arrays[f"split{ending}"] = weight
        arrays[bias] = module.bias.detach().numpy()
        inputs = [conv, bias] if number % 2 else [bias, conv]
        nodes += [
            {"op": "Conv2D", "name": conv, "input": [f"graph/pad{ending}", f"split{ending}"]},
            {"op": "Add", "name": f"graph/Add{ending}", "input": inputs},
        ]
    nodes.append({"op": "Add", "name": "graph/sum", "input": ["graph/Add_3", "graph/Add_4"]})
    nodes.append({"op": "Placeholder", "name": "input_1"})
    order = np.random.default_rng(0).permutation(len(nodes))
    return [nodes[i] for i in order], arrays


def write(folder: Path, nodes: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> Path:
    """nanodet.json and nanodet.bin, in which all but whole numbers are float16."""
    entries, data = [], b""
    for name, array in arrays.items():
        entry = {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
        if array.dtype == np.float32:
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
            array = array.astype(np.float16)
        entries.append(entry)
        data += array.tobytes()
    (folder / "nanodet.bin").write_bytes(data)
    groups = [{"paths": ["nanodet.bin"], "weights": entries}]
    path = folder / "nanodet.json"
    path.write_text(json.dumps({"modelTopology": {"node": nodes}, "weightsManifest": groups}))
    return path


def assert_same_but_for_the_stem(model: NanoDetBackbone, original: NanoDetBackbone):
    weights, expected = model.state_dict(), original.state_dict()
    assert weights.keys() == expected.keys()
    for name in weights.keys() - {"stem.weight", "stem.bias"}:
        assert torch.equal(weights[name], expected[name]), name


def test_every_weight_comes_back(tmp_path, original):
    convert_nanodet.main(write(tmp_path, *graph_of(original)), tmp_path / "out", 0.4, 0.3)
    model = NanoDetBackbone.from_pretrained(tmp_path / "out")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert_same_but_for_the_stem(model, original)
    assert list(model.config.id2label.values()) == COCO
    converted = convert_nanodet.convert(tmp_path / "nanodet.json", 0.4, 0.3)
    for name, weight in converted.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_weights_may_lie_in_several_files(tmp_path, original):
    path = write(tmp_path, *graph_of(original))
    data = (tmp_path / "nanodet.bin").read_bytes()
    half = len(data) // 2 + 1  # within a number
    (tmp_path / "nanodet.bin").write_bytes(data[:half])
    (tmp_path / "more.bin").write_bytes(data[half:])
    model = json.loads(path.read_text())
    model["weightsManifest"][0]["paths"].append("more.bin")
    path.write_text(json.dumps(model))
    assert_same_but_for_the_stem(convert_nanodet.convert(path, 0.5, 0.5), original)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.4, 0.25)])
@torch.no_grad()
def test_converted_it_sees_the_same_but_at_the_borders(tmp_path, original, picture, mean, std):
    """In the stages up to stride 16: those before what joins all places."""
    model = convert_nanodet.convert(write(tmp_path, *graph_of(original)), mean, std).double()
    found = model((picture - mean) / std).feature_maps
    expected = copy.deepcopy(original).double()(as_original_reads(picture)).feature_maps
    for ours, theirs, channels in zip(found[:3], expected[:3], (64, 128, 256), strict=True):
        ours, theirs = ours[:, :channels, 14:, 14:], theirs[:, :channels, 14:, 14:]
        assert theirs.std() > 0.1 and theirs.numel() > 0
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_with_imagenets_statistics_it_sees_the_same_everywhere(original, picture):
    original = copy.deepcopy(original).double()
    model = copy.deepcopy(original)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    convert_nanodet.adapt_stem(model.stem, mean, std)
    found = model((picture - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    expected = original(as_original_reads(picture))
    for name in ("feature_maps", "class_maps"):
        for ours, theirs in zip(found[name], expected[name], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_fourth_stage_can_be_left_out(tmp_path, original):
    model = convert_nanodet.convert(write(tmp_path, *graph_of(original)), 0.5, 0.5, num_stages=3)
    assert model.channels == [64, 256, 384] and len(model.heads) == 2
    expected, weights = original.state_dict(), model.state_dict()
    for name in weights.keys() - {"stem.weight", "stem.bias"}:
        assert torch.equal(weights[name], expected[name]), name
    assert list(model.config.id2label.values()) == COCO


def test_classes_are_cocos():
    assert len(COCO) == 80 and convert_nanodet.CLASSES == COCO


def test_another_network_is_refused(tmp_path, original):
    nodes, arrays = graph_of(original)
    arrays["split_7"] = arrays["split_7"][..., :-1]
    with pytest.raises(ValueError, match=r"nanodet.json has convolutions of .*NanoDet-g has"):
        convert_nanodet.convert(write(tmp_path, nodes, arrays), 0.5, 0.5)
    fewer = [node for node in nodes if node["name"] != "graph/convolution_7"]
    _, arrays = graph_of(original)
    with pytest.raises(ValueError, match=r"nanodet.json has convolutions of .*NanoDet-g has"):
        convert_nanodet.convert(write(tmp_path, fewer, arrays), 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (-200_000, "nanodet.json: the weights end at byte {found}, before"),
        (-1, "nanodet.json: the weights end at byte {found}, before {size}"),
        (2, "nanodet.json tells of {size} bytes of weights, but has {found}"),
    ],
)
def test_weights_of_another_length_are_refused(tmp_path, original, change, message):
    path = write(tmp_path, *graph_of(original))
    data = (tmp_path / "nanodet.bin").read_bytes()
    size, found = len(data), len(data) + change
    (tmp_path / "nanodet.bin").write_bytes((data + bytes(2))[:found])
    with pytest.raises(ValueError, match=message.format(size=size, found=found)):
        convert_nanodet.convert(path, 0.5, 0.5)
