# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import re
import sys
from functools import partial
from io import StringIO
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from torch.utils.flop_counter import FlopCounterMode
from transformers import RobertaConfig, TimmBackboneConfig
from typer.testing import CliRunner

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from tests.tiny_model import save_tiny_checkpoint

sys.path.append(str(Path(__file__).parents[1] / "scripts"))  # behind the library `evaluate`
import benchmark  # noqa: E402

FRAMES, HEIGHT, WIDTH, WORDS = 3, 40, 64, 6
ROWS, COLUMNS = 2, 2  # of the stride-32 map: the model pads 40 rows to 64
HIDDEN, LAYERS, QUERIES, MASK_CHANNELS = 16, 2, 3, 8
TEXT_HIDDEN, TEXT_INTERMEDIATE = 24, 40


def tiny_config(**fields) -> ProxyFormerConfig:
    return ProxyFormerConfig(
        text_config=RobertaConfig(
            vocab_size=30,
            hidden_size=TEXT_HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=TEXT_INTERMEDIATE,
            max_position_embeddings=32,
        ),
        vision_config=VideoSwinConfig(
            embed_dim=8, depths=(2, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=(2, 2, 2)
        ),
        hidden_size=HIDDEN,
        num_attention_heads=2,
        num_hidden_layers=LAYERS,
        num_queries=QUERIES,
        mask_feature_size=MASK_CHANNELS,
        **fields,
    )


@pytest.fixture(scope="module")
def macs() -> dict[str, int]:
    return benchmark.count_macs(tiny_config(), FRAMES, HEIGHT, WIDTH, WORDS)


def attention(query: int, key: int, channels: int) -> int:
    """Scores and weighted sum of `query` tokens on `key` tokens, all heads."""
    return 2 * query * key * channels


def test_text_encoder_is_its_linear_layers_and_attentions(macs):
    linear = 4 * TEXT_HIDDEN**2 + 2 * TEXT_HIDDEN * TEXT_INTERMEDIATE
    layer = WORDS * linear + attention(WORDS, WORDS, TEXT_HIDDEN)
    assert macs["text encoder"] == 2 * layer


def test_mask_decoder_is_its_convolutions(macs):
    places = FRAMES * ROWS * COLUMNS
    assert macs["mask decoder"] == (
        places * HIDDEN * HIDDEN  # input, stride 32
        + 4 * places * HIDDEN * HIDDEN * 9  # stride 16
        + 16 * places * HIDDEN * MASK_CHANNELS * 9  # stride 8
        + 64 * places * MASK_CHANNELS * MASK_CHANNELS * 9  # stride 4
        + 64 * places * MASK_CHANNELS * MASK_CHANNELS  # output, stride 4
    )


def test_cmie_encoder_never_replicates_the_pooled_keys(macs):
    """The equations' linear layers and attentions, each temporal context projected T times."""
    places = ROWS * COLUMNS
    video, proxies = FRAMES * places, FRAMES * QUERIES
    square = HIDDEN * HIDDEN
    layer = video * square + proxies * square + WORDS * square  # the Linear of eq. 2 and 4
    layer += 2 * 4 * video * square  # video encoding: q, k, v, o over space and over time
    layer += FRAMES * attention(places, places, HIDDEN)
    layer += places * attention(FRAMES, FRAMES, HIDDEN)
    layer += 2 * 2 * video * square + 2 * (proxies + FRAMES) * square  # P2V
    layer += FRAMES * attention(places, QUERIES, HIDDEN) + attention(video, FRAMES, HIDDEN)
    layer += 2 * proxies * square + 2 * WORDS * square + attention(proxies, WORDS, HIDDEN)  # T2P
    layer += 2 * 2 * proxies * square + 2 * (video + FRAMES) * square  # V2P
    layer += FRAMES * attention(QUERIES, places, HIDDEN) + attention(proxies, FRAMES, HIDDEN)
    assert macs["CMIE encoder"] == LAYERS * layer


def test_heads_are_their_linear_layers_and_the_masks_product(macs):
    proxies = FRAMES * QUERIES
    kernels = HIDDEN * HIDDEN + HIDDEN * MASK_CHANNELS
    boxes = 2 * HIDDEN * HIDDEN + HIDDEN * 4
    stride_4 = (HEIGHT // 4) * (WIDTH // 4)  # without the model's own padding
    masks = QUERIES * MASK_CHANNELS + QUERIES  # every proxy's, and their mixture
    assert macs["heads and masks"] == (
        proxies * (kernels + boxes + HIDDEN) + FRAMES * (stride_4 * masks + QUERIES * 4)
    )


@pytest.mark.parametrize(
    "fields",
    [{}, {"vision_neck_size": 12, "early_fusion": True, "grounding_map": True}],
    ids=["paper", "with neck and fusion"],
)
def test_parts_sum_to_what_eager_attention_counts_on_real_tensors(fields):
    config = tiny_config(**fields)
    parts = benchmark.count_macs(config, FRAMES, HEIGHT, WIDTH, WORDS)
    model = ProxyFormerForReferringSegmentation._from_config(config, attn_implementation="eager")
    video = torch.zeros(1, FRAMES, 3, HEIGHT, WIDTH)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval().requires_grad_(False)(video, torch.zeros(1, WORDS, dtype=torch.long))
    assert sum(parts.values()) == counter.get_total_flops() // 2
    assert all(count > 0 for count in parts.values())


def test_timm_backbones_are_counted():
    timm_config = TimmBackboneConfig(backbone="resnet18", out_indices=[1, 2, 3, 4])
    config = ProxyFormerConfig(vision_config=timm_config, text_config=tiny_config().text_config)
    macs = benchmark.count_macs(config, 1, 224, 224, WORDS)
    # 1.814 GMACs are resnet18's published cost at 224 x 224, 0.0005 of them its classifier's
    assert macs["visual backbone"] / 1e9 == pytest.approx(1.814 - 0.0005, abs=1e-3)


def test_flops_command_prints_the_default_model_under_900_gmacs():
    result = CliRunner().invoke(benchmark.app, ["flops"])
    assert result.exit_code == 0, result.output
    _, header, *rows = result.output.splitlines()
    assert header.split() == ["part", "ProxyFormer", "ReferFormer"]
    cells = {" ".join(row[:24].split()): row[24:].split() for row in rows}
    total, baseline_total = map(float, cells.pop("total"))
    assert 600 < total < 900
    assert baseline_total == 1983
    assert sum(float(row[0]) for row in cells.values()) == pytest.approx(total, abs=0.5)
    assert float(cells["visual backbone"][1]) == 595


def test_median_seconds_lets_the_ways_take_turns_and_leaves_out_the_first():
    calls = []

    def run(name: str) -> None:
        sleep(0 if name in calls else 0.5)  # as a compiled model does
        calls.append(name)

    ways = {name: partial(run, name) for name in ("one", "other")}
    with benchmark.tqdm(total=8, file=StringIO()) as progress:
        seconds = benchmark.median_seconds(ways, 3, progress)
        assert progress.n == 8
    assert calls == ["one", "other"] * 4
    assert seconds.keys() == ways.keys()
    assert all(0 <= value < 0.5 for value in seconds.values())


def test_every_comparison_names_two_ways_that_run(tmp_path):
    save_tiny_checkpoint(tmp_path)
    model = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path)
    video, input_ids = torch.zeros(1, 2, 3, 32, 32), torch.full((3, 4), 7)
    ways = benchmark.ways_to_run(model, video, input_ids)
    assert {name for pair in benchmark.COMPARISONS for name in pair} == set(ways)
    del ways["compiled"]  # slow; tests/test_compile_export.py compiles
    with torch.no_grad():
        outputs = {name: run() for name, run in ways.items()}
    assert outputs["eager attention"].pred_masks.shape[0] == 1
    assert outputs["3 expressions in 1 call"].pred_masks.shape[0] == 3
    torch.testing.assert_close(
        outputs["eager attention"].pred_masks,
        outputs["scaled_dot_product_attention"].pred_masks,
        atol=1e-5,
        rtol=1e-4,
    )


def test_demo_clip_is_segmented_and_drawn(tmp_path, monkeypatch):
    save_tiny_checkpoint(tmp_path)
    written = []
    write = benchmark.VideoWriter.write
    monkeypatch.setattr(
        benchmark.VideoWriter,
        "write",
        lambda self, frame: (written.append(frame.shape), write(self, frame))[1],
    )
    segmenter = benchmark.pipeline(benchmark.TASK, model=str(tmp_path))
    benchmark.segment_demo_clip(segmenter, benchmark.DEMO_EXPRESSIONS)
    info = benchmark.probe_video(benchmark.DEMO_CLIP)
    assert written == [(info.height, info.width, 3)] * info.num_frames


def test_data_command_indexes_and_iterates_what_it_wrote():
    options = ["--num-expressions", "20", "--num-samples", "3", "--num-epochs", "2"]
    result = CliRunner().invoke(benchmark.app, ["data", *options, "--num-workers", "1"])
    assert result.exit_code == 0, result.output
    index, *epochs = [line for line in result.stdout.splitlines() if ": " in line]
    seconds, peak = re.fullmatch(
        r"index of 20 expressions and 0.\d MB of masks: (.+) s, peak of the process (\d+) MB", index
    ).groups()
    assert 0 < float(seconds) < 60 and int(peak) > 20
    for number, line in enumerate(epochs, 1):
        held = re.fullmatch(rf"epoch {number}: 3 clips .* 1 workers hold (.+) MB", line)[1]
        assert float(held) > 1
    assert len(epochs) == 2


def test_large_data_set_has_the_expressions_and_masks_it_says(tmp_path):
    benchmark.write_large_data_set(tmp_path, 20)
    rows = benchmark.load_rvos_dataset("mevis", tmp_path, "train", cache_dir=tmp_path / "cache")
    assert len(rows) == 20
    assert [row["masks"]["keys"] for row in rows][16:18] == [["4"], ["4", "5"]]
    clip = benchmark.ReferringClips(rows, tmp_path, num_frames=5)[0]
    assert clip["frames"].shape == (5, 3, 90, 160)
    assert 0.9 * 3000 < clip["masks"][0, 0].sum() < 3000


def dilate(mask: np.ndarray, disk: np.ndarray) -> np.ndarray:
    """What cv2.dilate does with zeros and ones."""
    return binary_dilation(mask, disk).astype(mask.dtype)


@pytest.mark.parametrize("density", [0, 0.02, 0.5, 1])
def test_official_way_on_opencv_gives_our_scores(density):
    prediction, truth = np.random.default_rng(0).random((2, 60, 130)) < [[[density]], [[0.1]]]
    for pair in ((prediction, truth), (truth, prediction), (prediction, prediction)):
        assert benchmark.score_with_opencv(dilate, *pair) == benchmark.score_masks(*pair)


@pytest.mark.parametrize("folder", [False, True])
def test_metrics_command_compares_with_the_official_way(tmp_path, monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(dilate=dilate))
    Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(tmp_path / "00000.png")
    masks = ["--masks", str(tmp_path)] if folder else []
    options = [*masks, "--num-pairs", "2", "--height", "40", "--width", "60", "--repeats", "1"]
    result = CliRunner().invoke(benchmark.app, ["metrics", *options])
    assert result.exit_code == 0, result.output
    header, ours, official, ratio = result.stdout.splitlines()
    source = str(tmp_path) if folder else "drawn disks"
    assert header == f"J and F of a pair of masks of 40x60; 2 pairs from {source}, median of 1 runs"
    durations = [float(re.fullmatch(r"\S+ +(\S+) ms", line)[1]) for line in (ours, official)]
    assert all(0 < duration < 1000 for duration in durations)
    found = re.fullmatch(r"(\S+) times the official duration; scores differ by at most 0", ratio)
    assert float(found[1]) == pytest.approx(durations[0] / durations[1], rel=0.1)


def test_metrics_command_without_opencv_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # as if it were not installed
    options = ["--num-pairs", "1", "--height", "40", "--width", "60", "--repeats", "1"]
    result = CliRunner().invoke(benchmark.app, ["metrics", *options])
    assert result.exit_code == 0, result.output
    hint, _, ours = result.stdout.splitlines()
    assert "pip install opencv-python-headless" in hint
    assert ours.startswith("proxyformer_hf")


def test_metrics_command_refuses_a_folder_without_masks(tmp_path):
    result = CliRunner().invoke(benchmark.app, ["metrics", "--masks", str(tmp_path)])
    assert result.exit_code == 2
    assert "there is no PNG file" in result.output


def test_mask_pairs_are_masks_of_the_folder_in_the_asked_size(tmp_path):
    (tmp_path / "video").mkdir()
    for value in (1, 255):
        mask = np.zeros((10, 20), np.uint8)
        mask[3:6, 4:9] = value
        Image.fromarray(mask).save(tmp_path / "video" / f"{value}.png")
    pairs = benchmark.mask_pairs(tmp_path, 2, 20, 40)
    assert pairs.shape == (2, 2, 20, 40) and pairs.dtype == np.bool_
    expected = np.zeros((20, 40), bool)
    expected[6:12, 8:18] = True
    np.testing.assert_array_equal(pairs[:, 1], [expected, expected])
    np.testing.assert_array_equal(pairs[:, 0], np.roll(pairs[:, 1], (5, 7), (1, 2)))
