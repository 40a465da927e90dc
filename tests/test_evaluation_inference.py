# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import multiprocessing
import os
import shutil
import signal
import zipfile
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate import PartialState
from accelerate.launchers import debug_launcher
from PIL import Image

from proxyformer_hf import ProxyFormerForReferringSegmentation, ProxyFormerProcessor
from proxyformer_hf.data.decoding import read_frames
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.records import DataError
from proxyformer_hf.evaluation import inference
from proxyformer_hf.evaluation.inference import (
    detected_masks,
    merge_objects,
    native_probabilities,
    predict,
)
from proxyformer_hf.evaluation.predictions import decode_mask, read_index
from proxyformer_hf.evaluation.protocols import find_protocol
from proxyformer_hf.evaluation.scoring import score
from tests.benchmark_truth import make_benchmark
from tests.tiny_model import perturb, save_tiny_checkpoint, tiny_model

SCRIPT = Path(__file__).parents[1] / "scripts/evaluate.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
        yield root


@pytest.fixture(scope="module")
def folders(root):
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = make_benchmark(name, root / name)
        return made[name]

    return folder


@pytest.fixture(scope="module")
def checkpoint(root) -> Path:
    save_tiny_checkpoint(root / "tiny")
    return root / "tiny"


@pytest.fixture(scope="module")
def processor(checkpoint) -> ProxyFormerProcessor:
    return ProxyFormerProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def model():
    return perturb(tiny_model())


def small(name: str, protocol_name: str | None = None, **fields):
    """A protocol with inputs small enough for tests."""
    return replace(find_protocol(name, protocol_name), shortest_edge=40, **fields)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixel centres map to pixel centres; beyond the outermost ones the border goes on."""

    def weights(source: int, target: int) -> np.ndarray:
        centres = ((np.arange(target) + 0.5) * source / target - 0.5).clip(0, source - 1)
        return (1 - np.abs(centres[:, None] - np.arange(source))).clip(0)

    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return rows @ image @ columns.T


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_native_probabilities_are_resized_in_one_step():
    logits = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0))
    expected = [bilinear(sigmoid(image), 33, 50) for image in logits.numpy()]
    np.testing.assert_allclose(native_probabilities(logits, (33, 50)), expected, atol=1e-6)


def test_merging_thresholds_first_and_gives_ties_to_the_lower_id():
    probabilities = torch.tensor(
        [[0.49, 0.5, 0.7, 0.6, 0.0], [0.3, 0.49, 0.7, 0.9, 0.0], [0.49, 0.1, 0.7, 0.7, 0.05]]
    )[:, None]
    assert merge_objects(probabilities, threshold=0.5, background=0.1).tolist() == [[0, 1, 1, 2, 0]]
    # Without the threshold the background would lose its first pixel.
    assert merge_objects(probabilities, threshold=0.0, background=0.1).tolist() == [[1, 1, 1, 2, 0]]


def test_detected_masks_are_thresholded_at_the_input_size_and_cropped_to_it():
    logits = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    enlarged = bilinear(logits[0].numpy(), 12, 16) > 0
    cropped = enlarged[:10, :15]  # the input is no multiple of 4
    rows, columns = np.arange(25) * 10 // 25, np.arange(20) * 15 // 20
    (mask,) = detected_masks(logits, (10, 15), (25, 20), threshold=0.5)
    assert mask.dtype == torch.bool
    np.testing.assert_array_equal(mask, cropped[np.ix_(rows, columns)])


def read_video(folder: Path) -> torch.Tensor:
    frames = [np.array(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


@torch.no_grad()
def query_outputs(model, processor, pixels: torch.Tensor, text: str, protocol) -> tuple:
    """Class probabilities (T, N) and mask logits (T, N, h, w) of one expression alone."""
    size = {"shortest_edge": protocol.shortest_edge}
    if protocol.longest_edge:
        size["longest_edge"] = protocol.longest_edge
    inputs = processor(videos=pixels, text=[text], size=size, return_tensors="pt")
    outputs = model(**inputs)
    return outputs.pred_logits[0].sigmoid().numpy(), outputs.pred_masks[0].numpy()


def test_masks_are_those_of_the_query_with_the_best_mean_score(folders, model, processor, tmp_path):
    """The whole published procedure on Ref-YouTube-VOS, one expression at a time."""
    data, protocol = folders("ref-youtube-vos"), small("ref-youtube-vos")
    predict(model, processor, protocol, data, tmp_path)
    told = json.loads((data / "valid/meta_expressions.json").read_text())["videos"]
    shares = []
    for video, entry in told.items():
        pixels = read_video(data / "valid/JPEGImages" / video)
        for expression, said in entry["expressions"].items():
            scores, logits = query_outputs(model, processor, pixels, said["exp"], protocol)
            best = scores.mean(0).argmax()
            for t, frame in enumerate(entry["frames"]):
                path = tmp_path / "Annotations" / video / expression / f"{frame}.png"
                with Image.open(path) as image:
                    assert image.mode == "L"
                    mask = np.array(image)
                assert set(np.unique(mask)) <= {0, 255}
                expected = bilinear(sigmoid(logits[t, best]), *pixels.shape[-2:]) > 0.5
                assert (expected != (mask > 0)).mean() < 1e-3  # a float's rounding at the border
                shares.append(expected.mean())
    assert 0.05 < np.mean(shares) < 0.95


def test_davis_maps_merge_the_clips_best_queries(folders, model, processor, tmp_path):
    """The published procedure on Ref-DAVIS17, with clips of 3 frames instead of 36."""
    data, protocol = folders("ref-davis17-converted"), small("ref-davis17", window=3)
    predict(model, processor, protocol, data, tmp_path)
    told = json.loads((data / "meta_expressions/valid/meta_expressions.json").read_text())
    seen = set()
    for video, entry in told["videos"].items():
        pixels = read_video(data / "valid/JPEGImages" / video)
        num_frames, _, height, width = pixels.shape
        for annotator in range(4):
            ids = range(annotator, len(entry["expressions"]), 4)
            competing = np.full((1 + len(ids), num_frames, height, width), 0.1)
            for order, expression in enumerate(ids, 1):
                text = entry["expressions"][str(expression)]["exp"]
                for start in range(0, num_frames, 3):
                    clip = pixels[start : start + 3]
                    scores, logits = query_outputs(model, processor, clip, text, protocol)
                    best = scores.mean(0).argmax()
                    for t, image in enumerate(logits[:, best], start):
                        probability = bilinear(sigmoid(image), height, width)
                        competing[order, t] = np.where(probability < 0.5, 0, probability)
            for t in range(num_frames):
                with Image.open(tmp_path / f"anno_{annotator}/{video}/{t:05d}.png") as image:
                    assert image.mode == "P"
                    found = np.array(image)
                assert (competing[:, t].argmax(0) != found).mean() < 1e-3
                seen |= set(np.unique(found).tolist())
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["a2d-sentences", "jhmdb-sentences"])
def test_detections_are_all_queries_in_the_annotated_frame(
    name, folders, model, processor, tmp_path
):
    """The window is 2 frames before the annotated one to 2 behind it, the ends repeated."""
    data, protocol = folders(name), small(name)
    predict(model, processor, protocol, data, tmp_path)
    entries = read_index(tmp_path)
    assert len(entries) == {"a2d-sentences": 14, "jhmdb-sentences": 9}[name]
    for row in load_rvos_dataset(name, data, "test"):
        entry = entries[row["video_id"], row["expression_id"]]
        frame, last = row["annotated"][0], row["num_frames"] - 1
        window = [min(max(frame + offset, 0), last) for offset in (-2, -1, 0, 1, 2)]
        clip = read_frames(data, row, window)
        place = window.index(frame)
        scores, logits = query_outputs(model, processor, clip, row["expression"], protocol)
        assert entry["scores"] == pytest.approx(scores[place].tolist(), abs=1e-5)
        size = clip.shape[-2:]
        input_size = (40, 40 * size[1] // size[0])
        expected = detected_masks(torch.from_numpy(logits[place]), input_size, size, 0.5)
        for code, mask in zip(entry["masks"], expected.numpy(), strict=True):
            assert (decode_mask(code) != mask).mean() < 1e-3
        assert "answer" not in entry


def test_answer_of_a_mixture_is_stored_beside_the_queries(folders, processor, tmp_path):
    model = perturb(tiny_model(soft_selection=True))
    predict(model, processor, small("jhmdb-sentences"), folders("jhmdb-sentences"), tmp_path)
    entries = read_index(tmp_path).values()
    assert all(entry["answer"]["size"] == [64, 96] for entry in entries)
    assert any(entry["answer"] not in entry["masks"] for entry in entries)


def test_without_soft_selection_the_answer_is_the_published_query(model, processor):
    torch.manual_seed(0)
    inputs = processor(
        videos=torch.randint(256, (4, 3, 40, 60), dtype=torch.uint8),
        text=["a dog", "the cat", "it"],
        return_tensors="pt",
    )
    with torch.no_grad():
        outputs = model(**inputs)
    best = outputs.pred_logits.sigmoid().mean(1).argmax(1)
    for row, query in enumerate(best):
        torch.testing.assert_close(outputs.referred_masks[row], outputs.pred_masks[row, :, query])


@pytest.mark.parametrize(("longest_edge", "shape"), [(None, (40, 60)), (48, (32, 48))])
def test_clips_have_the_size_and_length_of_the_protocol(longest_edge, shape, folders, processor):
    """Of 7 frames of 64 x 96 pixels."""
    protocol = small("mevis", longest_edge=longest_edge, window=3)
    rows = list(load_rvos_dataset("mevis", folders("mevis"), "valid_u"))[:4]
    clips = inference.Clips([rows], protocol, folders("mevis"), processor)
    clips = [clips[index] for index in range(len(clips))]
    assert [clip.frames for clip in clips] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [clip.is_last for clip in clips] == [False, False, True]
    for clip in clips:
        assert clip.inputs["pixel_values_videos"].shape == (1, len(clip.frames), 3, *shape)
        assert clip.inputs["input_ids"].shape[0] == len(clip.rows) == 4
        assert clip.size == (64, 96)


def test_a_video_is_encoded_once_for_all_its_expressions(
    folders, model, processor, tmp_path, monkeypatch
):
    calls, encode = [], model.get_video_features

    def spy(**inputs):
        calls.append(inputs["pixel_values_videos"].shape[1])
        return encode(**inputs)

    monkeypatch.setattr(model, "get_video_features", spy)
    predict(model, processor, small("mevis"), folders("mevis"), tmp_path / "once")
    assert calls == [7, 7]  # two videos of four expressions
    monkeypatch.setattr(inference, "FRAMES_AT_ONCE", 14)  # two expressions in a pass
    predict(model, processor, small("mevis"), folders("mevis"), tmp_path / "again")
    assert len(calls) == 4
    masks = [files_of(folder / "Annotations") for folder in (tmp_path / "once", tmp_path / "again")]
    assert masks[0] == masks[1]


def predict_until_killed(output: Path, after: int, *arguments) -> None:
    """Dies after so many PNG files, while it writes a line of the index."""
    save, written = inference.save_mask, []

    def save_or_die(path, mask):
        if len(written) == after:
            with open(output / "predictions-0.jsonl", "a") as file:
                file.write('{"video_id": "00f8')
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(save(path, mask))

    inference.save_mask = save_or_die
    predict(*arguments)


def test_killed_run_goes_on_where_it_stopped(folders, model, processor, tmp_path, one_thread):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = model, processor, small("ref-youtube-vos"), folders("ref-youtube-vos")
    process = multiprocessing.get_context("fork").Process(
        target=predict_until_killed, args=(killed, 45, *run, killed)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {path.name for path in killed.iterdir()} == {
        "Annotations",
        "predictions-0.jsonl",
        "settings.json",
    }
    first = list((killed / "Annotations/0062f687f1").rglob("*.png"))
    assert len(first) == 4 * 8
    for path in first:
        os.utime(path, (0, 0))
    for output in (whole, killed):
        assert predict(*run, output) == output / "submission.zip"
    assert all(path.stat().st_mtime == 0 for path in first)  # they were not made again
    assert files_of(killed) == files_of(whole)


def predict_in_fresh_state(log: Path, *arguments) -> None:
    """In a fork, which has the state of its parent; tells in `log` what clips it had."""
    PartialState._reset_state()
    clip_of, clips = inference.predict_clip, []

    def log_and_predict(model, clip, protocol, root):
        clips.append([clip.rows[0]["video_id"], clip.frames])
        return clip_of(model, clip, protocol, root)

    inference.predict_clip = log_and_predict
    predict(*arguments)
    (log / f"{PartialState().process_index}.json").write_text(json.dumps(clips))


@pytest.mark.parametrize("name", ["ref-youtube-vos", "a2d-sentences"])
def test_two_processes_do_what_one_does(name, folders, model, processor, tmp_path, one_thread):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    run = model, processor, small(name), folders(name)
    debug_launcher(predict_in_fresh_state, (tmp_path, *run, shared), num_processes=2)
    predict(*run, alone)
    assert files_of(alone) == files_of(shared)
    parts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert abs(len(parts[0]) - len(parts[1])) <= 1
    assert all(clip not in parts[1] for clip in parts[0])  # nothing is done twice
    lines = (shared / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == len(load_rvos_dataset(name, run[3], run[2].split))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run | {"protocol": small("mevis", window=3)}, "window from None to 3"),
        (lambda run: run | {"split": "train"}, "split from valid_u to train"),
        (lambda run: run | {"model": tiny_model()}, "model from "),
    ],
)
def test_other_settings_are_refused(change, message, folders, model, processor, tmp_path):
    run = {"model": model, "processor": processor, "protocol": small("mevis")}
    run |= {"data_dir": folders("mevis"), "output_dir": tmp_path}
    predict(**run)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=f"holds predictions of another run.*{message}"):
        predict(**change(run))
    assert files_of(tmp_path) == before


def test_changed_expressions_and_normalisation_are_refused(
    root, model, processor, checkpoint, tmp_path
):
    data = make_benchmark("mevis", root / "changed")
    run = model, processor, small("mevis"), data, tmp_path
    predict(*run)
    normalised = ProxyFormerProcessor.from_pretrained(checkpoint)
    normalised.video_processor.image_mean = [0.5, 0.5, 0.5]
    with pytest.raises(ValueError, match="model from"):
        predict(model, normalised, *run[2:])
    path = data / "valid_u/meta_expressions.json"
    path.write_text(path.read_text().replace('"exp": "', '"exp": "not ', 1))
    with pytest.raises(ValueError, match="data from"):
        predict(*run)


def test_a_copy_of_a_checkpoint_is_the_same_model(checkpoint, processor, folders, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "copy")
    for folder in (checkpoint, tmp_path / "copy"):
        model = ProxyFormerForReferringSegmentation.from_pretrained(folder).eval()
        processor = ProxyFormerProcessor.from_pretrained(folder)
        predict(model, processor, small("mevis"), folders("mevis"), tmp_path / "out")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_missing_frame_is_named_and_what_was_done_is_kept(
    num_workers, root, model, processor, tmp_path
):
    data = make_benchmark("ref-davis17-converted", root / f"lost-{num_workers}")
    rows = load_rvos_dataset("ref-davis17", data, "valid")
    lost = data / rows[len(rows) - 1]["media"] / rows[len(rows) - 1]["frames"][2]
    lost.unlink()
    run = model, processor, small("ref-davis17"), data, tmp_path
    with pytest.raises(DataError, match=f"^{lost} is missing"):
        predict(*run, num_workers=num_workers)
    done = {video_id for video_id, _ in read_index(tmp_path)}
    assert done == {*rows["video_id"]} - {rows[len(rows) - 1]["video_id"]}


def test_moving_shapes_need_no_folder(model, processor, tmp_path):
    protocol = small("moving-shapes", options={"num_videos": 2})
    assert predict(model, processor, protocol, None, tmp_path) is None
    evaluation = score(protocol, None, tmp_path)
    rows = load_rvos_dataset("moving-shapes", None, "valid", num_videos=2)
    assert [item.row for item in evaluation.items] == list(rows)
    assert 0 < evaluation.scores["J&F-Mean"] < 100


def test_first_videos_of_a_split_are_predicted_and_scored_as_in_the_whole(
    folders, model, processor, tmp_path
):
    whole, data = small("mevis"), folders("mevis")
    first = replace(whole, num_videos=1)
    for protocol, output in ((whole, tmp_path / "whole"), (first, tmp_path / "first")):
        submission = predict(model, processor, protocol, data, output)
        assert (submission is None) == (protocol is first)  # the server takes whole splits
    video = load_rvos_dataset("mevis", data, "valid_u")[0]["video_id"]
    of_video = files_of(tmp_path / "whole/Annotations" / video)
    assert files_of(tmp_path / "first/Annotations") == {
        f"{video}/{name}": content for name, content in of_video.items()
    }
    scored = score(first, data, tmp_path / "first")
    items = score(whole, data, tmp_path / "whole").items
    assert scored.items == [item for item in items if item.row["video_id"] == video]
    assert scored.scores["J-Mean"] == pytest.approx(
        np.mean([item.scores["J"] for item in scored.items])
    )
    with pytest.raises(ValueError, match="num_videos from 1 to None"):
        predict(model, processor, whole, data, tmp_path / "first")


def test_finished_run_is_left_alone(folders, model, processor, tmp_path, monkeypatch):
    run = model, processor, small("mevis"), folders("mevis"), tmp_path
    predict(*run)
    before = files_of(tmp_path)
    monkeypatch.setattr(model, "get_video_features", None)
    predict(*run)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "split", "top"),
    [("ref-youtube-vos", "valid", "Annotations/"), ("mevis", "valid", "")],
)
def test_zip_for_the_server_is_written_without_public_masks(
    name, split, top, folders, model, processor, tmp_path
):
    data = folders(name)
    path = predict(model, processor, small(name), data, tmp_path, split)
    rows = load_rvos_dataset(name, data, split)
    expected = {
        f"{top}{row['video_id']}/{row['expression_id']}/{Path(frame).stem}.png"
        for row in rows
        for frame in row["frames"]
    }
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == sorted(expected)
        for member in list(expected)[:3]:
            stored = tmp_path / "Annotations" / member.removeprefix("Annotations/")
            assert archive.read(member) == stored.read_bytes()
            with Image.open(archive.open(member)) as image:
                assert image.mode == "L" and set(image.getdata()) <= {0, 255}


def test_score_of_a_video_in_clips_is_the_mean_over_its_frames():
    entries = [[{"expression_id": "0", "score": 0.2}], [{"expression_id": "0", "score": 0.8}]]
    (entry,) = inference.average_scores(entries, [3, 1])
    assert entry == {"expression_id": "0", "score": pytest.approx(0.35)}
