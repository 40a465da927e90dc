# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What the processes of a run do together or not at all: to fail, and to stop at a signal."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

# Schedulers send SIGTERM shortly before they kill a job, and on request SIGUSR1 some time earlier
# (Slurm: --signal=USR1@120).
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def raised_together(accelerator: Accelerator) -> Iterator[None]:
    """An error that one process raises within is raised in all of them, so that none waits for
    another in vain. Every process enters and leaves; it is a barrier.

    Raises:
        RuntimeError: in the processes without an error of their own; it quotes the first one.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    own = None if error is None else f"process {accelerator.process_index}: {error}"
    failures = [failure for failure in gather_object([own]) if failure is not None]
    if error is not None:
        raise error
    if failures:
        raise RuntimeError(failures[0])


class StopSignal:
    """Within this context SIGTERM and SIGUSR1 are noted, for the loop to save and stop.

    Use it in the main thread. The old handlers return at the end.
    """

    def __init__(self):
        self.received = False

    def __enter__(self) -> "StopSignal":
        self._handlers = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def requested(self, accelerator: Accelerator) -> bool:
        """Whether any process was told to stop. All of them ask after each step, and get the same
        answer: they save the same step."""
        if accelerator.num_processes == 1:
            return self.received
        received = torch.tensor(int(self.received), device=accelerator.device)
        return bool(accelerator.reduce(received, "sum"))


def ignore_stop_signals(worker_id: int) -> None:
    """`worker_init_fn` of a DataLoader: schedulers signal all processes of a job, and its workers
    are needed until the step is done. Only their parent may terminate them.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # Blocked here and in the threads to come, SIGTERM waits for the one that can tell its sender.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
