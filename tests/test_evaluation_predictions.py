# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from proxyformer_hf.evaluation.predictions import (
    IndexPart,
    claim_folder,
    decode_mask,
    encode_mask,
    merge_index,
    read_ids,
    read_index,
    write_submission,
)


def entry(video: str, expression: str, score: float = 0.5) -> dict:
    return {"video_id": video, "expression_id": expression, "score": score}


def test_parts_become_one_index_in_the_order_of_the_data(tmp_path):
    IndexPart(tmp_path, 1).append([entry("b", "0"), entry("b", "1")])
    first = IndexPart(tmp_path, 0)
    first.append([entry("c", "0")])
    first.append([entry("a", "0")])
    keys = [("a", "0"), ("b", "0"), ("b", "1"), ("c", "0")]
    merge_index(tmp_path, keys)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [entry(*key) for key in keys]
    assert list(read_index(tmp_path)) == keys


def test_unfinished_line_is_forgotten_and_cut_off_before_the_next(tmp_path):
    IndexPart(tmp_path, 0).append([entry("a", "0")])
    part = tmp_path / "predictions-0.jsonl"
    part.write_text(part.read_text() + '{"video_id": "b", "expression_id": "0"}')  # but for "\n"
    assert list(read_index(tmp_path)) == [("a", "0")]
    IndexPart(tmp_path, 0).append([entry("c", "0")])
    assert list(read_index(tmp_path)) == [("a", "0"), ("c", "0")]


def test_part_of_one_unfinished_line_is_emptied(tmp_path):
    (tmp_path / "predictions-0.jsonl").write_text('{"video')
    IndexPart(tmp_path, 0).append([entry("a", "0")])
    assert list(read_index(tmp_path)) == [("a", "0")]


def test_index_of_another_system_may_lack_its_last_line_end(tmp_path):
    (tmp_path / "predictions.jsonl").write_text(json.dumps(entry("a", "0")))
    assert list(read_index(tmp_path)) == [("a", "0")]


@pytest.mark.parametrize("line", ['{"video_id": "a"', '{"video_id": "a"}', "[1]", "7"])
def test_bad_line_is_named(line, tmp_path):
    (tmp_path / "predictions.jsonl").write_text(f"{json.dumps(entry('a', '0'))}\n{line}\n")
    with pytest.raises(ValueError, match="line 2 of .*predictions.jsonl is no prediction"):
        read_index(tmp_path)


def test_folder_is_claimed_once_and_for_one_run(tmp_path):
    root = tmp_path / "new" / "folder"
    claim_folder(root, {"window": 36, "model": "a"})
    claim_folder(root, {"window": 36, "model": "a"})
    with pytest.raises(ValueError, match=r"Changed: model from a to b, window from 36 to 5$"):
        claim_folder(root, {"window": 5, "model": "b"})


def test_folder_of_something_else_is_not_claimed(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is not empty and holds no settings.json"):
        claim_folder(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_pixel_values_are_read_as_they_stand(tmp_path):
    ids = np.array([[0, 1], [7, 255]], np.uint8)
    image = Image.fromarray(ids)
    image.save(tmp_path / "grey.png")
    image.putpalette(range(255, -1, -1), "RGB")  # colours that tell nothing
    image.save(tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        found = read_ids(tmp_path / name)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, ids)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "mask.png").write_text("no image")
    with pytest.raises(ValueError, match="mask.png cannot be read as an image"):
        read_ids(tmp_path / "mask.png")


def test_run_length_codes_are_json_and_come_back():
    mask = np.random.default_rng(0).random((5, 7)) < 0.5
    code = json.loads(json.dumps(encode_mask(mask)))
    assert code["size"] == [5, 7]
    np.testing.assert_array_equal(decode_mask(code), mask)


@pytest.mark.parametrize("top", ["Annotations", ""])
def test_zip_is_the_same_whenever_it_is_written(top, tmp_path):
    row = {"video_id": "v", "expression_id": "0", "frames": ["00005.jpg"], "num_frames": 1}
    (tmp_path / "Annotations/v/0").mkdir(parents=True)
    (tmp_path / "Annotations/v/0/00005.png").write_bytes(b"mask")
    path = write_submission(tmp_path, [row], top)
    first = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{top}/v/0/00005.png".lstrip("/")]
    (tmp_path / "Annotations/v/0/00005.png").touch()
    assert write_submission(tmp_path, [row], top).read_bytes() == first
