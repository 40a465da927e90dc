# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer, RobertaConfig, RobertaModel

from proxyformer_hf.data import sources
from proxyformer_hf.data.clips import ClipRecipe
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.training import (
    Recipe,
    WeightAverage,
    parameter_groups,
    save_checkpoint,
    train,
)
from tests.tiny_model import save_tiny_checkpoint
from tests.toy_data import make_data_folder

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.append(str(SCRIPTS))
import evaluate_dev  # noqa: E402
import train as train_script  # noqa: E402

CLIPS = {"num_frames": 2, "video_size": [32, 64], "image_size": [32, 64]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data"))


def tiny_recipe() -> Recipe:
    clips = ClipRecipe(**CLIPS)
    return Recipe(vision={}, text="", clips=clips, warmup_steps=1, learning_rate=1e-3)


def run(tiny: Path, data_dir: Path, output: Path, resume=False, evaluate=dict, **kwargs):
    model = ProxyFormerForReferringSegmentation.from_pretrained(tiny)
    torch.manual_seed(0)
    processor = ProxyFormerProcessor.from_pretrained(tiny)
    options = {"num_workers": 0, "checkpoint_minutes": 0.0, "evaluate_every": 2} | kwargs
    train(
        model,
        processor,
        tiny_recipe(),
        data_dir,
        output,
        max_steps=4,
        resume=resume,
        evaluate=evaluate,
        **options,
    )
    return load_file(output / "last" / "model.safetensors")


def test_resumed_run_ends_like_an_uninterrupted_one(tiny, data_dir, tmp_path):
    whole = run(tiny, data_dir, tmp_path / "whole")

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, data_dir, tmp_path / "parts", evaluate=interrupt)
    resumed = run(tiny, data_dir, tmp_path / "parts", resume=True)
    start = load_file(tiny / "model.safetensors")
    assert any(not torch.equal(whole[name], start[name]) for name in whole)
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-7, rtol=1e-6)


def test_log_has_every_loss_term_and_the_scores(tiny, data_dir, tmp_path):
    run(tiny, data_dir, tmp_path, evaluate=lambda: {"score": 12.5})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines if "score" in line] == [12.5, 12.5]
    (last,) = [line for line in lines if "loss" in line]
    assert last["step"] == 4 and last["gradient_norm"] > 0
    assert {"loss_class", "loss_bbox", "loss_giou", "loss_mask", "loss_dice"} < set(last)


def test_average_follows_its_formula_and_swaps_back():
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average = WeightAverage(model, decay=0.5)
    expected = 1.0
    for step, value in enumerate((3.0, 5.0, -2.0, 8.0), 1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 8.0


def test_parameter_groups_hold_each_trained_parameter_once(tiny):
    model = ProxyFormerForReferringSegmentation.from_pretrained(tiny)
    model.model.text_encoder.requires_grad_(False)
    recipe = tiny_recipe()
    groups = parameter_groups(model, recipe)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    grouped = [id(p) for group in groups for p in group["params"]]
    assert set(grouped) == trained and len(grouped) == len(trained)
    names = {id(p): name for name, p in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            in_backbone = "video_encoder.backbone." in names[id(parameter)]
            assert group["lr"] == pytest.approx(1e-4 if in_backbone else 1e-3)
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)


def test_failed_save_leaves_the_last_checkpoint(tiny, tmp_path):
    model = ProxyFormerForReferringSegmentation.from_pretrained(tiny)
    processor = ProxyFormerProcessor.from_pretrained(tiny)
    average = WeightAverage(model, 0.9)
    save_checkpoint(tmp_path / "last", model, processor, average, {"step": 1})

    class Broken:
        def save_pretrained(self, folder):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "last", model, Broken(), average, {"step": 2})
    state = torch.load(tmp_path / "last" / "training_state.pt", weights_only=True)
    assert state["step"] == 1
    save_checkpoint(tmp_path / "last", model, processor, average, {"step": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_recipe_names_an_unknown_setting(tmp_path):
    path = tmp_path / "recipe.yaml"
    for values in ({"lerning_rate": 1}, {"clips": {"lerning_rate": 1}}):
        path.write_text(yaml.dump({"vision": {}, "text": "x"} | values))
        with pytest.raises(ValueError, match="unknown setting lerning_rate"):
            Recipe.from_yaml(path)


@pytest.mark.parametrize("path", sorted((SCRIPTS / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_recipes_load(path):
    recipe = Recipe.from_yaml(path)
    assert isinstance(recipe.clips, ClipRecipe) and recipe.learning_rate > 0


def test_script_trains_and_evaluates_a_new_model(tiny, data_dir, tmp_path, monkeypatch, capsys):
    text = tmp_path / "text"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.save_pretrained(text)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    RobertaModel(config).save_pretrained(text)
    values = {
        "vision": {"backbone": "test_efficientnet", "out_indices": [1, 2, 3, 4]},
        "text": str(text),
        "model": {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1},
        "clips": CLIPS,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.dump(values))
    monkeypatch.setattr(sources, "DEV_IMAGES", {9001})
    monkeypatch.setattr(evaluate_dev, "DEV_VIDEOS", ("bus",))
    train_script.main(
        tmp_path / "recipe.yaml", data_dir, tmp_path / "run", 2, num_workers=0, evaluate_every=2
    )
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    scores = {"dev_J", "dev_J_blind", "dev_image_right", "dev_image_swapped", "dev_image_blind"}
    assert scores < set(lines[-1])

    output = tmp_path / "dev"
    evaluate_dev.main(tmp_path / "run/last", data_dir, output, size=32, stride=4)
    report = json.loads((output / "dev.json").read_text())
    assert set(report["videos"]) == {"bus"} and report["images"]["template"]["pairs"] == 1
    assert (output / "dev.png").exists() and "swapped" in capsys.readouterr().out
