# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Pushing, with the client's calls to the Hub patched: nothing leaves the machine."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
import typer
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from transformers import RobertaConfig, RobertaModel, pipeline
from typer.testing import CliRunner

from proxyformer_hf.hub import HubError, check_access, push
from proxyformer_hf.model_card import write_model_card
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.modeling_video_swin import VideoSwinBackbone
from proxyformer_hf.pipeline_referring_video_segmentation import DEFAULT_CHECKPOINT
from proxyformer_hf.training.recipe import load_recipe
from tests.tiny_model import TINY_TEXT, save_noise_clip, save_tiny_checkpoint, tiny_swin

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.append(str(SCRIPTS))
import push_to_hub  # noqa: E402


class Hub:
    """What a patched client was asked to do."""

    def __init__(self, monkeypatch):
        self.files: dict[str, bytes] = {}
        self.commits, self.created, self.error = 0, [], None
        for name in ("whoami", "create_repo", "create_commit", "list_repo_files"):
            monkeypatch.setattr(HfApi, name, getattr(self, name))

    def whoami(self) -> dict:
        if self.error is not None:
            raise self.error
        return {"name": "me"}

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> SimpleNamespace:
        assert exist_ok
        self.created.append((repo_id, private))
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def list_repo_files(self, repo_id: str) -> list[str]:
        return [*self.files]

    def create_commit(self, repo_id: str, operations: list, commit_message: str) -> SimpleNamespace:
        self.commits += 1
        for operation in operations:
            if isinstance(operation, CommitOperationDelete):
                del self.files[operation.path_in_repo]
        for operation in operations:
            if isinstance(operation, CommitOperationAdd):
                with operation.as_file() as file:
                    self.files[operation.path_in_repo] = file.read()
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/0")

    def download(self, folder: Path) -> Path:
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder


@pytest.fixture
def hub(monkeypatch) -> Hub:
    return Hub(monkeypatch)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_tiny_checkpoint(folder)
    write_model_card(folder, "me/tiny", load_recipe(SCRIPTS / "recipes/ref_youtube_vos.yaml"))
    return folder


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def test_what_is_pushed_loads_and_answers_as_the_folder_does(hub, folder, tmp_path):
    (folder / "optimizer.pt").write_bytes(b"not for the Hub")
    (folder / "state").mkdir()
    (folder / "state/notes.json").write_text("{}")
    url = push(folder, "me/tiny")
    assert url == f"{HfApi().endpoint}/me/tiny"
    assert hub.created == [("me/tiny", False)] and hub.commits == 1
    assert sorted(hub.files) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "recipe.yaml",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    save_noise_clip(tmp_path / "clip.mp4", fps=5)
    results = [
        pipeline("referring-video-segmentation", model=str(path))(str(tmp_path / "clip.mp4"), "a")
        for path in (folder, hub.download(tmp_path / "downloaded"))
    ]
    assert results[0]["score"] == results[1]["score"]
    assert (results[0]["masks"] == results[1]["masks"]).all()


def test_second_push_leaves_no_shard_of_the_first(hub, folder):
    hub.files = {"model-00001-of-00002.safetensors": b"", ".gitattributes": b"", "demo.gif": b""}
    hub.files |= {"model.safetensors.index.json": b"{}", "README.md": b"old"}
    assert push(folder, "tiny", private=True).endswith("/me/tiny")
    assert hub.created == [("tiny", True)]
    assert {".gitattributes", "demo.gif", "model.safetensors"} <= {*hub.files}
    assert not {"model-00001-of-00002.safetensors", "model.safetensors.index.json"} & {*hub.files}
    assert hub.files["README.md"] == (folder / "README.md").read_bytes()


def test_packaged_checkpoint_is_fit_to_push(hub):
    push(DEFAULT_CHECKPOINT, "me/proxyformer-lite")
    weights = {"model-text.safetensors", "model-trained.safetensors"}
    assert {*hub.files} >= weights | {"model.safetensors.index.json", "README.md"}


def test_model_on_backbones_of_local_folders_is_fit_to_push(hub, folder, tmp_path):
    text, vision = tmp_path / "small-roberta", tmp_path / "small-swin"
    RobertaModel(RobertaConfig(**TINY_TEXT)).save_pretrained(text)
    VideoSwinBackbone(tiny_swin()).save_pretrained(vision)
    model = ProxyFormerForReferringSegmentation.from_backbones(
        str(vision), str(text), hidden_size=16, num_attention_heads=2, num_hidden_layers=1
    )
    model.save_pretrained(folder)
    card = write_model_card(folder, "me/tiny").read_text()
    push(folder, "me/tiny")
    assert str(tmp_path) not in hub.files["config.json"].decode()
    assert "| words | small-roberta |" in card


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def truncate_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def drop_a_weight(folder: Path) -> None:
    model = ProxyFormerForReferringSegmentation.from_pretrained(folder)
    weights = model.state_dict()
    del weights["class_head.bias"]
    model.save_pretrained(folder, state_dict=weights)


def name_a_path(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["_name_or_path"] = "/home/me/models/roberta"
    (folder / "config.json").write_text(json.dumps(config))


FAULTS = {
    r"lacks config\.json": lambda folder: (folder / "config.json").unlink(),
    r"lacks processor_config\.json": lambda folder: (folder / "processor_config.json").unlink(),
    r"lacks README\.md": lambda folder: (folder / "README.md").unlink(),
    r"lacks weights": lambda folder: (folder / "model.safetensors").unlink(),
    r"does not load": truncate_weights,
    r"does not load: .*": lambda folder: (folder / "tokenizer.json").write_text("{"),
    r"lacks 1 weights, such as class_head\.bias": drop_a_weight,
    r"config\.json tells a path of this machine.*: /home/me/models/roberta": name_a_path,
    r"README\.md tells a path of this machine.*: /tmp/x/clip\.mp4": lambda folder: edit(
        folder / "README.md", '"swan.mp4"', '"/tmp/x/clip.mp4"'
    ),
    r"README\.md tells a path of this machine.*C:": lambda folder: edit(
        folder / "README.md", '"swan.mp4"', '"C:\\data\\clip.mp4"'
    ),
    r"README\.md names no `license`": lambda folder: edit(
        folder / "README.md", "license: cc-by-nc-4.0\n", ""
    ),
    r"README\.md: its metadata are malformed": lambda folder: edit(
        folder / "README.md", "license: ", "license: ["
    ),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_faulty_folder_is_refused_before_the_hub_is_asked(hub, folder, message):
    FAULTS[message](folder)
    with pytest.raises(ValueError, match=message):
        push(folder, "me/tiny")
    assert hub.created == [] and hub.commits == 0


def test_a_missing_folder_is_refused(hub, tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        push(tmp_path / "nothing", "me/tiny")
    assert hub.created == []


@pytest.mark.parametrize("repo_id", ["me/a/b", "me/what is this", "me/x..y", ""])
def test_impossible_names_are_refused(hub, folder, repo_id):
    with pytest.raises(ValueError, match="is no name for a model on the Hub"):
        push(folder, repo_id)
    assert hub.created == [] and hub.commits == 0


def http_error(status: int) -> HfHubHTTPError:
    request = httpx2.Request("GET", "https://huggingface.co")
    return HfHubHTTPError("refused", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        (http_error(401), "the token is not valid: run `hf auth login`"),
        (http_error(500), "the Hub answered: refused"),
        (httpx2.ConnectError("no route"), "ConnectError: no route"),
    ],
)
def test_a_hub_out_of_reach_is_one_clear_error(hub, folder, error, message):
    hub.error = error
    for ask in (lambda: push(folder, "me/tiny"), lambda: check_access("me/tiny")):
        with pytest.raises(HubError, match=f"me/tiny was not pushed: {message}"):
            ask()
    assert hub.created == [] and hub.commits == 0


def test_a_missing_token_is_one_clear_error(monkeypatch, folder):
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: None)
    with pytest.raises(HubError, match="there is no token: run `hf auth login`, or set HF_TOKEN"):
        push(folder, "me/tiny")


def test_a_refused_repository_or_commit_is_an_error_too(hub, folder, monkeypatch):
    def refuse(*_, **__):
        raise http_error(403)

    monkeypatch.setattr(HfApi, "create_commit", refuse)
    with pytest.raises(HubError, match="the Hub answered"):
        push(folder, "other/tiny")
    assert hub.files == {}


def test_access_is_checked_without_a_trace(hub):
    check_access("me/tiny")
    assert hub.created == [] and hub.commits == 0


def run_script(*arguments: str):
    app = typer.Typer()
    app.command()(push_to_hub.main)
    return CliRunner().invoke(app, arguments)


def test_script_pushes_and_tells_the_address(hub, folder):
    result = run_script(str(folder), "me/tiny", "--private")
    assert result.exit_code == 0 and result.output.strip().endswith("/me/tiny")
    assert hub.created == [("me/tiny", True)]


def test_script_ends_with_one_line_on_bad_input(hub, folder):
    (folder / "scores.json").write_text("{}")
    result = run_script(str(folder), "me/tiny", "--scores", str(folder / "scores.json"))
    assert result.exit_code == 2 and hub.commits == 0
    assert result.output.startswith("error: ") and "holds no scores" in result.output
    assert result.output.count("\n") == 1
