# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel

from proxyformer_hf.training import checkpoints
from proxyformer_hf.training.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    written_whole,
)


class Run:
    """A small training whose every step draws from all generators."""

    def __init__(self, seed: int = 0):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.accelerator = Accelerator(cpu=True)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
        self.average = AveragedModel(model)
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(
            model, optimizer, scheduler
        )
        self.accelerator.register_for_checkpointing(self.average)

    def train(self, steps: int) -> "Run":
        for _ in range(steps):
            inputs = torch.randn(5, 4) + random.random() + np.random.rand()
            self.accelerator.backward(self.model(inputs).square().mean())
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        return self

    def export(self, folder: Path) -> None:
        if self.accelerator.is_main_process:
            folder.mkdir()
            torch.save(self.average.module.state_dict(), folder / "weights.pt")

    def save(self, output: Path, step: int, limit: int = 9) -> Path:
        return save_checkpoint(self.accelerator, output, step, self.export, limit)

    def state(self) -> list[torch.Tensor]:
        rates = [torch.tensor(self.scheduler.get_last_lr())]
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        weights = [*self.model.state_dict().values(), *self.average.state_dict().values()]
        return [tensor.clone() for tensor in (*weights, *moments, *rates)]


def assert_same(tensors, others) -> None:
    for tensor, other in zip(tensors, others, strict=True):
        assert torch.equal(tensor, other)


def names_of(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").iterdir())


def test_loaded_run_goes_on_to_the_bit(tmp_path):
    straight = Run().train(6)
    run = Run().train(3)
    folder = run.save(tmp_path, 3)
    assert_same(straight.state(), run.train(3).state())  # saving disturbs nothing
    resumed = Run(seed=1).train(2)
    load_checkpoint(resumed.accelerator, folder)
    assert_same(straight.state(), resumed.train(3).state())
    exported = torch.load(folder / "model/weights.pt")
    assert set(exported) == set(straight.average.module.state_dict())


def test_manifest_tells_every_file(tmp_path):
    folder = Run().save(tmp_path, 12)
    assert folder == tmp_path / "checkpoints/step-0000012"
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {*manifest["files"], "manifest.json"} == files
    assert {"state/model.safetensors", "state/optimizer.bin", "model/weights.pt"} < files
    assert (manifest["step"], manifest["num_processes"]) == (12, 1)


def test_only_the_newest_stay_and_no_leftovers(tmp_path):
    run = Run()
    for name in ("step-0000001.partial", "step-0000002.replaced"):
        (tmp_path / "checkpoints" / name / "state").mkdir(parents=True)
    for step in (9, 10, 100, 9_999_999, 10_000_000):
        run.save(tmp_path, step, limit=2)
        newest = names_of(tmp_path)
    assert newest == ["step-10000000", "step-9999999"]
    assert latest_checkpoint(run.accelerator, tmp_path).name == "step-10000000"


def test_later_steps_that_resuming_passed_over_go_with_the_next_save(tmp_path):
    run = Run()
    for step in (10, 20, 30):
        run.save(tmp_path, step)
    (tmp_path / "checkpoints/step-0000030/manifest.json").unlink()
    run.save(tmp_path, 25, limit=1)
    assert names_of(tmp_path) == ["step-0000025"]


def test_step_that_was_saved_already_is_replaced(tmp_path):
    run = Run()
    folder = run.save(tmp_path, 10)
    (folder / "state/optimizer.bin").write_bytes(b"")
    assert run.save(tmp_path, 10) == folder
    assert latest_checkpoint(run.accelerator, tmp_path) == folder
    assert names_of(tmp_path) == ["step-0000010"]


def cut(folder: Path) -> str:
    path = folder / "state/optimizer.bin"
    size = path.stat().st_size
    os.truncate(path, size - 1)
    return f"{path} has {size - 1} bytes instead of {size}"


def flip(folder: Path) -> str:
    path = folder / "state/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return f"the content of {path} has changed"


def lose(folder: Path) -> str:
    (folder / "model/weights.pt").unlink()
    return f"{folder / 'model/weights.pt'}: No such file"


def lose_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return f"{folder / 'manifest.json'}: No such file"


def garble_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text('{"files": {"state')
    return f"{folder / 'manifest.json'} is no manifest"


@pytest.mark.parametrize("damage", [cut, flip, lose, lose_manifest, garble_manifest])
def test_damaged_newest_is_named_and_the_one_before_taken(damage, tmp_path, caplog):
    run = Run()
    older, newer = run.save(tmp_path, 1), run.save(tmp_path, 2)
    assert latest_checkpoint(run.accelerator, tmp_path) == newer
    assert caplog.messages == []
    told = damage(newer)
    assert latest_checkpoint(run.accelerator, tmp_path) == older
    (message,) = caplog.messages
    assert told in message
    damage(older)
    with pytest.raises(ValueError, match="no checkpoint in .* is whole: .*0002/.*0001/"):
        latest_checkpoint(run.accelerator, tmp_path)


def test_run_without_checkpoint_has_none(tmp_path, caplog):
    accelerator = Accelerator(cpu=True)
    assert latest_checkpoint(accelerator, tmp_path / "absent") is None
    (tmp_path / "checkpoints/step-0000001.partial").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(accelerator, tmp_path) is None
    assert "step-0000001.partial was not finished" in caplog.text


def test_full_disk_leaves_the_checkpoint_before(tmp_path):
    """A limit on the size of files stands for the disk's."""
    run = Run().train(1)
    folder = run.save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        told = r"step-0000002 cannot be written \([\d,.]+ MB are free, step-0000001 takes 0.0 MB\)"
        with pytest.raises(OSError, match=told):
            run.save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names_of(tmp_path) == ["step-0000001"]
    assert latest_checkpoint(run.accelerator, tmp_path) == folder


def die_while_saving(run: Run, output: Path) -> None:
    def export(folder: Path) -> None:
        run.export(folder)
        os.kill(os.getpid(), signal.SIGKILL)

    save_checkpoint(run.accelerator, output, 2, export, limit=2)


def test_killed_save_leaves_the_checkpoint_before(tmp_path, caplog, one_thread):
    run = Run()
    folder = run.save(tmp_path, 1)
    process = multiprocessing.get_context("fork").Process(
        target=die_while_saving, args=(run, tmp_path)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert names_of(tmp_path) == ["step-0000001", "step-0000002.partial"]
    assert latest_checkpoint(run.accelerator, tmp_path) == folder
    assert "step-0000002.partial was not finished" in caplog.text
    run.save(tmp_path, 2)
    assert names_of(tmp_path) == ["step-0000001", "step-0000002"]


def test_all_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(checkpoints, "flush", lambda path: flushed.append(Path(path)))
    folder = Run().save(tmp_path, 1)
    whole = [folder, *folder.rglob("*")]
    partial_of = {
        folder.with_name("step-0000001.partial") / path.relative_to(folder) for path in whole
    }
    assert set(flushed[:-1]) == partial_of
    assert flushed[-1] == tmp_path / "checkpoints"


def test_folder_is_replaced_as_a_whole(tmp_path):
    accelerator, folder = Accelerator(cpu=True), tmp_path / "model"
    with written_whole(accelerator, folder) as unfinished:
        (unfinished / "a").write_text("old")
        assert not folder.exists()
    with pytest.raises(OSError, match="model cannot be written .*: nothing there"):
        with written_whole(accelerator, folder) as unfinished:
            raise ValueError("nothing there")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "a"]
    with written_whole(accelerator, folder) as unfinished:
        (unfinished / "b").write_text("new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "model"]


def test_other_number_of_processes_is_refused(tmp_path):
    run = Run()
    folder = run.save(tmp_path, 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"num_processes": 8}))
    with pytest.raises(ValueError, match="run on 8 processes .* with 1: start 8, or .*/model$"):
        load_checkpoint(run.accelerator, folder)


def fail_in_process_1(run: Run, folder: Path) -> None:
    run.export(folder)
    if run.accelerator.process_index == 1:
        raise ValueError("no space")


def train_save_and_resume(output: Path) -> None:
    run = Run()
    rank, accelerator = run.accelerator.process_index, run.accelerator
    torch.manual_seed(rank)  # other random numbers in each process
    run.train(2)
    try:
        save_checkpoint(accelerator, output, 1, partial(fail_in_process_1, run), limit=1)
    except OSError as error:
        failure = str(error)
    # The main process cleans up; the other may be ahead of it.
    left = [path.name for path in output.rglob("*.partial")] if rank == 0 else []
    if rank == 1:
        save_state = accelerator.save_state
        accelerator.save_state = lambda folder: (time.sleep(0.5), save_state(folder))
    folder = run.save(output, 2)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    expected = [*run.train(2).state(), torch.rand(3)]
    resumed = Run(seed=7)
    load_checkpoint(resumed.accelerator, latest_checkpoint(accelerator, output))
    found = [*resumed.train(2).state(), torch.rand(3)]
    told = {
        "failure": failure,
        "left": left,
        "files": [*files],
        "same": all(map(torch.equal, expected, found)),
        "random": expected[-1].tolist(),
    }
    (output / f"{rank}.json").write_text(json.dumps(told))
    accelerator.end_training()
    # Gloo's threads stay after a DistributedDataParallel, and at times abort a process that ends
    # its interpreter beside them.
    os._exit(0)


def test_two_processes_save_resume_and_fail_together(tmp_path):
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
    subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "tests.test_training_checkpoints", str(tmp_path)],
        cwd=Path(__file__).parent.parent,
        check=True,
        timeout=300,
    )
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for each in told:
        assert "step-0000001 cannot be written" in each["failure"]
        assert each["failure"].endswith("no space")
        assert each["same"]
    assert "process 1: no space" in told[0]["failure"]
    assert told[0]["left"] == []
    assert told[0]["random"] != told[1]["random"]
    # The manifest waits for the slower process.
    assert {f"state/random_states_{rank}.pkl" for rank in (0, 1)} < {*told[1]["files"]}


if __name__ == "__main__":
    train_save_and_resume(Path(sys.argv[1]))
