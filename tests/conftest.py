# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Makes transformers' own test mixins importable, and shares the cores between test processes.

scripts/fetch_transformers_tests.sh lays out transformers' common tests in .transformers_tests/.
Their package is called `tests`, as pytest calls this folder: here the two become one package. A
module that runs mixins uses them so, and is skipped as a whole where they are absent:

    from tests.conftest import MIXINS_ABSENT

    common = pytest.importorskip("tests.test_modeling_common", reason=MIXINS_ABSENT)

    class VideoSwinCommonTest(common.ModelTesterMixin, unittest.TestCase): ...
"""

import os
import sys
from pathlib import Path

import pytest
import torch

MIXINS_ABSENT = "transformers' test mixins are absent: run scripts/fetch_transformers_tests.sh"

_TESTS = Path(__file__).parent
_TREE = _TESTS.parent / ".transformers_tests"

sys.modules["tests"].__path__ = [str(_TESTS), str(_TREE / "tests")]
sys.path.append(str(_TREE / "utils"))

torch.set_num_threads(
    max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
)


def pytest_configure(config: pytest.Config):
    # Marks that the mixins carry; this repository runs pytest with strict markers.
    flash = ("flash_attn_test", "flash_attn_3_test", "flash_attn_4_test")
    for marker in ("accelerate_tests", "slow", "torch_compile_test", *flash):
        config.addinivalue_line("markers", f"{marker}: from transformers' test mixins")


@pytest.fixture
def one_thread(monkeypatch):
    """A forked process must not use the threads that its parent had; and the number of threads
    decides how sums are rounded, so that all runs are to have the same."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # or else accelerate sets the number
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
