# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from proxyformer_hf.configuration_nanodet import NanoDetConfig
from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.data.load import BUILDERS
from proxyformer_hf.evaluation.inference import run_settings
from proxyformer_hf.evaluation.protocols import PROTOCOLS, Protocol, find_protocol
from proxyformer_hf.model_card import DATA_SETS, metrics_of, render_card, write_model_card
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.training.recipe import DataRecipe, Recipe, RunRecipe, load_recipe
from tests.tiny_model import save_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "scripts/recipes"
sys.path.append(str(ROOT / "scripts"))
import write_model_cards  # noqa: E402

PAPER_TABLES = """
ref-youtube-vos  ResNet-50     58.2 57.0 59.4
ref-youtube-vos  Video-Swin-T  63.0 61.9 64.1
ref-youtube-vos  Video-Swin-B  66.3 65.0 68.3
ref-davis17      ResNet-50     59.7 56.9 62.5
ref-davis17      Video-Swin-T  63.9 60.5 66.8
ref-davis17      Video-Swin-B  64.6 61.6 67.9
a2d-sentences    Video-Swin-T  83.0 80.2 72.8 56.4 20.7 78.1 70.6 54.3
a2d-sentences    Video-Swin-B  84.6 82.2 76.6 60.4 23.4 80.1 71.9 57.8
jhmdb-sentences  Video-Swin-T  - - - - - 72.9 71.7 44.1
jhmdb-sentences  Video-Swin-B  - - - - - 74.2 72.8 45.9
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def recipe_of(name: str = "ref_youtube_vos") -> Recipe:
    return load_recipe(RECIPES / f"{name}.yaml")


def paper_config(size: str = "tiny", **fields: Any) -> ProxyFormerConfig:
    config = ProxyFormerConfig(vision_config=VideoSwinConfig.from_preset(size), **fields)
    config.text_config._name_or_path = "FacebookAI/roberta-base"
    return config


def write_report(folder: Path, path: Path, protocol: Protocol, **changes: Any) -> Path:
    """Scores as `proxyformer evaluate` writes them: all 50 but the first, 61.256."""
    model = ProxyFormerForReferringSegmentation.from_pretrained(folder)
    processor = ProxyFormerProcessor.from_pretrained(folder)
    settings = run_settings(model, processor, protocol, protocol.split, rows=[])
    names = [*metrics_of(protocol), "J-Recall"]
    report = {
        "benchmark": protocol.benchmark,
        "protocol": protocol.name,
        "split": protocol.split,
        "scores": dict.fromkeys(names, 50.0) | {names[0]: 61.256},
        "settings": settings,
    }
    path.write_text(json.dumps(report | changes))
    return path


def results_of(card: Path) -> list[tuple]:
    """What the Hub reads of a card's model-index."""
    results = ModelCard.load(card).data.eval_results or []
    return [(r.dataset_type, r.dataset_split, r.metric_name, r.metric_value) for r in results]


def test_card_of_an_unmeasured_model_states_no_number_of_its_own(folder):
    path = write_model_card(folder, "me/proxyformer-tiny", recipe_of())
    text, data = path.read_text(), ModelCard.load(path).data
    assert results_of(path) == []
    assert "not yet measured" in text and "| paper," not in text
    assert (data.license, data.library_name, data.language) == (
        "cc-by-nc-4.0",
        "transformers",
        "en",
    )
    assert data.pipeline_tag == "mask-generation"
    assert 'checkpoint = "me/proxyformer-tiny"' in text
    for title in ("Intended use", "Training", "Data and its licence", "Results", "Limits"):
        assert f"# {title}\n" in text
    assert "| Ref-YouTube-VOS, `train` | masks are YouTube-VOS', CC BY 4.0" in text
    assert "| length | 30 epochs |" in text and "frozen; times 0.1 after epoch 20 |" in text


def test_card_describes_the_model_in_the_folder_not_the_recipe(folder):
    text = write_model_card(folder, "tiny", recipe_of()).read_text()  # whose backbone is ResNet-50
    assert "| visual backbone | video_swin |" in text
    assert "1 layers of 16 channels, 3 proxies" in text
    assert "`num_hidden_layers: 1`" in text and "`num_queries: 3`" in text


def test_card_of_a_model_with_a_detector_names_it(tmp_path):
    names = {0: "cat", 1: "dog"}
    detector = NanoDetConfig(stem_size=4, neck_size=4, depths=(1, 1, 1, 1), id2label=names)
    save_tiny_checkpoint(tmp_path, detector_config=detector, freeze_text=True)
    text = write_model_card(tmp_path, "tiny", recipe_of()).read_text()
    assert "| detector | NanoDet of 2 classes, frozen |" in text and "detector_config" not in text


@pytest.mark.parametrize("line", PAPER_TABLES.strip().splitlines())
def test_papers_numbers_stand_in_the_cards_of_the_papers_models(line):
    benchmark, backbone, *numbers = line.split()
    of_frames = benchmark in ("a2d-sentences", "jhmdb-sentences")
    _, card = write_model_cards.stage_card("a2d_sentences" if of_frames else "ref_youtube_vos")
    _, section = card.split(f"\n### {DATA_SETS[benchmark].title}\n")
    rows = [row for row in section.split("\n#")[0].splitlines() if f"paper, {backbone} |" in row]
    assert [row.split(" | ")[1:] for row in rows] == [
        [*(number.replace("-", "") for number in numbers[:-1]), f"{numbers[-1]} |"]
    ]
    assert f"| ours, {backbone} | not yet measured |" in section


def test_papers_numbers_are_left_out_beside_other_models():
    for config in (paper_config(num_queries=8), paper_config(jsc_semantics="none")):
        assert "| paper," not in render_card("x", [(config, recipe_of())])
    config = paper_config()
    assert "| paper, Video-Swin-T |" in render_card("x", [(config, recipe_of())])
    config.text_config._name_or_path = "bert-base-uncased"
    assert "| paper," not in render_card("x", [(config, recipe_of())])


def test_stored_cards_are_those_of_the_recipes():
    for path, text in map(write_model_cards.stage_card, write_model_cards.STAGES):
        assert path.read_text() == text, f"run scripts/write_model_cards.py for {path}"


def test_scores_become_model_index_and_results(folder, tmp_path):
    protocol = find_protocol("ref-youtube-vos")
    scores = write_report(folder, tmp_path / "scores-published.json", protocol)
    write_model_card(folder, "tiny", recipe_of())
    path = write_model_card(folder, "tiny", scores=[scores])  # the recipe lies in the folder
    assert results_of(path) == [
        ("ref-youtube-vos", "valid", "J&F", 61.26),
        ("ref-youtube-vos", "valid", "J", 50.0),
        ("ref-youtube-vos", "valid", "F", 50.0),
    ]
    text = path.read_text()
    assert "| ours, video_swin | 61.3 | 50.0 | 50.0 |" in text
    assert text.count("not yet measured") == 1  # Ref-DAVIS17


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: f"{p.benchmark} {p.name}")
def test_every_protocols_scores_have_their_place(folder, tmp_path, protocol):
    scores = write_report(folder, tmp_path / "scores.json", protocol)
    path = write_model_card(folder, "tiny", recipe_of("a2d_sentences"), [scores])
    assert {entry[:2] for entry in results_of(path)} == {(protocol.benchmark, protocol.split)}
    assert "61.3" in path.read_text()


def test_changed_settings_of_an_evaluation_are_told(folder, tmp_path):
    protocol = find_protocol("ref-youtube-vos")
    changed = replace(protocol, shortest_edge=240, num_videos=3)
    scores = write_report(folder, tmp_path / "scores.json", changed)
    path = write_model_card(folder, "tiny", recipe_of(), [scores])
    assert "| ours, video_swin, num_videos 3, shortest_edge 240 | 61.3 |" in path.read_text()
    (result, *_) = ModelCard.load(path).data.eval_results
    assert result.metric_args == {"num_videos": 3, "shortest_edge": 240}


def test_scores_of_other_weights_are_refused(folder, tmp_path):
    scores = write_report(folder, tmp_path / "scores.json", find_protocol("mevis"))
    path = write_model_card(folder, "tiny", recipe_of())
    before = path.read_text()
    model = ProxyFormerForReferringSegmentation.from_pretrained(folder)
    model.class_head.bias.data += 1
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"scores\.json holds the scores of another model"):
        write_model_card(folder, "tiny", scores=[scores])
    assert path.read_text() == before
    of_another_system = write_report(folder, scores, find_protocol("mevis"), settings={})
    with pytest.raises(ValueError, match="another model"):
        write_model_card(folder, "tiny", scores=[of_another_system])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmark": "mars"}', '{"scores": 3}'])
def test_files_without_scores_are_refused(folder, tmp_path, text):
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(ValueError, match=r"wrong\.json holds no scores: give a scores-\*\.json"):
        write_model_card(folder, "tiny", recipe_of(), [tmp_path / "wrong.json"])
    with pytest.raises(ValueError, match=r"absent\.json: No such file"):
        write_model_card(folder, "tiny", recipe_of(), [tmp_path / "absent.json"])
    with pytest.raises(ValueError, match=r"lacks recipe\.yaml, which a training leaves"):
        write_model_card(folder, "tiny")


def test_recipe_beside_the_weights_tells_no_path_of_the_machine(folder):
    recipe = recipe_of("ref_youtube_vos_finetuning")
    recipe.model.start_from = "/home/me/runs/first"
    recipe.data[0].data_dir = "C:\\data\\ytvos"
    text = write_model_card(folder, "tiny", recipe).read_text()
    assert "home" not in text and "began with the weights of `first`" in text
    stored = load_recipe(folder / "recipe.yaml")
    assert stored.model.start_from == "first" and stored.data[0].data_dir == "ytvos"
    recipe.model.start_from, recipe.data[0].data_dir = "first", "ytvos"
    assert stored == recipe


@pytest.mark.parametrize(
    ("names", "start_from", "licence"),
    [
        (["moving-shapes"], None, "apache-2.0"),
        (["moving-shapes"], "lite", "cc-by-nc-4.0"),
        (["moving-shapes", "refcoco"], None, "cc-by-nc-4.0"),
        (["folder"], None, "cc-by-nc-4.0"),
        (["ref-youtube-vos", "mevis"], None, "cc-by-nc-sa-4.0"),
    ],
)
def test_licence_of_the_weights_is_that_of_the_strictest_data(names, start_from, licence):
    recipe = Recipe([DataRecipe(name) for name in names], run=RunRecipe(max_steps=1))
    recipe.model.start_from = start_from
    card = ModelCard(render_card("x", [(paper_config(), recipe)]))
    assert card.data.license == licence
    assert ("drawn shapes" in card.text) == (names == ["moving-shapes"])


def test_every_data_set_has_its_lines():
    assert {*BUILDERS, "stills-and-videos"} <= {*DATA_SETS}
    assert {protocol.benchmark for protocol in PROTOCOLS} <= {*DATA_SETS}
    for data_set in DATA_SETS.values():
        assert {*data_set.benchmarks} <= {protocol.benchmark for protocol in PROTOCOLS}
