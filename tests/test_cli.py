# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel, pipeline
from typer.testing import CliRunner

from proxyformer_hf import ProxyFormerForReferringSegmentation
from proxyformer_hf.cli import app
from proxyformer_hf.cpu import multiplies_bfloat16
from proxyformer_hf.masks import load_mask
from proxyformer_hf.pipeline_referring_video_segmentation import ReferringVideoSegmentationPipeline
from proxyformer_hf.video_io import probe_video, read_video
from tests.tiny_model import HEIGHT, NUM_FRAMES, WIDTH, save_noise_clip, save_tiny_checkpoint

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

FPS = 12.5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_checkpoint(folder)
    return str(folder)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    save_noise_clip(path, FPS)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def load_pipeline(checkpoint: str) -> ReferringVideoSegmentationPipeline:
    dtype = torch.bfloat16 if multiplies_bfloat16() else torch.float32
    return pipeline("referring-video-segmentation", model=checkpoint, device="cpu", dtype=dtype)


def load_masks(folder: Path) -> np.ndarray:
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{index:05d}.png" for index in range(NUM_FRAMES)]
    return np.stack([load_mask(file) for file in files])


def test_segment_writes_overlay_sheet_and_table(checkpoint, video, tmp_path):
    output = tmp_path / "new" / "out.mp4"
    result = run("segment", video, "a dog", "a cat", "-o", output, "--model", checkpoint)
    assert result.exit_code == 0, result.output
    info = probe_video(output)
    assert (info.height, info.width, info.num_frames, info.fps) == (HEIGHT, WIDTH, NUM_FRAMES, FPS)
    drawn, original = read_video(output)[0].astype(int), read_video(video)[0].astype(int)
    assert np.abs(drawn - original).mean() > 5
    with Image.open(output.with_suffix(".png")) as sheet:
        assert sheet.width > 4 * 300
    header, dog, cat, wrote = result.stdout.splitlines()
    assert header.split() == ["expression", "score", "frames", "with", "a", "mask"]
    assert dog.startswith("a dog") and cat.startswith("a cat")
    assert dog.endswith(f" of {NUM_FRAMES}")
    assert str(output) in wrote


def test_segment_writes_the_pipelines_masks(checkpoint, video, tmp_path):
    arguments = (video, "A dog!", "a dog?", "--model", checkpoint, "-o", tmp_path / "out.mp4")
    assert run("segment", *arguments, "--masks", tmp_path / "masks").exit_code == 0
    folders = sorted((tmp_path / "masks").iterdir())
    assert [folder.name for folder in folders] == ["0_a_dog", "1_a_dog"]
    pipe = load_pipeline(checkpoint)
    for folder, text in zip(folders, ["A dog!", "a dog?"], strict=True):
        np.testing.assert_array_equal(load_masks(folder), pipe(video, text)["masks"])


def test_stride_keeps_the_last_mask(checkpoint, video, tmp_path):
    arguments = (video, "a dog", "--model", checkpoint, "-o", tmp_path / "out.mp4")
    assert run("segment", *arguments, "--masks", tmp_path, "--stride", 3).exit_code == 0
    expected = load_pipeline(checkpoint)(video, "a dog", stride=3)["masks"]
    np.testing.assert_array_equal(load_masks(tmp_path / "0_a_dog"), expected[[0, 0, 0, 1, 1, 1, 2]])
    assert probe_video(tmp_path / "out.mp4").num_frames == NUM_FRAMES


def test_thresholds_of_one_find_nothing(checkpoint, video, tmp_path):
    arguments = (video, "a dog", "--model", checkpoint, "-o", tmp_path / "out.mp4")
    for option in ("--threshold", "--min-score"):
        result = run("segment", *arguments, option, 1)
        assert f" 0 of {NUM_FRAMES}" in result.stdout


def test_folder_of_frames(checkpoint, video, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(read_video(video)[0]):
        Image.fromarray(frame).save(folder / f"{index:05d}.png")
    output = tmp_path / "out.mp4"
    result = run("segment", folder, "a dog", "-o", output, "--model", checkpoint)
    assert result.exit_code == 0, result.output
    info = probe_video(output)
    assert (info.num_frames, info.fps) == (NUM_FRAMES, 24)


def test_output_is_named_after_the_video(checkpoint, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("segment", video, "a dog", "--model", checkpoint).exit_code == 0
    assert {file.name for file in tmp_path.iterdir()} == {
        "noise_segmented.mp4",
        "noise_segmented.png",
    }


@pytest.fixture
def seen_pixels(monkeypatch) -> list[torch.Tensor]:
    """What models are given to encode from now on."""
    seen, encode = [], ProxyFormerForReferringSegmentation.get_video_features

    def spy(self, pixel_values_videos, **kwargs):
        seen.append(pixel_values_videos)
        return encode(self, pixel_values_videos, **kwargs)

    monkeypatch.setattr(ProxyFormerForReferringSegmentation, "get_video_features", spy)
    return seen


def test_max_size_bounds_what_the_model_sees(checkpoint, video, tmp_path, seen_pixels):
    arguments = (video, "a dog", "--model", checkpoint, "-o", tmp_path / "out.mp4")
    assert run("segment", *arguments, "--max-size", 40).exit_code == 0
    assert [tuple(pixels.shape) for pixels in seen_pixels] == [(1, NUM_FRAMES, 3, 24, 40)]


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_segment_computes_in_bfloat16_where_the_cpu_multiplies_it(
    native, dtype, checkpoint, video, tmp_path, seen_pixels, monkeypatch
):
    monkeypatch.setattr("proxyformer_hf.cpu.multiplies_bfloat16", lambda: native)
    arguments = (video, "a dog", "--model", checkpoint, "-o", tmp_path / "out.mp4")
    assert run("segment", *arguments, "--device", "cpu").exit_code == 0
    assert [pixels.dtype for pixels in seen_pixels] == [dtype]


def make_corrupt_video(folder: Path) -> Path:
    path = folder / "corrupt.mp4"
    path.write_bytes(b"no video" * 100)
    return path


def make_foreign_checkpoint(folder: Path) -> Path:
    config = BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    BertModel(config).save_pretrained(folder / "foreign")
    return folder / "foreign"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"video": lambda folder: folder / "missing.mp4"}, "missing.mp4"),
        ({"video": make_corrupt_video}, "corrupt.mp4"),
        ({"video": lambda folder: folder}, "no frames"),
        ({"text": lambda folder: "  "}, "blank"),
        ({"output": lambda folder: folder / "file" / "out.mp4"}, "file"),
        ({"output": lambda folder: folder / "out.txt"}, "out.txt"),
        ({"model": lambda folder: folder / "nowhere"}, "nowhere"),
        ({"model": lambda folder: folder}, "cannot be loaded"),
        ({"model": make_foreign_checkpoint}, "bert"),
        ({"device": lambda folder: "abacus"}, "abacus"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(checkpoint, video, tmp_path, changed, message):
    (tmp_path / "file").write_text("in the way of a folder")
    arguments = {"video": video, "text": "a dog", "output": tmp_path / "out.mp4"}
    arguments |= {"model": checkpoint, "device": "cpu"}
    arguments |= {name: make(tmp_path) for name, make in changed.items()}
    result = run(
        "segment", arguments["video"], arguments["text"], "--output", arguments["output"],
        "--model", arguments["model"], "--device", arguments["device"],
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("proxyformer: ") and message in line
    assert not (tmp_path / "out.mp4").exists()


def test_unwritable_output_is_found_before_the_model_is_loaded(video, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(ProxyFormerForReferringSegmentation, "from_pretrained", fail)
    (tmp_path / "out.mp4").mkdir()
    result = run("segment", video, "a dog", "-o", tmp_path / "out.mp4")
    assert result.exit_code == 2 and "out.mp4" in result.stderr


def test_output_must_not_be_the_video(video):
    before = video.read_bytes()
    result = run("segment", video, "a dog", "-o", video)
    assert result.exit_code == 2 and "would replace the video" in result.stderr
    assert video.read_bytes() == before


def test_failed_run_leaves_the_finished_video_alone(checkpoint, video, tmp_path):
    output = tmp_path / "out.mp4"
    output.write_bytes(b"finished")
    assert run("segment", video, " ", "-o", output, "--model", checkpoint).exit_code == 2
    assert output.read_bytes() == b"finished"
    assert list(tmp_path.iterdir()) == [output]


def test_info_counts_parameters_and_names_differences(checkpoint):
    result = run("info", checkpoint)
    assert result.exit_code == 0, result.output
    rows = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    total = ProxyFormerForReferringSegmentation.from_pretrained(checkpoint).num_parameters()
    assert rows["parameters, all"] == f"{total / 1e6:.2f} M"
    size = sum(file.stat().st_size for file in Path(checkpoint).iterdir())
    assert rows["size on disk"] == f"{size / 1e6:.1f} MB"
    assert rows["vision backbone"] == "video_swin"
    assert rows["num_queries"] == "3 (paper: 5)"
    assert "interaction" not in rows


def test_info_tells_of_a_detector(tmp_path):
    save_tiny_checkpoint(tmp_path, detector_config={"stem_size": 4}, freeze_text=True)
    rows = run("info", tmp_path).stdout.splitlines()
    named = [row for row in rows if row.startswith(("detector", "parameters, detector"))]
    assert len(named) == 2 and named[0].endswith("nanodet, 2 classes")


def test_info_of_no_model_ends_with_code_2(tmp_path):
    result = run("info", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert result.stderr == f"proxyformer: there is no model folder {tmp_path / 'nowhere'}\n"


def test_version_is_that_of_the_package():
    assert run("--version").stdout == f"proxyformer-hf {version('proxyformer-hf')}\n"


def test_help_imports_no_model():
    code = (
        "import sys; from proxyformer_hf.cli import app\n"
        "try: app(['segment', '--help'])\n"
        "except SystemExit: print('proxyformer_hf.modeling_proxyformer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_check_data_prints_counts_and_ends_with_code_0(tmp_path):
    write_fixture("mevis", tmp_path)
    result = run("check-data", "mevis", tmp_path)
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["split", "videos", "expressions", "objects", "frames"],
        ["train", "2", "8", "6", "14"],
        ["valid_u", "2", "8", "6", "14"],
        ["valid", "2", "8", "0", "14"],
        ["no", "problems"],
    ]


def test_check_data_prints_every_problem_and_ends_with_code_1(tmp_path):
    write_fixture("mevis", tmp_path)
    videos = sorted((tmp_path / "train/JPEGImages").iterdir())
    for video in videos:
        (video / "00003.jpg").unlink()
    result = run("check-data", "mevis", tmp_path, "--split", "train")
    assert result.exit_code == 1
    _, train, *problems, last = result.stdout.splitlines()
    assert train.split() == ["train", "2", "8", "6", "14"]
    assert sorted(problems) == [f"train: {video / '00003.jpg'} is missing" for video in videos]
    assert last.startswith("problems: 2. Official download: MeViS")
    assert run("check-data", "mevis", tmp_path, "--split", "valid").exit_code == 0


def test_check_data_of_no_folder_ends_with_code_2(tmp_path):
    result = run("check-data", "mevis", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert f"{tmp_path / 'nowhere'} is no folder" in result.stderr


@pytest.fixture(scope="module")
def benchmark_folder(tmp_path_factory):
    """Name -> the folder of a benchmark in miniature, made when first asked for."""
    root, made = tmp_path_factory.mktemp("benchmarks"), {}

    def folder(name: str) -> Path:
        if name not in made:
            write_fixture(name, root / name)
            made[name] = root / name
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
        yield folder


def evaluate(name: str, data: Path, output: Path, checkpoint: str, *options):
    """On inputs small enough for tests."""
    fixed = ("--model", checkpoint, "--device", "cpu", "--size", 32, "--workers", 0)
    return run("evaluate", name, data, "--output", output, *fixed, *options)


@pytest.mark.parametrize(
    ("name", "protocol", "scores"),
    [
        ("ref-youtube-vos", "published", ["J&F-Mean", "J-Mean", "F-Mean"]),
        ("ref-davis17", "published", ["J&F-Mean", "J-Decay", "F-Recall"]),
        ("ref-davis17", "per-expression", ["J&F-Mean"]),
        ("a2d-sentences", "published", ["mAP 0.5:0.95", "P@0.5", "overall_iou", "mean_iou"]),
        ("jhmdb-sentences", "top-1", ["mAP 0.5:0.95"]),
        ("mevis", "published", ["J&F-Mean"]),
    ],
)
def test_evaluate_runs_a_benchmark_and_score_repeats_its_number(
    name, protocol, scores, benchmark_folder, checkpoint, tmp_path
):
    data, output = benchmark_folder(name), tmp_path / "out"
    result = evaluate(name, data, output, checkpoint, "--protocol", protocol)
    assert result.exit_code == 0, result.output
    *wrote_zip, title, table, wrote = split_report(result.stdout)
    assert title.startswith(f"{name} ") and f"protocol {protocol}: " in title
    assert {*scores} <= table.keys()
    assert wrote == [str(output / f"scores-{protocol}.{end}") for end in ("json", "csv", "png")]
    assert all(Path(path).stat().st_size for path in wrote)
    has_server = name in ("ref-youtube-vos", "mevis")
    assert (
        wrote_zip == [f"wrote {output / 'submission.zip'} for the benchmark's server"] * has_server
    )
    report = json.loads((output / f"scores-{protocol}.json").read_text())
    assert report["settings"]["shortest_edge"] == 32
    assert {name: f"{value:.2f}" for name, value in report["scores"].items()} == table

    again = run("score", name, data, output, "--workers", 0, "--output", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert split_report(again.stdout)[:2] == [title, table]
    repeated = json.loads((tmp_path / "again" / f"scores-{protocol}.json").read_text())
    assert repeated == report


def split_report(printed: str) -> list:
    """Lines before the table, its scores as a dict, and the paths written."""
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if "protocol" in line) + 1
    table = dict(line.rsplit(maxsplit=1) for line in lines[start:-1])
    return [*lines[:start], table, lines[-1].removeprefix("wrote ").split(", ")]


def test_evaluate_goes_on_and_refuses_another_run(benchmark_folder, checkpoint, tmp_path):
    data = benchmark_folder("mevis")
    first = evaluate("mevis", data, tmp_path, checkpoint)
    assert evaluate("mevis", data, tmp_path, checkpoint).stdout == first.stdout
    other = evaluate("mevis", data, tmp_path, checkpoint, "--window", 2)
    assert other.exit_code == 2
    assert other.stderr == (
        f"proxyformer: {tmp_path} holds predictions of another run: choose another folder. "
        "Changed: window from None to 2\n"
    )


def test_evaluate_on_a_split_without_masks_leaves_the_zip(benchmark_folder, checkpoint, tmp_path):
    data = benchmark_folder("mevis")
    result = evaluate("mevis", data, tmp_path, checkpoint, "--split", "valid")
    assert result.exit_code == 0, result.output
    zipped, reason = result.stdout.splitlines()
    assert zipped == f"wrote {tmp_path / 'submission.zip'} for the benchmark's server"
    assert reason.startswith("mevis valid cannot be scored here")
    assert run("score", "mevis", data, tmp_path).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "ref-dvis17", "DATA", "."), "there is no benchmark 'ref-dvis17': choose ref-"),
        (("score", "mevis", "DATA", ".", "--protocol", "x"), "no protocol 'x': choose published"),
        (("score", "mevis", "DATA", ".", "--split", "x"), "mevis has no split 'x'"),
        (("score", "mevis", "nowhere", "."), "nowhere is no folder"),
        (("score", "mevis", "DATA", "nowhere"), "nowhere is no folder: expected predictions"),
        (("score", "mevis", "DATA", "."), "lacks predictions: "),
        (("evaluate", "mevis", "nowhere", "-o", "out"), "nowhere is no folder"),
        (("evaluate", "mevis", "DATA", "-o", "."), "is not empty and holds no settings.json"),
        (("evaluate", "mevis", "DATA", "--model", "nowhere"), "no model folder nowhere"),
    ],
)
def test_bad_input_to_evaluate_and_score_ends_with_one_line(
    arguments, message, benchmark_folder, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    data = benchmark_folder("mevis")
    arguments = [data if argument == "DATA" else argument for argument in arguments]
    if arguments[0] == "evaluate":
        arguments += ["--device", "cpu"]
        arguments += ["--model", checkpoint] * ("--model" not in arguments)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("proxyformer: ") and message in line


def test_missing_dependencies_of_benchmarks_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    result = run("score", "mevis", tmp_path, tmp_path)
    assert result.exit_code == 2
    assert "datasets" in result.stderr
    assert "pip install 'proxyformer-hf[benchmarks]'" in result.stderr


def test_evaluate_is_a_script_too():
    script = Path(__file__).parents[1] / "scripts/evaluate.py"
    done = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, check=True
    )
    assert "DATA_DIR" in done.stdout and "--protocol" in done.stdout
