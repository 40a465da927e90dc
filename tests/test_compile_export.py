# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""torch.compile, torch.export and bfloat16 agree with the eager float32 model.

`frame_mask` and `pixel_mask` are left out, as they should be for videos of one size: what they do
depends on their values, which a graph cannot.
"""

import shutil
from statistics import median

import pytest
import torch
from transformers import PreTrainedConfig, RobertaConfig, TimmBackboneConfig
from transformers.testing_utils import slow

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation

VISION_CONFIGS = {
    # the second layer's windows are shifted over a map of more than one window
    "video_swin": VideoSwinConfig(
        embed_dim=16, depths=(2, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=(2, 3, 3)
    ),
    "timm": TimmBackboneConfig(
        backbone="resnet10t", out_indices=[1, 2, 3, 4], freeze_batch_norm_2d=True
    ),
}
OUTPUTS = ("pred_logits", "pred_boxes", "pred_masks", "referred_masks", "referred_scores")


def tiny_model(
    vision_config: PreTrainedConfig, seed: int = 0
) -> ProxyFormerForReferringSegmentation:
    config = ProxyFormerConfig(
        text_config=RobertaConfig(
            vocab_size=30,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
        ),
        vision_config=vision_config,
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=1,
        num_queries=3,
        mask_feature_size=16,
    )
    torch.manual_seed(seed)
    return ProxyFormerForReferringSegmentation(config).eval()


@pytest.fixture(params=VISION_CONFIGS)
def model(request) -> ProxyFormerForReferringSegmentation:
    return tiny_model(VISION_CONFIGS[request.param])


@pytest.fixture(params=[False, True], ids=["all words", "padded words"])
def inputs(request) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, 30, (1, 5), generator=generator)
    inputs = {
        "pixel_values_videos": torch.randn(1, 2, 3, 40, 64, generator=generator),
        "input_ids": input_ids,
    }
    if request.param:
        input_ids[0, 3:] = 1
        inputs["attention_mask"] = (input_ids != 1).long()
    return inputs


def assert_same_outputs(outputs, expected):
    for name in OUTPUTS:
        torch.testing.assert_close(outputs[name], expected[name], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_full_graph_compiles_with_equal_results(model, inputs):
    """Without generated code: whether the graph is whole shows before the back end's turn."""
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    assert_same_outputs(compiled(**inputs), model(**inputs))


@slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++ on a CPU")
@torch.no_grad()
def test_generated_code_has_equal_results(model, inputs):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    assert_same_outputs(compiled(**inputs), model(**inputs))


@torch.no_grad()
def test_exported_program_has_equal_results(model, inputs):
    exported = torch.export.export(model, (), inputs).module()
    others = {
        **inputs,
        "pixel_values_videos": inputs["pixel_values_videos"].flip(-1) + 0.5,
        "input_ids": inputs["input_ids"].roll(1, -1),
    }
    for given in (inputs, others):
        assert_same_outputs(exported(**given), model(**given))


@pytest.mark.parametrize("vision", VISION_CONFIGS)
@torch.no_grad()
def test_bfloat16_autocast_agrees_within_2_percent(vision, inputs):
    """In the median of five random networks: any one may amplify a rounding, say by a near tie."""
    names = ("pred_logits", "pred_boxes", "pred_masks")
    differences = {name: [] for name in names}
    for seed in range(5):
        model = tiny_model(VISION_CONFIGS[vision], seed)
        expected = model(**inputs)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(**inputs)
        for name in names:
            difference = (outputs[name].float() - expected[name]).abs().max()
            differences[name].append((difference / expected[name].abs().max()).item())
    for name in names:
        assert 0 < median(differences[name]) <= 2e-2, (name, differences[name])
