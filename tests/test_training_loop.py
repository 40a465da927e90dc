# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Runs of scripts/train.py on moving-shapes, tiny, and what is in their last checkpoints."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))
import evaluate_dev  # noqa: E402
import train as train_script  # noqa: E402

from proxyformer_hf.cli import app  # noqa: E402
from proxyformer_hf.data import sources  # noqa: E402
from proxyformer_hf.evaluation import protocols  # noqa: E402
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation  # noqa: E402
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor  # noqa: E402
from proxyformer_hf.training import datasets, loop  # noqa: E402
from proxyformer_hf.training.recipe import load_recipe  # noqa: E402
from tests.toy_data import make_data_folder  # noqa: E402

RECIPE = """
data:
  - name: moving-shapes
    num_frames: 2
    expressions: 2
    transform: null
    options: {height: 64, width: 64, num_videos: 14}
model:
  vision: {backbone: test_resnet, out_indices: [1, 2, 3, 4]} # batch norm trains
  text: # with dropout
    hidden_size: 16
    num_hidden_layers: 1
    num_attention_heads: 2
    intermediate_size: 16
    vocab_size: 300
    max_position_embeddings: 70
  config:
    hidden_size: 16
    num_attention_heads: 2
    num_hidden_layers: 1
    num_queries: 2
    mask_feature_size: 8
    lexical_words: true
    lexical_dropout: 0.3
  attention: eager
optimizer:
  learning_rate: 1e-3
  text_learning_rate: 1e-3
  freeze_text: false
  gradient_clip: 1.0
  scheduler: cosine
  warmup_steps: 2
  ema_decay: 0.9
run: {max_steps: 20, batch_size: 2, checkpoint_every: 5, log_every: 4, seed: 3}
"""
# Without anything that depends on how the clips of an update are spread over batches.
PLAIN = [
    "model.vision.freeze_batch_norm_2d=true",
    "model.text.hidden_dropout_prob=0",
    "model.text.attention_probs_dropout_prob=0",
    "model.config.lexical_dropout=0",
    "optimizer.ema_decay=null",
    "optimizer.warmup_steps=0",
    "run.max_steps=3",
]


def run(config: Path, output: Path, overrides: list[str] = (), resume: bool = False) -> bool:
    """A run as of a new process, which has other random numbers and knows no devices yet."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.seed()
    return train_script.run(load_recipe(config, overrides=overrides), output, resume, None)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


class Recorder:
    """Notes ids and loss of each update in a file, and acts after one of them."""

    def __init__(self, path: Path, after: int | None = None, act=None):
        self.path, self.after, self.act = path, after, act

    def __enter__(self) -> "Recorder":
        self.update = loop.TrainingState.update
        recorder = self

        def update(state, batches, log, output_dir):
            recorder.record(state, batches, log, output_dir)

        loop.TrainingState.update = update
        return self

    def __exit__(self, *error) -> None:
        loop.TrainingState.update = self.update

    def record(self, state, batches, log, output_dir) -> None:
        ids = [name for batch in batches for name in batch["ids"]]
        losses, add = [], log.add

        def keep(terms: dict[str, Tensor], num_clips: int) -> None:
            losses.append(terms["loss"].item())
            add(terms, num_clips)

        log.add = keep
        self.update(state, batches, log, output_dir)
        log.add = add
        step, process = state.progress.step, state.accelerator.process_index
        with open(f"{self.path}.{process}", "a") as file:
            loss = sum(losses) / len(losses)
            file.write(json.dumps({"step": step, "ids": ids, "loss": loss}) + "\n")
        if step == self.after:
            self.act(state)

    def lines(self, process: int = 0) -> list[dict]:
        return [
            json.loads(line) for line in Path(f"{self.path}.{process}").read_text().split("\n")[:-1]
        ]


def signalled(number: int):
    return lambda state: os.kill(os.getpid(), number)


def python(folder: Path, call: str, *launcher: str) -> subprocess.CompletedProcess:
    """Runs a line of Python that knows the names of this module, in a new process; with as many
    threads, whose number decides how sums are rounded."""
    script = folder / "call.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"from tests.test_training_loop import *\n{call}\n"
    )
    return subprocess.run(
        [sys.executable, *launcher, str(script)],
        env=os.environ
        | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        timeout=300,
    )


def state_of(output: Path, step: int = 20) -> dict:
    """All that a checkpoint's state holds, by file."""
    folder = output / f"checkpoints/step-{step:07d}/state"
    return {
        path.name: load_file(path)
        if path.suffix == ".safetensors"
        else torch.load(path, weights_only=False)
        for path in folder.iterdir()
    }


def count_same(one, two, name: str = "") -> int:
    """Compares nested values to the bit; returns how many tensors there were."""
    assert type(one) is type(two), name
    if isinstance(one, Tensor):
        assert torch.equal(one, two), name
        return 1
    if isinstance(one, dict):
        assert one.keys() == two.keys(), name
        return sum(count_same(one[key], two[key], f"{name}/{key}") for key in one)
    if isinstance(one, list | tuple):
        return sum(
            count_same(a, b, f"{name}/{i}") for i, (a, b) in enumerate(zip(one, two, strict=True))
        )
    assert str(one) == str(two), name
    return 0


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Recorder:
    """An uninterrupted run of 20 steps, in the folder `run` beside its records."""
    folder = tmp_path_factory.mktemp("whole")
    with Recorder(folder / "record") as recorder:
        assert run(config, folder / "run")
    return recorder


def assert_same_end(output: Path, whole: Path) -> None:
    state = state_of(whole)
    assert {"model.safetensors", "optimizer.bin", "random_states_0.pkl"} < state.keys()
    assert len(state) == 6  # and the average, the schedule, the progress
    assert count_same(state_of(output), state) > 300
    count_same(*(load_file(folder / "model/model.safetensors") for folder in (output, whole)))


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_an_interrupted_run_ends_like_the_uninterrupted_one(end, config, whole, tmp_path):
    output = tmp_path / "run"
    if end == "SIGTERM":
        with Recorder(tmp_path / "record", 8, signalled(signal.SIGTERM)):
            assert not run(config, output)
        last = 8  # saved when the signal came
    else:
        call = (
            f"with Recorder(Path({str(tmp_path / 'record')!r}), 13, signalled(signal.SIGKILL)):\n"
            f"    run(Path({str(config)!r}), Path({str(output)!r}))"
        )
        assert python(tmp_path, call).returncode == -signal.SIGKILL
        last = 10
    checkpoints = sorted(path.name for path in (output / "checkpoints").iterdir())
    assert checkpoints[-1] == f"step-{last:07d}" and not (output / "model").exists()

    with Recorder(tmp_path / "record") as recorder:
        assert run(config, output, ["run.num_workers=0"], resume=True)
    assert_same_end(output, whole.path.parent / "run")
    lines = {json.dumps(line) for line in recorder.lines()}  # steps that were repeated once
    assert lines == {json.dumps(line) for line in whole.lines()}
    assert len({name for line in whole.lines() for name in line["ids"]}) > 30  # several epochs


def test_a_damaged_newest_checkpoint_is_passed_over(config, whole, tmp_path, caplog):
    output = tmp_path / "run"
    shutil.copytree(whole.path.parent / "run", output)
    damaged = output / "checkpoints/step-0000020/state/optimizer.bin"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with Recorder(tmp_path / "record") as recorder:
        assert run(config, output, resume=True)
    assert str(damaged) in caplog.text
    assert [line["step"] for line in recorder.lines()] == [16, 17, 18, 19, 20]
    assert_same_end(output, whole.path.parent / "run")


def test_two_processes_train_like_one_with_the_whole_batch(config, tmp_path):
    with Recorder(tmp_path / "one") as one:
        run(config, tmp_path / "run-one", PLAIN)
    call = (
        f"with Recorder(Path({str(tmp_path / 'two')!r})):\n"
        f"    run(Path({str(config)!r}), Path({str(tmp_path / 'run-two')!r}),"
        " [*PLAIN, 'run.batch_size=1'])"
    )
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    result = python(tmp_path, call, *launcher)
    assert result.returncode == 0, result.stderr
    parts = [Recorder(tmp_path / "two").lines(process) for process in (0, 1)]
    assert len(one.lines()) == 3
    for whole_line, *own in zip(one.lines(), *parts, strict=True):
        assert whole_line["ids"] == own[0]["ids"] + own[1]["ids"]
        mean = sum(line["loss"] for line in own) / 2
        assert mean == pytest.approx(whole_line["loss"], rel=1e-4)
    assert own[0]["loss"] != own[1]["loss"]
    weights = [
        load_file(tmp_path / name / "model/model.safetensors") for name in ("run-one", "run-two")
    ]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=2e-4, rtol=0, msg=name)


def test_accumulated_batches_train_like_one(config, tmp_path):
    settings = [*PLAIN, "model.config.jsc_semantics=none"]  # JSC compares within a micro-batch
    with Recorder(tmp_path / "one") as one:
        run(config, tmp_path / "run-one", settings)
    with Recorder(tmp_path / "two") as two:
        accumulated = ["run.batch_size=1", "run.gradient_accumulation_steps=2"]
        run(config, tmp_path / "run-two", settings + accumulated)
    for line, other in zip(one.lines(), two.lines(), strict=True):
        assert line["ids"] == other["ids"]
        assert other["loss"] == pytest.approx(line["loss"], rel=1e-4)
    weights = [
        load_file(tmp_path / name / "model/model.safetensors") for name in ("run-one", "run-two")
    ]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=2e-4, rtol=0, msg=name)


def spoil(value: float):
    """Makes a weight, and so the loss, `value`."""

    @torch.no_grad()
    def act(state) -> None:
        state.model.class_head.bias.fill_(value)

    return act


def test_a_loss_that_is_no_number_stops_the_run(config, tmp_path):
    with Recorder(tmp_path / "record", 2, spoil(float("nan"))):
        with pytest.raises(FloatingPointError, match="step 3: loss"):
            run(config, tmp_path / "run", ["run.checkpoint_every=2"])
    (report,) = json.loads((tmp_path / "run/non_finite_step_3.json").read_text())
    assert len(report["ids"]) == 2 and report["ids"][0].startswith("moving-shapes/")
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-0000002"]


def test_an_update_without_a_finite_gradient_is_left_out(config, tmp_path):
    def explode(state) -> None:
        parameter = state.model.class_head.weight
        state.before = {name: p.clone() for name, p in state.model.named_parameters()}
        state.handle = parameter.register_hook(lambda gradient: gradient * float("inf"))

    states = []

    class Check(Recorder):
        def record(self, state, batches, log, output_dir):
            super().record(state, batches, log, output_dir)
            states.append((state.progress.step, state.progress.skipped))
            if state.progress.step == 3:
                state.handle.remove()
                for name, parameter in state.model.named_parameters():
                    assert torch.equal(parameter, state.before[name]), name

    with Check(tmp_path / "record", 2, explode):
        assert run(config, tmp_path / "run", ["run.max_steps=4"])
    assert states == [(1, 0), (2, 0), (3, 1), (4, 1)]


def test_folders_in_use_and_other_recipes_are_refused(config, whole, tmp_path):
    used = whole.path.parent / "run"
    for output, settings, resume, message in (
        (used, [], False, "not empty: add --resume"),
        (used, ["optimizer.decay=0.5"], True, "another recipe, .* optimizer.decay:"),
        (tmp_path / "new", [], True, "no run to resume"),
    ):
        with pytest.raises(ValueError, match=message):
            run(config, output, settings, resume)
    assert not (tmp_path / "new").exists()
    assert run(config, used, ["run.log_every=1"], resume=True)  # complete: exports again


def test_a_run_that_fails_before_its_first_step_leaves_the_folder_free(config, tmp_path):
    with pytest.raises(ValueError, match="height"):
        run(config, tmp_path / "run", ["data.0.options.height=7"])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]
    assert run(config, tmp_path / "run", ["run.max_steps=1"])


def small_protocols() -> list[protocols.Protocol]:
    """That of moving-shapes, for one video."""
    (protocol,) = (p for p in protocols.PROTOCOLS if p.benchmark == "moving-shapes")
    options = {"num_videos": 1, "num_frames": 2, "height": 64, "width": 64}
    return [replace(protocol, options=options, shortest_edge=64)]


def test_launched_script_leaves_a_model_that_evaluates(config, tmp_path, monkeypatch):
    output = tmp_path / "run"
    command = ["-m", "accelerate.commands.launch", "--num_processes=1", "--cpu"]
    command += [str(ROOT / "scripts/train.py"), f"--config={config}", f"--output-dir={output}"]
    command += ["--max-steps=2", "--variant=queries-3", "--set=run.gradient_accumulation_steps=2"]
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    model = ProxyFormerForReferringSegmentation.from_pretrained(output / "model")
    assert model.config.num_queries == 3
    assert ProxyFormerProcessor.from_pretrained(output / "model").tokenizer.model_max_length == 68
    assert "moving-shapes" in (output / "model/README.md").read_text()

    monkeypatch.setattr(protocols, "PROTOCOLS", small_protocols())
    AcceleratorState._reset_state(reset_partial_state=True)
    arguments = ["evaluate", "moving-shapes", str(tmp_path), "--model", str(output / "model")]
    arguments += ["--output", str(tmp_path / "scores"), "--device", "cpu", "--workers", "0"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "J&F" in result.output


def test_validation_by_a_benchmark_reaches_the_tracker(config, tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "PROTOCOLS", small_protocols())
    settings = ["benchmark=moving-shapes", "num_videos=1", "every=2", "num_pictures=1"]
    settings = [f"validation.{setting}" for setting in settings]
    settings += ["run.max_steps=3", "run.log_every=1", "run.num_workers=0"]
    assert run(config, tmp_path / "run", settings)
    events = EventAccumulator(str(tmp_path / "run/logs"))
    events.Reload()
    assert [event.step for event in events.Scalars("validation/J&F-Mean")] == [2, 3]
    assert [event.step for event in events.Images("predictions/0")] == [2, 3]
    assert [event.step for event in events.Scalars("learning_rate/vision")] == [1, 2, 3]
    assert not (tmp_path / "run/validation").exists()


def test_stills_and_videos_train_with_dev_scores(config, tmp_path, monkeypatch):
    data_dir = make_data_folder(tmp_path / "data")
    monkeypatch.setattr(sources, "DEV_IMAGES", {9001})
    for module in (evaluate_dev, datasets):
        monkeypatch.setattr(module, "DEV_VIDEOS", ("bus",))
    clips = "{num_frames: 2, video_size: [32, 64], image_size: [32, 64], paired_size: [32, 64]}"
    settings = [
        f"data=[{{name: stills-and-videos, data_dir: {data_dir}, clips: {clips}}}]",
        "run.max_steps=2",
        "validation.benchmark=dev",
        f"validation.data_dir={data_dir}",
        "validation.num_pictures=1",
    ]
    assert run(config, tmp_path / "run", settings)
    events = EventAccumulator(str(tmp_path / "run/logs"))
    events.Reload()
    names = {"dev_J", "dev_J_blind", "dev_image_right", "dev_image_swapped", "dev_image_blind"}
    assert {f"validation/{name}" for name in names} < {*events.Tags()["scalars"]}
    assert events.Images("predictions/0")

    output = tmp_path / "dev"
    evaluate_dev.main(tmp_path / "run/model", data_dir, output, size=32, stride=4)
    report = json.loads((output / "dev.json").read_text())
    assert {*report["videos"]} == {"bus"} and report["images"]["template"]["pairs"] == 1
    assert (output / "dev.png").exists()


def test_mistakes_end_the_script_with_a_line(config, tmp_path, capsys):
    with pytest.raises(typer.Exit) as end:
        train_script.main(config, tmp_path / "run", ["run.sed=1"])
    assert end.value.exit_code == 2
    assert "--set run.sed=1: run.sed: unknown setting" in capsys.readouterr().err
    with pytest.raises(typer.Exit) as end:
        train_script.main(config, tmp_path / "run", ["run.batch_size=99"])
    assert end.value.exit_code == 2 and "lower these" in capsys.readouterr().err
