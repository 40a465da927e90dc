# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The recipes that ship: what each trains, by what source; the variants; how to launch."""

import copy
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import (
    AutoTokenizer,
    RobertaConfig,
    RobertaModel,
    TimmBackbone,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from proxyformer_hf import modeling_proxyformer
from proxyformer_hf.configuration_nanodet import NanoDetConfig
from proxyformer_hf.configuration_proxyformer import ROBERTA_BASE
from proxyformer_hf.modeling_nanodet import NanoDetBackbone
from proxyformer_hf.pipeline_referring_video_segmentation import DEFAULT_CHECKPOINT
from proxyformer_hf.training.recipe import VARIANTS, ModelRecipe, Recipe, load_recipe
from tests.tiny_model import TINY_TIMM, save_tiny_checkpoint, tiny_model

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "scripts/recipes"
sys.path.append(str(ROOT / "scripts"))
import train as train_script  # noqa: E402

STAGES = {  # recipe: epochs, drops, clips of a process, frozen words, weight decay, data
    "refcoco_pretraining": (12, [8, 10], 2, False, 5e-4, ["refcoco", "refcoco+", "refcocog"]),
    "ref_youtube_vos": (30, [20], 1, True, 5e-4, ["ref-youtube-vos"]),
    "ref_youtube_vos_finetuning": (6, [3, 5], 1, True, 5e-4, ["ref-youtube-vos"]),
    "joint": (12, [8, 10], 1, True, 5e-4, ["ref-youtube-vos", "refcoco", "refcoco+", "refcocog"]),
    "a2d_sentences": (30, [20], 1, True, 1e-4, ["a2d-sentences"]),
    "a2d_sentences_finetuning": (6, [3, 5], 2, True, 5e-4, ["a2d-sentences"]),
}
SWINS = {  # of the name's ending: torchvision's name, channels, depths, activation checkpointing
    "_video_swin_tiny": ("swin3d_t", 96, [2, 2, 6, 2], False),
    "_video_swin_small": ("swin3d_s", 96, [2, 2, 18, 2], True),
    "_video_swin_base": ("swin3d_b", 128, [2, 2, 18, 2], True),
}
PARTS = ["video_swin_tiny", "video_swin_small", "video_swin_base"]
LAUNCHES = ["accelerate_cpu", "accelerate_ddp", "accelerate_fsdp"]
PAPERS = [*STAGES, *(stage + swin for stage in STAGES for swin in SWINS)]


def recipe_of(name: str, *overrides: str) -> Recipe:
    return load_recipe(RECIPES / f"{name}.yaml", overrides=overrides)


def test_every_file_is_known_or_a_recipe_by_itself():
    found = {path.stem for path in RECIPES.glob("*.yaml")}
    assert found >= {*PAPERS, *PARTS, *LAUNCHES}
    for name in found - {*PARTS, *LAUNCHES}:
        recipe_of(name)


@pytest.mark.parametrize("swin", ["", *SWINS])
@pytest.mark.parametrize("stage", STAGES)
def test_recipe_trains_what_its_source_says(stage, swin):
    recipe = recipe_of(stage + swin)
    epochs, drops, batch_size, frozen, weight_decay, names = STAGES[stage]
    assert recipe.run.epochs == epochs and recipe.optimizer.milestones == drops
    assert recipe.run.batch_size == batch_size
    assert recipe.optimizer.freeze_text is frozen
    assert recipe.optimizer.weight_decay == weight_decay
    assert [source.name for source in recipe.data] == names
    assert {source.num_frames for source in recipe.data} == {1 if "pretraining" in stage else 5}
    assert recipe.model.config == {}  # the paper's model
    vision, *_, checkpointing = SWINS.get(swin, ("resnet50", False))
    assert recipe.model.vision == vision and recipe.run.activation_checkpointing is checkpointing
    learning_rates = recipe.optimizer.learning_rate, recipe.optimizer.vision_learning_rate
    assert learning_rates == (1e-4, 5e-5) and recipe.optimizer.decay == 0.1


@pytest.mark.parametrize(
    ("stage", "size"), [("ref_youtube_vos", (360, 640)), ("a2d_sentences", (320, 576))]
)
def test_papers_stages_have_the_papers_sizes_and_windows(stage, size):
    for name in (stage, f"{stage}_finetuning"):
        (source,) = recipe_of(name).data
        assert (max(source.transform["short_sides"]), source.transform["max_size"]) == size
        assert source.sampling == "consecutive"


@pytest.mark.parametrize("stage", ["ref_youtube_vos_finetuning", "a2d_sentences_finetuning"])
@pytest.mark.parametrize("swin", ["", *SWINS])
def test_finetuning_starts_from_the_pretraining_with_its_backbone(stage, swin):
    assert recipe_of(stage + swin).model.start_from == f"runs/refcoco_pretraining{swin}/model"


def leaves(values: Any, place: tuple = ()) -> Iterator[tuple]:
    """Places of what is no mapping and no list of mappings."""
    if isinstance(values, dict):
        entries = values.items()
    elif isinstance(values, list) and values and isinstance(values[0], dict):
        entries = enumerate(values)
    else:
        yield place
        return
    for key, value in entries:
        yield from leaves(value, (*place, key))


def lines_of_values(node: yaml.Node) -> Iterator[int]:
    """Lines on which a file gives a value of its own."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value not in ("<<", "base", "distributed_type"):
                yield from lines_of_values(value)
    elif isinstance(node, yaml.SequenceNode) and not node.flow_style:
        for entry in node.value:
            yield from lines_of_values(entry)
    else:
        yield node.start_mark.line


@pytest.mark.parametrize("name", [*PAPERS, *PARTS, *LAUNCHES])
def test_every_value_names_its_source(name):
    text = (RECIPES / f"{name}.yaml").read_text()
    lines = text.splitlines()
    for line in lines_of_values(yaml.compose(text)):
        assert re.search(r"# .*(paper I|ReferFormer|ours)", lines[line]), lines[line]


@pytest.mark.parametrize("name", [*STAGES, *PARTS])
def test_no_value_repeats_what_holds_without_it(name, tmp_path):
    for path in RECIPES.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    whole = tmp_path / f"{name}.yaml"
    if name in PARTS:
        whole = tmp_path / f"ref_youtube_vos_{name}.yaml"
    values = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())
    expected = load_recipe(whole)
    for *parents, key in leaves(values):
        if parents or key != "base":
            changed = copy.deepcopy(values)
            inner = changed
            for parent in parents:
                inner = inner[parent]
            del inner[key]
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(changed))
            try:
                recipe = load_recipe(whole)
            except (ValueError, TypeError):
                continue  # it is needed
            assert recipe != expected, (*parents, key)


@pytest.fixture
def no_downloads(monkeypatch):
    """Networks of the real sizes without weights, on the meta device."""
    weights = SimpleNamespace(get_state_dict=None)

    def get_model_weights(name: str) -> SimpleNamespace:
        weights.get_state_dict = torchvision.models.get_model(name).state_dict
        return SimpleNamespace(DEFAULT=weights)

    timm_backbone = TimmBackbone._from_config
    tokenizer = AutoTokenizer.from_pretrained(DEFAULT_CHECKPOINT)
    roberta = RobertaConfig(**ROBERTA_BASE)
    monkeypatch.setattr(torchvision.models, "get_model_weights", get_model_weights)
    monkeypatch.setattr(
        TimmBackbone, "_from_config", lambda config, pretrained=False: timm_backbone(config)
    )
    monkeypatch.setattr(
        modeling_proxyformer.AutoModel, "from_pretrained", lambda *_, **__: RobertaModel(roberta)
    )
    monkeypatch.setattr(train_script.AutoTokenizer, "from_pretrained", lambda name: tokenizer)
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("swin", ["", *SWINS])
def test_recipe_builds_the_papers_model(swin, no_downloads):
    model, _ = train_script.build_model(recipe_of(f"ref_youtube_vos{swin}"))
    config = model.config
    assert (config.num_hidden_layers, config.num_queries, config.hidden_size) == (4, 5, 256)
    assert config.interaction == "decoupled" and config.jsc_semantics == "both"
    assert config.freeze_text
    backbone = model.model.video_encoder.backbone
    if swin:
        _, channels, depths, _ = SWINS[swin]
        assert backbone.config.embed_dim == channels
        assert list(backbone.config.depths) == depths
        assert list(backbone.config.window_size) == [8, 7, 7]
    else:
        assert backbone.config.backbone == "resnet50" and backbone.config.freeze_batch_norm_2d
        assert sum(weight.numel() for weight in backbone.parameters()) == 23_454_912


def test_a_detector_is_built_in_with_the_names_of_its_classes_read(tmp_path):
    config = NanoDetConfig(stem_size=4, neck_size=4, id2label={0: "cat", 1: "red car"})
    NanoDetBackbone(config).save_pretrained(tmp_path)
    overrides = [f"model.detector={tmp_path}", "optimizer.freeze_text=true"]
    recipe = recipe_of("moving_shapes_ablation", *overrides)
    model, _ = train_script.build_model(recipe, ["the red car", "a cat"])
    assert model.config.detector_config.id2label == config.id2label
    words = model.model.class_hidden
    assert words.isfinite().all() and (words[0] - words[1]).abs().max() > 0.1


def test_a_classifier_joins_a_model_that_was_trained_without(tmp_path):
    fields = {"freeze_text": True, "grounding_map": True, "frozen_grounding": True}
    save_tiny_checkpoint(tmp_path / "start", **fields)
    config = TimmWrapperConfig(architecture="test_efficientnet", id2label={0: "cat", 1: "red car"})
    TimmWrapperForImageClassification(config).save_pretrained(tmp_path / "classifier")
    recipe = recipe_of("moving_shapes_ablation", "optimizer.freeze_text=true")
    start, classifier = str(tmp_path / "start"), str(tmp_path / "classifier")
    recipe.model = ModelRecipe(start_from=start, classifier=classifier)
    model, _ = train_script.build_model(recipe)
    assert model.config.classifier_config.id2label == {0: "cat", 1: "red car"}
    assert model.config.classifier_config._name_or_path == "classifier"  # not where it lay
    meanings = model.model.kinds.meanings
    torch.testing.assert_close(meanings.norm(dim=-1), torch.ones(2))
    for name, weight in tiny_model(**fields).state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_of_fewer_proxies_the_first_are_those_of_the_start(tmp_path):
    save_tiny_checkpoint(tmp_path)
    recipe = recipe_of("moving_shapes_ablation", "optimizer.freeze_text=false")
    recipe.model = ModelRecipe(start_from=str(tmp_path), config={"num_queries": 2})
    model, _ = train_script.build_model(recipe)
    trained = tiny_model().state_dict()
    first = trained.pop("model.encoder.proxy_queries")[:2]
    for name, weight in (trained | {"model.encoder.proxy_queries": first}).items():
        assert torch.equal(model.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("config", "name"),
    [({"num_hidden_layers": 2}, "encoder.layers.1"), ({"num_queries": 4}, "proxy_queries")],
)
def test_a_start_that_lacks_weights_is_refused(config, name, tmp_path):
    save_tiny_checkpoint(tmp_path)
    recipe = recipe_of("moving_shapes_ablation", "optimizer.freeze_text=false")
    recipe.model = ModelRecipe(start_from=str(tmp_path), config=config)
    with pytest.raises(ValueError, match=f"lacks weights.*{name}"):
        train_script.build_model(recipe)


def test_a_start_that_the_changed_fields_do_not_fit_is_refused_before_training(tmp_path):
    save_tiny_checkpoint(tmp_path, grounding_map=True, frozen_grounding=True)
    recipe = recipe_of("moving_shapes_ablation", "optimizer.freeze_text=false")
    recipe.model = ModelRecipe(start_from=str(tmp_path), config={"grounding_map": False})
    with pytest.raises(ValueError, match=r"model\.config does not fit .*`grounding_map"):
        train_script.build_model(recipe)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "pixel_values_videos": torch.randn(2, 3, 3, 32, 64, generator=generator),
        "input_ids": torch.tensor([[0, 8, 9, 2], [0, 10, 11, 2]]),
        "attention_mask": torch.ones(2, 4, dtype=torch.long),
        "mask_labels": torch.randint(2, (2, 3, 32, 64), generator=generator),
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_trains(name):
    model = tiny_model(**VARIANTS[name]).train()
    loss = model(**batch()).loss
    loss.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert loss.isfinite() and all(gradient.isfinite().all() for gradient in gradients)
    assert model.model.encoder.proxy_queries.grad.abs().sum() > 0


def launch(name: str, *arguments: str) -> tuple[Any, dict[str, str]]:
    """What `accelerate launch` makes of a config: its arguments and the processes' environment."""
    command = ["--config_file", str(RECIPES / f"{name}.yaml"), *arguments, "scripts/train.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    return args, prepare_multi_gpu_env(args)


def test_launch_configs_are_accelerates():
    kinds = {name: load_config_from_file(str(RECIPES / f"{name}.yaml")) for name in LAUNCHES}
    found = {name: kind.distributed_type.value for name, kind in kinds.items()}
    assert found == dict(zip(LAUNCHES, ("NO", "MULTI_GPU", "FSDP"), strict=True))
    args, _ = launch("accelerate_cpu")
    assert args.use_cpu and args.num_processes == 1 and not args.multi_gpu
    machines = ["--num_machines", "2", "--machine_rank", "1", "--num_processes", "16"]
    args, _ = launch(
        "accelerate_ddp", *machines, "--main_process_ip", "10.0.0.1", "--main_process_port", "29500"
    )
    assert args.multi_gpu and (args.num_processes, args.num_machines) == (16, 2)
    assert args.nproc_per_node == "8"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory) -> Iterator[DeviceMesh]:
    """This process as the only one of a group."""
    store = tmp_path_factory.mktemp("store") / "file"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=0, world_size=1
    )
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({}, {"ProxyFormerCMIELayer", "VideoSwinLayer"}),
        ({"interaction": "direct"}, {"ProxyFormerDirectLayer", "ProxyFormerQueryDecoderLayer"}),
        ({"interaction": "conditional"}, {"ProxyFormerQueryDecoderLayer"}),
        ({"vision_config": TINY_TIMM, "grounding_map": True}, {"ProxyFormerCMIELayer"}),
    ],
)
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module.*returned a view")
def test_fsdp_shards_every_kind_of_model(monkeypatch, mesh, fields, layers):
    _, environment = launch("accelerate_fsdp")
    for name, value in environment.items():
        if "FSDP" in name:
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and not plugin.cpu_ram_efficient_loading
    model = tiny_model(**fields)
    expected = model(**batch()).loss
    expected.backward()
    gradient = model.model.encoder.proxy_queries.grad
    model.zero_grad()
    wraps = fsdp2_prepare_auto_wrap_policy(plugin, model)
    wrapped = [module for module in model.modules() if wraps(module)]
    assert {type(module).__name__ for module in wrapped} >= layers | {"RobertaLayer"}
    for module in [*wrapped[::-1], model]:
        fully_shard(module, mesh=mesh, reshard_after_forward=plugin.reshard_after_forward)
    loss = model(**batch()).loss
    loss.backward()
    torch.testing.assert_close(loss, expected)
    found = model.model.encoder.proxy_queries.grad.full_tensor()
    torch.testing.assert_close(found, gradient)
