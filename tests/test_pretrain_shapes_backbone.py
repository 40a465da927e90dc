# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoBackbone, TimmBackboneConfig

from proxyformer_hf.data.moving_shapes import generate_video
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from tests.tiny_model import tiny_model

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import pretrain_shapes_backbone as script  # noqa: E402


@pytest.mark.parametrize("only_shapes", [False, True])
def test_a_frame_comes_with_its_objects_and_their_names(only_shapes: bool):
    share = 1.0 if only_shapes else 0.0
    pixels, covers, names, frames = script.NamedFrames("valid", 10, share)[7]

    video = generate_video(7, "valid", num_frames=1, seed=1, only_shapes=only_shapes)
    expected = (video.frames[0].transpose(2, 0, 1) / 255 - script.MEAN) / script.STD
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-6)
    assert len(covers) == len(names) == len(frames) == len(video.scene.objects)
    for number, (shown, cover, values) in enumerate(
        zip(video.scene.objects, covers, names.tolist(), strict=True), start=1
    ):
        pixels_of_it = np.argwhere(video.object_map[0] == number)
        spread = np.zeros(cover.shape)
        for row, column in pixels_of_it // script.STRIDE:
            spread[row, column] += 1 / len(pixels_of_it)
        np.testing.assert_allclose(cover.numpy(), spread, atol=1e-6)
        for value, (name, known) in zip(values, script.NAMES.items(), strict=True):
            assert (known[value] if value >= 0 else "") == getattr(shown, name)


def test_objects_are_named_from_their_own_frame_and_place():
    torch.manual_seed(0)
    config = TimmBackboneConfig(backbone="test_resnet", out_indices=[1, 2, 3])
    network = script.NamingNetwork(AutoBackbone.from_config(config)).eval()
    frames = script.NamedFrames("valid", 3, 0.0)
    batch = script.collate([frames[i] for i in range(3)])

    logits = torch.cat(network(batch), dim=1)

    expected = []
    for i in range(3):
        features = network.backbone(frames[i].pixels[None]).feature_maps[-1][0]
        expected += [
            network.classifier((features * cover).sum((1, 2))) for cover in frames[i].covers
        ]
    torch.testing.assert_close(logits, torch.stack(expected))


def test_a_size_that_changes_is_not_asked_for():
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, len(v), generator=generator) for v in script.NAMES.values()]
    names = torch.tensor([[4, 7, 2, script.UNNAMED], [0, 3, 1, 1]])

    loss = script.naming_loss(tuple(logits), names)

    expected = 0.0
    for (name, weight), scores, values in zip(
        script.WEIGHTS.items(), logits, names.T.tolist(), strict=True
    ):
        asked = [row for row in range(2) if not (name == "size" and row == 0)]
        terms = [-F.softmax(scores[row], 0)[values[row]].log().item() for row in asked]
        expected += weight * sum(terms) / len(terms)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_recipe_reads_the_backbone_that_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    script.main(tmp_path / "backbone", steps=3, batch_size=2, workers=0)

    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == list(script.NAMES)
    text = tiny_model().config.text_config
    model = ProxyFormerForReferringSegmentation.from_backbones(
        str(tmp_path / "backbone"), text, encoded_stride=16, hidden_size=32
    )
    network = model.model.video_encoder.backbone
    assert network.config.out_indices == [1, 2, 3]
    torch.manual_seed(0)
    config = TimmBackboneConfig(backbone="test_resnet", out_indices=[1, 2, 3])
    untrained = AutoBackbone.from_config(config).state_dict()
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked") and "layer4" not in name:
            assert tensor == 3  # the batches of the training
        elif name.endswith("conv1.weight") and "layer4" not in name:
            assert 0 < (tensor - untrained[name]).abs().max() < 0.01  # Adam's few steps
