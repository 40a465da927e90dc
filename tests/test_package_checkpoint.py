# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file
from transformers import TimmBackboneConfig

from proxyformer_hf import ProxyFormerForReferringSegmentation
from tests.tiny_model import TINY_TIMM, perturb, tiny_model, tiny_processor

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from package_checkpoint import fold, main  # noqa: E402

MOBILENET = TimmBackboneConfig(
    backbone="mobilenetv2_035", out_indices=[1, 2, 3, 4], freeze_batch_norm_2d=True
)


def trained_model(vision: TimmBackboneConfig, **fields) -> ProxyFormerForReferringSegmentation:
    """Batch norms have statistics and factors of their own."""
    model = perturb(tiny_model(vision_config=vision, **fields)).eval()
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.model.video_encoder.backbone.named_buffers():
        if name.endswith(("running_mean", "running_var", "weight", "bias")):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def run(model: ProxyFormerForReferringSegmentation) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    video = torch.rand(1, 2, 3, 64, 96, generator=generator)
    with torch.no_grad():
        return model(video, torch.tensor([[0, 7, 8, 2]])).pred_masks


def test_folded_batch_norms_change_no_answer():
    model = trained_model(MOBILENET)
    expected = run(model)
    fold(model)
    assert model.config.folded_batch_norm
    assert "Norm" not in str(model.model.video_encoder.backbone)
    scale = expected.std().item()
    torch.testing.assert_close(run(model), expected, rtol=0.01, atol=0.01 * scale)


def test_a_packaged_model_is_the_folded_one_in_half_precision(tmp_path):
    model = trained_model(MOBILENET)
    model.save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    main(tmp_path / "model", tmp_path / "package", shortest_edge=256, longest_edge=448)
    loaded = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path / "package").eval()
    fold(model)
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(run(loaded), run(model.half().float()), rtol=1e-4, atol=1e-4)
    shard = load_file(tmp_path / "package" / "model-text.safetensors")
    assert all(name.startswith("model.text_encoder.") for name in shard)
    assert {tensor.dtype for tensor in shard.values() if tensor.is_floating_point()} == {
        torch.float16
    }
    size = json.loads((tmp_path / "package" / "processor_config.json").read_text())
    assert size["video_processor"]["size"] == {"shortest_edge": 256, "longest_edge": 448}


def test_a_frozen_vocabulary_is_stored_in_a_byte_each_and_loads_nearly_the_same(tmp_path):
    model = tiny_model(freeze_text=True)
    model.save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    main(tmp_path / "model", tmp_path / "package")
    shard = load_file(tmp_path / "package" / "model-text.safetensors")
    sizes = {name: tensor.element_size() for name, tensor in shard.items()}
    (vocabulary,) = (name for name, size in sizes.items() if size == 1)
    assert shard[vocabulary].shape == model.get_input_embeddings().weight.shape
    loaded = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path / "package")
    assert loaded.dtype == torch.float32
    rounded, exact = (each.get_input_embeddings().weight for each in (loaded, model))
    # of three bits of mantissa half of the last is lost, of the smallest numbers 2 ** -10
    assert ((rounded - exact).abs() <= (exact.abs() / 16).clamp(min=2**-10)).all()
    assert not torch.equal(rounded, exact)


def test_a_packaged_model_can_be_packaged_again():
    model = trained_model(MOBILENET)
    fold(model)
    expected = run(model)
    fold(model)
    torch.testing.assert_close(run(model), expected, rtol=0, atol=0)


def test_batch_norms_that_are_not_frozen_stay():
    model = trained_model(TINY_TIMM)
    fold(model)
    assert not model.config.folded_batch_norm
    assert "BatchNorm" in str(model.model.video_encoder.backbone)


def test_norms_of_something_else_than_the_convolution_before_them_are_refused():
    model = trained_model(MOBILENET)
    stem = model.model.video_encoder.backbone._backbone.conv_stem
    stem.register_forward_hook(lambda conv, inputs, hidden: 3 * hidden)
    with pytest.raises(ValueError, match="mobilenetv2_035 cannot be folded"):
        fold(model)


def test_a_folder_that_is_there_is_not_overwritten(tmp_path):
    with pytest.raises(typer.BadParameter, match="remove it first"):
        main(tmp_path, tmp_path)
