# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What the README shows is so: its Python runs and prints what it says, its commands exist."""

import re
from pathlib import Path

import pytest
from transformers.pipelines import PIPELINE_REGISTRY
from typer.testing import CliRunner

from proxyformer_hf.cli import app
from proxyformer_hf.pipeline_referring_video_segmentation import DEFAULT_CHECKPOINT, TASK
from tests.tiny_model import save_tiny_checkpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", README, re.DOTALL)


@pytest.mark.parametrize(("code", "printed"), [snippet for snippet in SNIPPETS if snippet[1]])
def test_python_prints_what_the_readme_says(code, printed, tmp_path, monkeypatch, capsys):
    save_tiny_checkpoint(tmp_path)
    default = PIPELINE_REGISTRY.supported_tasks[TASK]["default"]
    monkeypatch.setitem(default, "model", (str(tmp_path), None))
    packaged = str(DEFAULT_CHECKPOINT.relative_to(ROOT))
    monkeypatch.chdir(ROOT)
    capsys.readouterr()
    exec(code.replace(packaged, str(tmp_path)), {})
    assert capsys.readouterr().out == printed


def test_both_ways_to_the_packaged_model_are_run():
    runnable = [code for code, printed in SNIPPETS if printed]
    assert len(runnable) == 3
    assert str(DEFAULT_CHECKPOINT.relative_to(ROOT)) in runnable[1]


@pytest.mark.parametrize("code", [code for code, _ in SNIPPETS])
def test_imported_names_exist(code):
    imports = [line for line in code.splitlines() if re.match(r"from .* import|import ", line)]
    exec("\n".join(imports), {})


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, re.MULTILINE))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", sorted(set(re.findall(r"scripts/\w+\.\w+", README))))
def test_scripts_exist(script):
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("command", re.findall(r"^proxyformer ([\w-]+ .*)", README, re.MULTILINE))
def test_commands_and_their_options_exist(command):
    name, *words = command.split()
    help_text = CliRunner().invoke(app, [name, "--help"], terminal_width=200).stdout
    options = {word for word in words if word.startswith("--")}
    assert "Usage:" in help_text and options <= set(re.findall(r"--[a-z-]+", help_text))


def test_options_of_segment_exist():
    paragraph = re.search(r"On the command line:.*?In Python:", README, re.DOTALL).group()
    options = set(re.findall(r"--[a-z-]+", paragraph))
    assert {"--output", "--masks", "--stride"} <= options
    help_text = CliRunner().invoke(app, ["segment", "--help"], terminal_width=200).stdout
    assert options <= set(re.findall(r"--[a-z-]+", help_text))
