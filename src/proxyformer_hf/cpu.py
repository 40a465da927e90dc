# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What makes a process fast on a CPU: how it gets its memory, in what it computes."""

import ctypes
import sys

import torch

KEPT = 2**30  # bytes of freed memory
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # options of glibc's mallopt


def keep_freed_memory() -> None:
    """Has glibc, from now on, keep up to 1 GiB of freed memory for what the process asks for next.

    By itself it hands the maps of a clip back to the system after each layer, and the system zeroes
    every page that it hands out again: on two cores the packaged checkpoint's layers then take 1.5
    times as long. Other systems and C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 (AVX512_BF16, AMX). Others emulate it, slower
    than float32. False with a torch that cannot tell (before `torch.cpu.get_capabilities`)."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
