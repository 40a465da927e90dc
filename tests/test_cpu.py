# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from proxyformer_hf.cpu import multiplies_bfloat16

CPU_INFO = Path("/proc/cpuinfo")

COUNT_FAULTS = """
import resource, sys, torch
if sys.argv[1] == "keep":
    from proxyformer_hf.cpu import keep_freed_memory
    keep_freed_memory()
torch.set_num_threads(1)
for _ in range(3):
    torch.zeros(2**24)  # the first ones grow the heap
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(2**24)  # 64 MiB, freed at once: 16,384 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: str) -> int:
    run = [sys.executable, "-c", COUNT_FAULTS, keep]
    return int(subprocess.run(run, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told so")
def test_memory_that_was_freed_is_not_asked_of_the_system_again():
    assert page_faults("keep") < 100 < page_faults("leave")


@pytest.mark.skipif(platform.machine() != "x86_64" or not CPU_INFO.exists(), reason="Linux, x86")
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="an older torch cannot tell")
def test_the_kernel_knows_the_bfloat16_instructions_too():
    flags = CPU_INFO.read_text().split()
    assert multiplies_bfloat16() == ("avx512_bf16" in flags or "amx_bf16" in flags)
