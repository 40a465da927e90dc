# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
from pathlib import Path

import pytest
import yaml

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.training.recipe import (
    VARIANTS,
    changed_settings,
    load_recipe,
    save_recipe,
)

MINIMAL = {"data": [{"name": "moving-shapes"}], "run": {"max_steps": 3}}


def write(path: Path, **sections) -> Path:
    path.write_text(yaml.safe_dump(MINIMAL | sections))
    return path


@pytest.fixture
def minimal(tmp_path) -> Path:
    return write(tmp_path / "minimal.yaml")


def test_defaults_are_the_published_recipe(minimal):
    optimizer = load_recipe(minimal).optimizer
    rates = (optimizer.learning_rate, optimizer.vision_learning_rate, optimizer.text_learning_rate)
    assert rates == (1e-4, 5e-5, 1e-5)
    assert (optimizer.weight_decay, optimizer.gradient_clip) == (5e-4, 0.1)
    assert (optimizer.scheduler, optimizer.milestones, optimizer.decay) == (
        "multistep",
        [6, 8],
        0.1,
    )
    assert optimizer.freeze_text and load_recipe(minimal).data[0].num_frames == 5


def test_files_build_on_each_other(tmp_path):
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts/a.yaml", model={"vision": "swin3d_t", "config": {"num_queries": 3}})
    (tmp_path / "parts/b.yaml").write_text("run: {seed: 1, batch_size: 2}\nmodel: {config: {}}")
    top = tmp_path / "top.yaml"
    top.write_text(
        "base: [parts/a.yaml, parts/b.yaml]\n"
        "run: {seed: 2}\nmodel: {config: {hidden_size: 128}}\ndata: [{name: mevis}]\n"
    )
    recipe = load_recipe(top)
    assert recipe.model.vision == "swin3d_t"
    assert recipe.model.config == {"num_queries": 3, "hidden_size": 128}
    assert (recipe.run.seed, recipe.run.batch_size, recipe.run.max_steps) == (2, 2, 3)
    assert [source.name for source in recipe.data] == ["mevis"]  # lists replace


def test_overrides_have_the_last_word(tmp_path):
    path = write(tmp_path / "r.yaml", data=[{"name": "mevis"}, {"name": "a2d-sentences"}])
    recipe = load_recipe(
        path,
        "queries-8",
        [
            "model.config.num_queries=3",
            "optimizer.learning_rate=2e-4",
            "data.1.data_dir=/x",
            "optimizer.ema_decay=0.9",
            "optimizer.ema_decay=null",
            "model.vision={backbone: resnet18}",
        ],
    )
    assert recipe.model.config == {"num_queries": 3, "jsc_semantics": "none"}
    assert recipe.optimizer.learning_rate == 2e-4
    assert [source.data_dir for source in recipe.data] == [None, "/x"]
    assert recipe.optimizer.ema_decay is None
    assert recipe.model.vision == {"backbone": "resnet18"}


def test_a_detector_is_a_name_and_none_by_default(tmp_path, minimal):
    assert load_recipe(minimal).model.detector is None
    path = write(tmp_path / "r.yaml", model={"detector": "runs/nanodet"})
    assert load_recipe(path).model.detector == "runs/nanodet"


def test_numbers_without_a_point_are_numbers(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "data: [{name: mevis}]\nrun: {epochs: 1}\nmodel: {config: {initializer_range: 1e-2}}\n"
        "optimizer: {learning_rate: 1e-4, weight_decay: .5e+1}\n"
    )
    recipe = load_recipe(path)
    assert recipe.model.config["initializer_range"] == 0.01
    assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay) == (1e-4, 5.0)


def test_no_is_a_word_and_false_is_not(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data: [{name: mevis}]\nrun: {epochs: 1, mixed_precision: no, compile: true}\n")
    run = load_recipe(path).run
    assert (run.mixed_precision, run.compile) == ("no", True)
    overridden = load_recipe(path, overrides=["run.mixed_precision=no", "run.compile=False"]).run
    assert (overridden.mixed_precision, overridden.compile) == ("no", False)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"optimizer": {"lerning_rate": 1}}, "optimizer.lerning_rate: unknown setting"),
        ({"optimiser": {}}, "optimiser: unknown setting"),
        ({"data": [{"name": "x", "clips": {"sise": 1}}]}, "data.0.clips.sise: unknown setting"),
        ({"model": {"config": {"num_querys": 1}}}, "model.config.num_querys: unknown setting"),
        ({"optimizer": {"learning_rate": "fast"}}, "optimizer.learning_rate: .*number, got 'fast'"),
        ({"optimizer": {"learning_rate": -1}}, "optimizer.learning_rate: .*greater than 0"),
        ({"optimizer": {"scheduler": "cos"}}, "optimizer.scheduler: .*'multistep', 'linear'"),
        ({"model": {"config": {"num_queries": "x"}}}, "model.config: .*num_queries"),
        ({"model": {"config": {"hidden_size": 30}}}, "model.config: .*hidden_size"),
        ({"model": {"config": {"freeze_text": True}}}, "model.config.freeze_text: .*optimizer"),
        (
            {"model": {"config": {"detector_config": {}}}},
            "model.config.detector_config: belongs to model.detector",
        ),
        ({"model": {"vision": 3}}, "model.vision: .*valid string"),
        ({"model": {"detector": {}}}, "model.detector: .*valid string"),
        ({"data": []}, "data: .*at least 1 item"),
        ({"data": [{"split": "x"}]}, "data.0.name: missing"),
        ({"run": {}}, "run: give either epochs or max_steps"),
        ({"run": {"epochs": 1, "max_steps": 1}}, "run: give either epochs or max_steps"),
        ({"run": 3}, "run: .*got 3"),
    ],
)
def test_mistakes_are_named_with_file_and_field(tmp_path, sections, message):
    path = write(tmp_path / "r.yaml", **sections)
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        load_recipe(path)


def test_the_file_that_is_wrong_is_named(tmp_path, minimal):
    base = write(tmp_path / "base.yaml", optimizer={"decay": 2})
    top = tmp_path / "top.yaml"
    top.write_text("base: [base.yaml]\nrun: {seed: 1}\n")
    with pytest.raises(ValueError, match=f"^{base}: optimizer.decay: "):
        load_recipe(top)
    with pytest.raises(ValueError, match="^--set run.sed=1: run.sed: unknown setting"):
        load_recipe(minimal, overrides=["run.sed=1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: [r.yaml]", "base: leads back"),
        ("base: r.yaml", "base: must be a list"),
        ("base: [absent.yaml]", "absent.yaml: No such file"),
        ("a: [", "not a yaml file"),
        ("- a", "must be a mapping"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, content, message):
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.seed", "FIELD=VALUE"),
        ("=1", "FIELD=VALUE"),
        ("run..seed=1", "FIELD=VALUE"),
        ("run.seed=[", "FIELD=VALUE"),
        ("data.1.name=x", "a list of 1 has no entry 1"),
    ],
)
def test_overrides_that_are_none(minimal, override, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(minimal, overrides=[override])


def test_a_saved_recipe_is_the_same(tmp_path):
    path = write(
        tmp_path / "r.yaml",
        data=[{"name": "x", "transform": {"short_sides": [288, 320], "max_size": 640}}],
        optimizer={"learning_rate": 1e-5, "ema_decay": 0.999},
        validation={"benchmark": "mevis"},
    )
    recipe = load_recipe(path, "baseline")
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe
    stored = yaml.safe_load((tmp_path / "saved.yaml").read_text())
    assert stored["run"]["seed"] == 0  # defaults too: they may change one day


def test_changes_that_matter_to_a_resumed_run(minimal):
    recipe = load_recipe(minimal)
    other = load_recipe(
        minimal,
        overrides=[
            "run.num_workers=7",
            "run.checkpoint_every=5",
            "run.trackers=[]",
            "validation.benchmark=mevis",
            "optimizer.learning_rate=1.0",
            "model.config.num_queries=3",
        ],
    )
    assert changed_settings(recipe, recipe) == []
    assert changed_settings(recipe, other) == [
        "model.config.num_queries",
        "optimizer.learning_rate",
    ]


# Rows of the paper's tables IV to VIII and what distinguishes their model. Tables VI and VII agree
# with IV (2) where N is 5 and K is 4, so that they are without JSC.
ROWS = {
    "baseline": ("conditional", True, "none", 5, 4),
    "cmie": ("decoupled", True, "none", 5, 4),
    "full": ("full", True, "none", 5, 4),
    "no-p2v": ("decoupled", False, "none", 5, 4),
    "cmie-jsc": ("decoupled", True, "both", 5, 4),
    "jsc-video": ("decoupled", True, "video", 5, 4),
    "jsc-text": ("decoupled", True, "text", 5, 4),
    "jsc-both": ("decoupled", True, "both", 5, 4),
    "queries-1": ("decoupled", True, "none", 1, 4),
    "queries-3": ("decoupled", True, "none", 3, 4),
    "queries-5": ("decoupled", True, "none", 5, 4),
    "queries-8": ("decoupled", True, "none", 8, 4),
    "layers-2": ("decoupled", True, "none", 5, 2),
    "layers-3": ("decoupled", True, "none", 5, 3),
    "layers-4": ("decoupled", True, "none", 5, 4),
    "layers-5": ("decoupled", True, "none", 5, 5),
    "no-proxies": ("direct", True, "both", 5, 4),
    "full-jsc": ("full", True, "both", 5, 4),
}


def test_every_row_of_the_paper_is_one_name(minimal):
    found = {}
    for name in VARIANTS:
        config = ProxyFormerConfig(**load_recipe(minimal, name).model.config)
        found[name] = (
            config.interaction,
            config.proxy_to_video,
            config.jsc_semantics,
            config.num_queries,
            config.num_hidden_layers,
        )
    assert found == ROWS


def test_variants_keep_the_rest_of_the_model(tmp_path):
    config = {"text_to_video": True, "pre_norm": True}
    path = write(tmp_path / "r.yaml", model={"config": config})
    for name in VARIANTS:
        assert load_recipe(path, name).model.config["pre_norm"]
    with pytest.raises(ValueError, match="no variant 'best'.*baseline"):
        load_recipe(path, "best")
