# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import pytest
import typer

from proxyformer_hf.data.sources import load_videos
from tests.toy_data import make_data_folder

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "scripts"))
import add_videos as script  # noqa: E402


def make_ponies(folder: Path, **changes) -> Path:
    """A folder of one video, "pony"; `changes` are made to its entry."""
    root = make_data_folder(folder).rename(folder.with_name("unused")) / "davis16_train_240p"
    root = root.rename(folder)
    file = root / "meta_expressions.json"
    video = json.loads(file.read_text())["videos"]["boat"] | {"content": [["horse"], ["person"]]}
    file.write_text(json.dumps({"videos": {"pony": video | changes}}))
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "boat").rename(root / kind / "pony")
    return root


def test_the_new_folder_holds_the_old_videos_and_the_new_ones(tmp_path: Path):
    source, ponies = make_data_folder(tmp_path / "data"), make_ponies(tmp_path / "ponies")
    script.main(source, tmp_path / "new", [ponies])
    before, after = load_videos(source, ["boat"]), load_videos(tmp_path / "new", ["boat", "pony"])
    assert after[1].targets == {"horse"} and after[1].shown == {"horse", "person"}
    assert after[0].expressions == after[1].expressions == before[0].expressions
    for video in after:  # of one make
        for ours, theirs in zip(video.frame(5), before[0].frame(5), strict=True):
            assert (ours == theirs).all()


def test_a_folder_can_be_added_to_again(tmp_path: Path):
    source, ponies = make_data_folder(tmp_path / "data"), make_ponies(tmp_path / "ponies")
    script.main(source, tmp_path / "once", [ponies])
    with pytest.raises(typer.BadParameter, match="there is a video pony already"):
        script.main(tmp_path / "once", tmp_path / "twice", [ponies])
    meta = json.loads((ponies / "meta_expressions.json").read_text())
    meta["videos"]["foal"] = meta["videos"].pop("pony")
    (ponies / "meta_expressions.json").write_text(json.dumps(meta))
    for kind in ("JPEGImages", "Annotations"):
        (ponies / kind / "foal").symlink_to(ponies / kind / "pony")
    script.main(tmp_path / "once", tmp_path / "twice", [ponies])
    assert load_videos(tmp_path / "twice", ["pony", "foal", "bus"])[0].frame(0)[1].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content": None}, "TypeError"),
        ({"content": [[], ["person"]]}, 'pony: "content" does not say what the object is'),
        ({"expressions": {"0": {"exp": "a pony"}}}, "pony has no expression 1, 2, 3, 4"),
        ({"frames": ["00000", "00099"]}, "pony has no JPEGImages/pony/00099.jpg"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_written(tmp_path: Path, changes, message: str):
    source, ponies = make_data_folder(tmp_path / "data"), make_ponies(tmp_path / "p", **changes)
    with pytest.raises(typer.BadParameter, match=message):
        script.main(source, tmp_path / "new", [ponies])
    assert not (tmp_path / "new").exists()


def test_a_folder_without_expressions_is_named(tmp_path: Path):
    source = make_data_folder(tmp_path / "data")
    with pytest.raises(typer.BadParameter, match="data is not a folder of videos: FileNotFound"):
        script.main(source, tmp_path / "new", [source])
