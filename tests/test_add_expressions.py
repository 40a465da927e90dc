# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import pytest
import typer

from proxyformer_hf.data.sources import DEV_IMAGES, DEV_VIDEOS, load_images, load_videos
from tests.toy_data import make_data_folder

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "scripts"))
import add_expressions as script  # noqa: E402

EXPRESSIONS = REPOSITORY / "scripts/expressions.json"
SHARED_DATA = REPOSITORY.parent / "shared/data"


def in_fractions(x1, y1, x2, y2) -> list[float]:
    """Of the landscape images of the toy data."""
    return [x1 / 96, y1 / 72, x2 / 96, y2 / 72]


def write(path: Path, *objects, **videos) -> Path:
    keys = ("image", "category", "box", "expressions")
    objects = [dict(zip(keys, each, strict=True)) for each in objects]
    path.write_text(json.dumps({"objects": objects, "videos": videos}))
    return path


def written(folder: Path) -> set[tuple[int, str, float, str]]:
    """Image, category, left side and text of each."""
    return {
        (image.image_id, instance.category, instance.polygons[0][0, 0], text)
        for image in load_images(folder)
        for instance in image.instances
        for text in instance.written
    }


def test_expressions_go_to_the_object_with_their_box(tmp_path: Path, capsys):
    source = make_data_folder(tmp_path / "data")
    file = write(
        tmp_path / "more.json",
        ("9002.png", "dog", in_fractions(11, 10, 40, 50), ["the red dog", "a dog"]),  # a column off
        ("9002.png", "cat", in_fractions(10, 10, 40, 50), ["the dog's box"]),
        ("9001.png", "dog", in_fractions(60, 30, 92, 60), ["the dog on the right"]),
        ("9009.png", "dog", in_fractions(60, 30, 92, 60), ["of an image that is not there"]),
    )
    script.main(source, tmp_path / "new", file)

    assert written(tmp_path / "new") - written(source) == {
        (9002, "dog", 10, "the red dog"),
        (9002, "dog", 10, "a dog"),
        (9001, "dog", 60, "the dog on the right"),
    }
    assert "2 of 4 objects and videos are in" in capsys.readouterr().out


def test_expressions_of_videos_come_after_those_they_have(tmp_path: Path):
    source = make_data_folder(tmp_path / "data")
    file = write(
        tmp_path / "more.json", bus=["the blue coach", "a bus that turns"], tram=["a tram"]
    )
    script.main(source, tmp_path / "new", file)
    (before,), (after,) = load_videos(source, ["bus"]), load_videos(tmp_path / "new", ["bus"])
    more = {5: "the blue coach", 6: "a bus that turns"}
    assert after.expressions == before.expressions | more
    assert (after.frame(3)[0] == before.frame(3)[0]).all()


@pytest.mark.parametrize(
    "text", ["{", "3", '{"objects": [3], "videos": {}}', '[{"image": "9001.png"}]', '["the dog"]']
)
def test_what_holds_no_expressions_is_named_and_nothing_is_written(tmp_path: Path, text: str):
    source, file = make_data_folder(tmp_path / "data"), tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(typer.BadParameter, match="broken.json is not a file of expressions"):
        script.main(source, tmp_path / "new", file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.json", "data"]


def test_the_written_expressions_are_clean_and_of_nothing_for_development():
    file = json.loads(EXPRESSIONS.read_text())
    lists = [*(entry["expressions"] for entry in file["objects"]), *file["videos"].values()]
    assert len(lists) > 1000 and all(lists)
    for text in (text for texts in lists for text in texts):
        assert text == " ".join(text.lower().split()) and text.isascii()
    assert all(0 <= side <= 1 for entry in file["objects"] for side in entry["box"])
    development = {f"{image_id:012d}.jpg" for image_id in DEV_IMAGES}
    assert not development & {entry["image"] for entry in file["objects"]}
    assert not set(DEV_VIDEOS) & set(file["videos"])


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the data beside the project")
def test_what_is_written_about_the_shared_data_finds_its_object(tmp_path: Path):
    file = json.loads(EXPRESSIONS.read_text())
    coco = json.loads((SHARED_DATA / "coco_small/instances.json").read_text())
    known = {image["file_name"] for image in coco["images"]}
    objects = [entry for entry in file["objects"] if entry["image"] in known]
    with script.extended(SHARED_DATA, tmp_path / "new") as data:
        before = len(data.written)
        assert script.add_expressions(data, file | {"objects": objects}) == 0
        assert (
            len(data.written) - before == sum(len(each["expressions"]) for each in objects) > 1000
        )
