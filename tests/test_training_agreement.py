# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import os
import signal
import subprocess
from multiprocessing import active_children
from pathlib import Path

import pytest
from accelerate import Accelerator, PartialState
from accelerate.launchers import debug_launcher
from torch.utils.data import DataLoader

from proxyformer_hf.training.agreement import (
    STOP_SIGNALS,
    StopSignal,
    ignore_stop_signals,
    raised_together,
)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_is_noted_and_the_old_handlers_return(number):
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    accelerator = Accelerator(cpu=True)
    with StopSignal() as stop:
        assert not stop.requested(accelerator)
        os.kill(os.getpid(), number)
        assert stop.requested(accelerator)
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_outlive_the_signals_that_their_job_gets():
    loader = DataLoader(range(60), num_workers=2, worker_init_fn=ignore_stop_signals)
    batches = iter(loader)
    seen = [next(batches).item() for _ in range(2)]  # both workers are at work
    workers = active_children()
    assert len(workers) == 2
    with StopSignal() as stop:
        for number in STOP_SIGNALS:
            pids = [os.getpid(), *(worker.pid for worker in workers)]
            subprocess.run(["kill", f"-{number}", *map(str, pids)], check=True)
        seen += [batch.item() for batch in batches]
    assert stop.received and seen == list(range(60))


def test_worker_ends_when_its_parent_says():
    loader = DataLoader(range(60), num_workers=1, worker_init_fn=ignore_stop_signals)
    batches = iter(loader)
    next(batches)
    (worker,) = active_children()
    worker.terminate()
    worker.join(timeout=60)
    assert worker.exitcode == 0


def test_own_error_is_raised_as_it_is():
    with pytest.raises(ValueError, match="^mine$"), raised_together(Accelerator(cpu=True)):
        raise ValueError("mine")


def agree(folder: Path) -> None:
    """Only process 1 gets a signal, after step 2, and only it has an error."""
    PartialState._reset_state()
    accelerator = Accelerator(cpu=True)
    rank, stopped = accelerator.process_index, None
    with StopSignal() as stop:
        for step in range(1, 5):
            if (rank, step) == (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)
            if stop.requested(accelerator):
                stopped = step
                break
    try:
        with raised_together(accelerator):
            if rank == 1:
                raise ValueError("no space")
        error = None
    except (ValueError, RuntimeError) as caught:
        error = [type(caught).__name__, str(caught)]
    with raised_together(accelerator):
        told = {"stopped": stopped, "error": error}
        (folder / f"{rank}.json").write_text(json.dumps(told))


def test_processes_stop_and_fail_together(tmp_path, one_thread):
    debug_launcher(agree, (tmp_path,), num_processes=2)
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [each["stopped"] for each in told] == [2, 2]
    assert told[0]["error"] == ["RuntimeError", "process 1: no space"]
    assert told[1]["error"] == ["ValueError", "no space"]
