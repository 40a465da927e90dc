# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The push of a trained model to the Hub: checked first, then in one commit."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

from .model_card import CARD, RECIPE
from .modeling_proxyformer import ProxyFormerForReferringSegmentation
from .processing_proxyformer import ProxyFormerProcessor

UPLOADED = ("*.safetensors", "*.json", "*.txt", RECIPE, CARD)
TEXTS = ("config.json", "processor_config.json", "tokenizer_config.json", RECIPE, CARD)
# Two or more steps from the root, and no address; or a drive.
MACHINE_PATH = re.compile(r"(?<![\w./:<-])(?:/[\w.+~-]+){2,}|\b[A-Za-z]:\\[\w.\\-]+")


class HubError(OSError):
    """The Hub did not take a push; nothing was uploaded."""


def check_access(repo_id: str) -> None:
    """Asks the Hub, before a long training, whether there is a token to push `repo_id` with.

    Raises:
        ValueError: the Hub does not allow such a name.
        HubError: there is no token, or no Hub.
    """
    with hub_errors(repo_id):
        validate_repo_id(repo_id)
        HfApi().whoami()


def push(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Upload a trained model in one commit, in place of one that was pushed before.

    Args:
        folder: with weights, configuration, processor and model card.
        repo_id: owner/name, or a name of the token's owner.
        private: of a repository that does not exist yet.

    Returns:
        The address of the model.

    Raises:
        ValueError: the folder is not whole, does not load, or tells a path of this machine; the
            Hub does not allow such a name.
        HubError: there is no token, no right or no network. Nothing was uploaded, though a new
            repository may stand empty.
    """
    folder = Path(folder)
    check_folder(folder)
    check_access(repo_id)
    api = HfApi()
    files = {path.name: path for pattern in UPLOADED for path in sorted(folder.glob(pattern))}
    with hub_errors(repo_id):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        stale = [
            name
            for name in api.list_repo_files(repo_id)
            if fnmatch(name, "*.safetensors*") and name not in files
        ]
        # upload_folder may make several commits of a folder; this is one.
        api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(name, path) for name, path in files.items()),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message="Upload ProxyFormer",
        )
    return f"{api.endpoint}/{repo_id}"


def check_folder(folder: Path) -> None:
    """Raises `ValueError` unless the folder holds a model that loads, and a card fit to publish."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    needed = ("config.json", "processor_config.json", CARD)
    absent = [name for name in needed if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        absent.append("weights (*.safetensors)")
    if absent:
        raise ValueError(f"{folder} lacks {', '.join(absent)}: give the model/ of a training")
    try:
        licence = ModelCard.load(folder / CARD).data.license
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{folder / CARD}: its metadata are malformed: {error}") from None
    if licence is None:
        raise ValueError(f"{folder / CARD} names no `license` in its metadata")
    for path in (folder / name for name in TEXTS):
        found = path.is_file() and MACHINE_PATH.search(path.read_text(encoding="utf-8"))
        if found:
            raise ValueError(f"{path} tells a path of this machine, take it out: {found[0]}")
    try:
        _, info = ProxyFormerForReferringSegmentation.from_pretrained(
            folder, output_loading_info=True
        )
        ProxyFormerProcessor.from_pretrained(folder)
    except Exception as error:  # damaged files raise almost anything
        raise ValueError(f"{folder} does not load: {error}") from error
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise ValueError(f"{folder} lacks {len(names)} weights, such as {names[0]}")


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """The client's errors as ours, which say what to do."""
    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name for a model on the Hub: {error}") from None
    except LocalTokenNotFoundError:
        problem = "there is no token: run `hf auth login`, or set HF_TOKEN"
    except OfflineModeIsEnabled:
        problem = "HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:
        problem = "the token is not valid: run `hf auth login`"
        if error.response.status_code != 401:
            problem = f"the Hub answered: {error}"
    except Exception as error:  # of the network: each library below the client has its own
        problem = f"{type(error).__name__}: {error}"
    else:
        return
    raise HubError(f"{repo_id} was not pushed: {problem}")
