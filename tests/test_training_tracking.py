# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import io
import json
import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from accelerate import Accelerator, PartialState
from accelerate.launchers import debug_launcher
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from proxyformer_hf.evaluation.inference import predict
from proxyformer_hf.evaluation.protocols import find_protocol
from proxyformer_hf.evaluation.scoring import score
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.training import tracking
from proxyformer_hf.training.tracking import RunLog, draw_clips, flatten, peak_memory, validate
from proxyformer_hf.visualization import MASK_OPACITY, PALETTE
from tests.tiny_model import TINY_TIMM, perturb, save_tiny_checkpoint, tiny_model

SHAPES = replace(
    find_protocol("moving-shapes"), shortest_edge=40, options={"num_videos": 3}, num_videos=2
)


@pytest.fixture(scope="module")
def processor(tmp_path_factory) -> ProxyFormerProcessor:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_checkpoint(folder)
    return ProxyFormerProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def model():
    return perturb(tiny_model())


def tensorboard(folder: Path) -> Accelerator:
    return Accelerator(cpu=True, log_with="tensorboard", project_dir=folder)


def read_events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "logs"), size_guidance={"images": 0}).Reload()


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """By tag and step."""
    events = read_events(folder)
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


class Clock:
    """Stands for the time that data and steps take."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(tracking.time, "perf_counter", lambda: self.now)

    def batches(self, seconds: list[float]):
        for number, duration in enumerate(seconds):
            self.now += duration
            yield number


def test_entries_are_means_since_the_last_one(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    log = RunLog(tensorboard(tmp_path), max_steps=5, done=0, log_every=2, settings={})
    for step, batch in enumerate(log.timed(clock.batches([1.0, 3.0, 2.0, 2.0, 4.0])), 1):
        for part in (0.0, 1.0):  # micro-batches
            value = torch.tensor(batch + part)
            terms = {"loss": value, "loss_mask": 2 * value, "loss_mask_aux_0": 3 * value}
            log.add(terms, num_clips=3)
        clock.now += 4.0
        log.step(step, torch.tensor(10.0 * step), {"heads": 1 / step, "text": 0.0}, skipped=step)
        clock.now += 1000.0  # a validation
    log.close()
    found = scalars(tmp_path)
    means = {2: 1.0, 4: 3.0, 5: 4.5}  # the mean of 0, 1, 1, 2; of 2, 3, 3, 4; of 4, 5
    assert found["loss/total"] == means
    assert found["loss/mask"] == {step: 2 * value for step, value in means.items()}
    assert found["loss/mask_aux_0"] == {step: 3 * value for step, value in means.items()}
    assert found["training/gradient_norm"] == {2: 15.0, 4: 35.0, 5: 50.0}
    assert found["training/skipped_updates"] == {2: 2.0, 4: 4.0, 5: 5.0}
    assert found["learning_rate/heads"] == pytest.approx({2: 0.5, 4: 0.25, 5: 0.2})
    assert found["learning_rate/text"] == {2: 0.0, 4: 0.0, 5: 0.0}
    assert found["speed/clips_per_second"] == pytest.approx({2: 1.0, 4: 1.0, 5: 0.75})
    assert found["speed/data_wait"] == pytest.approx({2: 4 / 12, 4: 4 / 12, 5: 0.5})
    assert found["memory/gigabytes"][5] == pytest.approx(peak_memory(torch.device("cpu")), rel=0.1)


def test_memory_is_what_the_process_held_at_most():
    before, process = peak_memory(torch.device("cpu")), psutil.Process()
    growth = int(before * 1e9) - process.memory_info().rss + 200_000_000  # 0.2 above the peak
    held = mmap.mmap(-1, growth)  # new pages: an allocator may give what was freed before
    np.frombuffer(held, np.uint8)[:: mmap.PAGESIZE] = 1
    now, grown = process.memory_info().rss / 1e9, peak_memory(torch.device("cpu"))
    held.close()
    assert before + 0.1 < grown < before + 0.3
    assert grown == pytest.approx(now, abs=0.05)
    assert peak_memory(torch.device("cpu")) == pytest.approx(grown, abs=0.05)


def test_devices_are_not_waited_for_between_entries(tmp_path):
    """A tensor without values stands for one that is not computed yet."""
    log = RunLog(tensorboard(tmp_path), max_steps=20, done=0, log_every=10, settings={})
    pending = torch.zeros((), device="meta")
    for step, _ in enumerate(log.timed(range(9)), 1):
        log.add({"loss": pending}, num_clips=1)
        log.step(step, pending, {}, skipped=0)
    log.close()


def test_resumed_run_hides_what_it_does_again(tmp_path):
    for done, last, value in ((0, 6, 1.0), (4, 8, 2.0)):
        log = RunLog(tensorboard(tmp_path), max_steps=8, done=done, log_every=2, settings={})
        for step, _ in enumerate(log.timed(range(done, last)), done + 1):
            log.add({"loss": torch.tensor(value)}, num_clips=1)
            log.step(step, 0.0, {}, skipped=0)
        log.close()
    events = read_events(tmp_path).Scalars("loss/total")
    assert [(event.step, event.value) for event in events] == [(2, 1), (4, 1), (6, 2), (8, 2)]


def test_bar_shows_loss_and_the_first_score(tmp_path, capsys):
    log = RunLog(tensorboard(tmp_path), max_steps=4, done=1, log_every=1, settings={})
    for step, _ in enumerate(log.timed(range(2)), 2):
        log.add({"loss": torch.tensor(0.12345)}, num_clips=1)
        log.step(step, 0.0, {}, skipped=0)
    log.scores(3, {"J&F-Mean": 61.23, "J-Mean": 59.0})
    log.close()
    shown = capsys.readouterr().err
    assert "3/4" in shown and "loss=0.123" in shown and "J&F-Mean=61.2" in shown
    found = scalars(tmp_path)
    assert found["validation/J-Mean"] == {3: 59.0}
    assert found["validation/J&F-Mean"][3] == pytest.approx(61.23)


def test_settings_are_flat_and_stored(tmp_path):
    settings = {"run": {"seed": 3, "trackers": ["tensorboard"]}, "data": [{"name": "x"}]}
    settings |= {"none": None, "path": Path("a/b")}
    assert flatten(settings) == {
        "run.seed": 3,
        "run.trackers.0": "tensorboard",
        "data.0.name": "x",
        "none": None,
        "path": "a/b",
    }
    RunLog(tensorboard(tmp_path), max_steps=4, done=0, log_every=1, settings=settings).close()
    (stored,) = (tmp_path / "logs").rglob("hparams.yml")
    assert "run.seed: 3" in stored.read_text()


def uniform_clip() -> dict:
    """Grey frames, then noise, with a box of one expression and nothing of the other."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 3, 160, 320, dtype=torch.uint8)
    masks[0, :, 90:140, 40:200] = 1
    frames = torch.full((3, 3, 160, 320), 100, dtype=torch.uint8)
    frames[1:] = torch.randint(256, (2, 3, 160, 320), generator=generator, dtype=torch.uint8)
    return {"frames": frames, "masks": masks, "expressions": ["a box", "the dog"]}


def tinted(frame: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected pixels, and which of them neither an outline nor the legend covers."""
    pixels, plain = frame.astype(float), np.ones(frame.shape[:2], bool)
    plain[:64] = False
    for mask, color in zip(masks, PALETTE, strict=False):
        pixels[mask] = (1 - MASK_OPACITY) * pixels[mask] + MASK_OPACITY * np.array(color)
        square = np.ones((3, 3))
        plain &= binary_erosion(mask, square, border_value=1) | ~binary_dilation(mask, square)
    return pixels, plain


def test_picture_has_the_true_masks_above_the_predicted_ones(model, processor):
    clip = uniform_clip()
    (picture,) = draw_clips(model, processor, [clip])
    margin, height, width = 4, 160, 320
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * (height + margin) + margin, 3 * (width + margin) + margin, 3)

    inputs = processor(
        videos=clip["frames"],
        text=clip["expressions"],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )
    with torch.no_grad():
        probabilities = model(**inputs).referred_masks.sigmoid()
    predicted = torch.nn.functional.interpolate(probabilities, (160, 320), mode="bilinear") > 0.5
    assert 0.02 < predicted.float().mean() < 0.98
    for row, masks in enumerate((clip["masks"].bool().numpy(), predicted.numpy())):
        for column in range(3):
            top, left = margin + row * (height + margin), margin + column * (width + margin)
            tile = picture[top : top + height, left : left + width]
            frame = clip["frames"][column].permute(1, 2, 0).numpy()
            pixels, plain = tinted(frame, masks[:, column])
            assert plain.mean() > 0.1
            assert (np.abs(tile - pixels).max(-1)[plain] <= 2).mean() > 0.999


def test_pictures_are_in_the_event_file(tmp_path):
    log = RunLog(tensorboard(tmp_path), max_steps=4, done=0, log_every=1, settings={})
    wide, high = np.zeros((20, 50, 3), np.uint8), np.zeros((60, 30, 3), np.uint8)
    wide[5:, 10:] = PALETTE[0]
    log.pictures(3, [wide, high])
    log.close()
    events = read_events(tmp_path)
    for number, picture in enumerate((wide, high)):
        (event,) = events.Images(f"predictions/{number}")
        assert event.step == 3
        decoded = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        np.testing.assert_array_equal(decoded, picture)


def snapshot(model) -> list[torch.Tensor]:
    modes = torch.tensor([module.training for module in model.modules()])
    return [*(t.clone() for t in model.state_dict().values()), modes, torch.get_rng_state()]


def test_validation_gives_the_benchmarks_scores_and_disturbs_nothing(processor, tmp_path):
    model = perturb(tiny_model(vision_config=TINY_TIMM))
    predict(model, processor, SHAPES, None, tmp_path / "by hand")
    expected = score(SHAPES, None, tmp_path / "by hand").scores
    model.train()
    model.model.text_encoder.eval()
    before, folder = snapshot(model), tmp_path / "validation"
    (folder / "Annotations/left by a killed run").mkdir(parents=True)
    args = Accelerator(cpu=True), model, processor, SHAPES, None, None, folder
    assert validate(*args, num_workers=0) == pytest.approx(expected)
    draw_clips(model, processor, [uniform_clip()])
    assert not folder.exists()
    for old, new in zip(before, snapshot(model), strict=True):
        assert torch.equal(old, new)


def test_modes_return_after_a_failed_validation(model, processor, tmp_path, monkeypatch):
    model.train()

    def fail(*args):
        assert not model.training
        raise ValueError("no masks")

    monkeypatch.setattr(tracking, "predict", fail)
    with pytest.raises(ValueError, match="no masks"):
        validate(
            Accelerator(cpu=True), model, processor, SHAPES, None, None, tmp_path / "validation", 0
        )
    assert all(module.training for module in model.modules())


def log_and_validate(folder: Path, model, processor) -> None:
    PartialState._reset_state()
    accelerator = tensorboard(folder)
    rank = accelerator.process_index
    log = RunLog(accelerator, max_steps=1, done=0, log_every=1, settings={})
    for _ in log.timed(range(1)):
        log.add({"loss": torch.tensor(1.0 + rank)}, num_clips=1)
        log.step(1, 0.0, {}, skipped=0)
    scores = validate(
        accelerator, model, processor, SHAPES, None, None, folder / "validation", num_workers=0
    )
    log.scores(1, scores)
    log.close()
    (folder / f"{rank}.json").write_text(json.dumps(scores))


def test_two_processes_share_the_log_and_the_validation(model, processor, tmp_path, one_thread):
    debug_launcher(log_and_validate, (tmp_path, model, processor), num_processes=2)
    found = scalars(tmp_path)
    assert found["loss/total"] == {1: 1.5}
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert told[0] == told[1]
    assert found["validation/J-Mean"][1] == pytest.approx(told[0]["J-Mean"])
