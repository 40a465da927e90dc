# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Write a benchmark in miniature: the files, names and oddities of the official download, with
moving shapes for pixels."""

import csv
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import scipy.io
import typer
from PIL import Image
from pycocotools import mask as rle
from scipy.spatial import ConvexHull

from proxyformer_hf.data.shape_expressions import Sight, Speaker
from proxyformer_hf.data.shape_scenes import SHAPES, draw_scene
from proxyformer_hf.masks import save_mask
from proxyformer_hf.video_io import VideoWriter

HEIGHT, WIDTH = 64, 96
VOID = 255  # pixels that DAVIS leaves out of the score


@dataclass
class Clip:
    """A video with three labelled objects: 1 and 3 are seen throughout, 2 enters after the first
    frame.

    Attributes:
        frames: uint8 RGB `(T, height, width, 3)`.
        object_map: uint8 `(T, height, width)` of 0 and the ids 1, 2 and 3.
        categories: id -> shape.
        texts: id -> four expressions that mean the object alone; some may be the same.
    """

    frames: np.ndarray
    object_map: np.ndarray
    categories: dict[int, str]
    texts: dict[int, list[str]]


def draw_clip(
    rng: np.random.Generator, num_frames: int, height: int = HEIGHT, width: int = WIDTH
) -> Clip:
    indices = range(num_frames)
    while True:
        scene = draw_scene([int(rng.integers(2**32))], height, width, num_frames)
        motions = [o.motion for o in scene.objects] if scene else []
        present = [i for i, motion in enumerate(motions) if motion not in ("enter", "leave")]
        if "enter" not in motions or len(present) < 2:
            continue
        silhouettes = scene.silhouettes(indices)
        sight = Sight(scene, silhouettes, scene.object_map(silhouettes))
        speaker, texts = Speaker(sight), {}
        labelled = {1: present[0], 2: motions.index("enter"), 3: present[1]}
        for i, k in labelled.items():
            found = [speaker.express(k, kind, rng) for kind in speaker.facts]
            texts[i] = ([text for text in found if text] * 4)[:4]
        if sight.is_clear() and all(texts.values()):
            object_map = sum(i * (sight.object_map == k + 1) for i, k in labelled.items())
            categories = {i: scene.objects[k].shape for i, k in labelled.items()}
            return Clip(scene.render(indices), object_map.astype(np.uint8), categories, texts)


def write_frames(folder: Path, names: list[str], frames: np.ndarray, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder / f"{name}{suffix}")


def write_maps(folder: Path, names: list[str], object_map: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in zip(names, object_map, strict=True):
        save_mask(folder / f"{name}.png", ids)


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding)


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    write_text(path, json.dumps(content, indent=indent))


def write_csv(path: Path, rows: list[tuple], lineterminator="\n", encoding="utf-8") -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=lineterminator).writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue().encode(encoding))


def encode(mask: np.ndarray) -> dict:
    """COCO run-length code of a mask (height, width), as it stands in json files."""
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": code["size"], "counts": code["counts"].decode("ascii")}


YTVOS_VIDEOS = {
    "train": ("003234408d", "0043f083b5", "01c88b5b60"),
    "valid": ("0062f687f1", "00f88c4f0a", "0390fabe58"),
    "test": ("00917dcfc4", "01c76f0a82"),
}
# Names step by 5 with gaps of 10 and 20, and may start above 0.
YTVOS_FRAMES = ((0, 5, 10, 15, 20, 25, 30, 35), (20, 25, 30, 40, 45, 65, 70), (5, 10))


def write_ref_youtube_vos(root: Path, rng: np.random.Generator) -> None:
    """The listing of the validation set has the test videos too, and no objects. The masks of that
    set, which its author posted later, lie in valid/Annotations, and the listing with objects and
    the categories beside them: how they were posted is not documented."""
    listings: dict[str, dict] = {}
    for split, videos in YTVOS_VIDEOS.items():
        listing, categories = {}, {}
        for k, video in enumerate(videos):
            names = [f"{number:05d}" for number in YTVOS_FRAMES[k]]
            clip = draw_clip(rng, len(names), HEIGHT + 8 * (k % 2))
            write_frames(root / split / "JPEGImages" / video, names, clip.frames)
            if split != "test":
                write_maps(root / split / "Annotations" / video, names, clip.object_map)
            # Object 3 is labelled, but nothing is said of it.
            said = [(text, str(i)) for i in (2, 1) for text in clip.texts[i][:2]]
            expressions = {str(e): {"exp": t, "obj_id": i} for e, (t, i) in enumerate(said)}
            listing[video] = {"expressions": expressions, "frames": names}
            categories[video] = {"objects": ytvos_objects(clip, names)}
        listings[split] = listing
        if split != "test":
            write_json(root / split / "meta.json", {"videos": categories})
    write_json(root / "valid/meta_expressions.json", {"videos": listings["valid"]})
    test = without_objects(listings["test"])
    valid = dict(sorted((without_objects(listings["valid"]) | test).items()))
    for split, listing in {"train": listings["train"], "valid": valid, "test": test}.items():
        path = root / "meta_expressions" / split / "meta_expressions.json"
        write_json(path, {"videos": listing}, indent=4)


def ytvos_objects(clip: Clip, names: list[str]) -> dict[str, dict]:
    """What meta.json tells of the objects of a video: their category and the frames they are in."""
    seen = {
        i: [name for name, ids in zip(names, clip.object_map, strict=True) if (ids == i).any()]
        for i in clip.categories
    }
    return {str(i): {"category": name, "frames": seen[i]} for i, name in clip.categories.items()}


def without_objects(listing: dict) -> dict:
    """A listing whose masks are not public."""
    return {
        video: {
            "expressions": {e: {"exp": said["exp"]} for e, said in told["expressions"].items()},
            "frames": told["frames"],
        }
        for video, told in listing.items()
    }


DAVIS_SEQUENCES = {
    "train": ("classic-car", "dogs-scale", "motorbike"),
    "val": ("bike-packing", "blackswan", "dogs-jump"),
}
DAVIS_MISSPELT = {"classic-car": "clasic-car", "dogs-scale": "dog-scale", "motorbike": "motor-bike"}
DAVIS_FILES = (  # in the order of the expression sets; the second annotator's are in latin-1
    ("annot1", "utf-8"),
    ("annot1_full_video", "utf-8"),
    ("annot2", "latin-1"),
    ("annot2_full_video", "latin-1"),
)


def draw_davis(rng: np.random.Generator) -> dict[str, Clip]:
    """Both layouts have these: of object 3 of dogs-jump nothing is said, and a corner of blackswan
    is void."""
    clips = {}
    for sequences in DAVIS_SEQUENCES.values():
        for k, sequence in enumerate(sequences):
            clips[sequence] = draw_clip(rng, 6 + 2 * k, HEIGHT, WIDTH + 2 * k)
    clips["blackswan"].object_map[:, -4:, :8] = VOID
    del clips["dogs-jump"].texts[3]
    return clips


def davis_expressions(clip: Clip, number: int) -> list[tuple[str, str]]:
    """(object id, text) pairs of an expression set, as they come in its file: not sorted."""
    pairs = [(str(i), texts[number]) for i, texts in clip.texts.items()]
    if DAVIS_FILES[number][1] == "latin-1":
        pairs[0] = (pairs[0][0], f"it´s {pairs[0][1]}")
    return pairs[::-1]


def write_ref_davis17(root: Path, rng: np.random.Generator) -> None:
    """DAVIS as unzipped, and the text files. These misspell three sequences; one has stray blanks
    in the text."""
    clips, davis = draw_davis(rng), root / "DAVIS"
    for split, sequences in DAVIS_SEQUENCES.items():
        write_text(davis / f"ImageSets/2017/{split}.txt", "".join(f"{s}\n" for s in sequences))
    for sequence, clip in clips.items():
        names = [f"{t:05d}" for t in range(len(clip.frames))]
        write_frames(davis / "JPEGImages/480p" / sequence, names, clip.frames)
        write_maps(davis / "Annotations_unsupervised/480p" / sequence, names, clip.object_map)
    semantics = {
        sequence: {str(i): category for i, category in clip.categories.items()}
        for sequence, clip in clips.items()
    }
    write_json(davis / "davis_semantics.json", semantics)
    for number, (name, encoding) in enumerate(DAVIS_FILES):
        lines = [
            f'{DAVIS_MISSPELT.get(sequence, sequence)} {i} "{text}"\n'
            for sequence, clip in clips.items()
            for i, text in davis_expressions(clip, number)
        ]
        lines = [
            line.replace(" ", "  ") if line.startswith("motor-bike") else line for line in lines
        ]
        write_text(root / f"davis_text_annotations/Davis17_{name}.txt", "".join(lines), encoding)


def write_ref_davis17_converted(root: Path, rng: np.random.Generator) -> None:
    """The same sequences as ReferFormer's script lays them out: expression 4 k + a is that of the
    k-th object in set a. DAVIS/ and the text files, which stay, are left out: write both fixtures
    into one folder to have them."""
    clips = draw_davis(rng)
    for sequences, split in zip(DAVIS_SEQUENCES.values(), ("train", "valid"), strict=True):
        listing, categories = {}, {}
        for sequence in sequences:
            clip = clips[sequence]
            names = [f"{t:05d}" for t in range(len(clip.frames))]
            write_frames(root / split / "JPEGImages" / sequence, names, clip.frames)
            write_maps(root / split / "Annotations" / sequence, names, clip.object_map)
            sets = [sorted(davis_expressions(clip, number)) for number in range(len(DAVIS_FILES))]
            said = [pair for of_object in zip(*sets, strict=True) for pair in of_object]
            expressions = {str(e): {"exp": t, "obj_id": i} for e, (i, t) in enumerate(said)}
            listing[sequence] = {"expressions": expressions, "frames": names}
            objects = {str(i): {"category": name} for i, name in clip.categories.items()}
            categories[sequence] = {"objects": objects}
        write_json(root / split / "meta.json", {"videos": categories})
        write_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": listing})


A2D_MISSED, A2D_COPIED = "54DuhN4-Cj0", "T6bNPuKV-wY"
A2D_SUBSETS = ("train", "test")  # 0 and 1 in videoset.csv
A2D_VIDEOS = {  # video -> subset, and the annotated frames, from 1, with their objects
    "--h5fAKYurM": (0, {2: (1, 2, 3), 5: (3, 2, 1), 9: (1, 2, 3)}),
    "-0cOo0cRVZU": (1, {3: (1, 2, 3), 8: (3, 2, 1)}),
    A2D_MISSED: (0, {}),
    A2D_COPIED: (1, {1: (1, 2, 3), 6: (1, 2, 3), 10: (3, 1, 2)}),
    "_fTMYnVtUbo": (0, {6: (1,)}),
}
A2D_FRAMES = 10


def write_a2d_sentences(root: Path, rng: np.random.Generator) -> None:
    """Object i is instance i - 1, in h5 files in any order, where it is annotated and seen. Clips
    are as small as the other fixtures; the official ones have 320 rows."""
    videoset, rows = [], [("video_id", "instance_id", "query")]
    samples, coco = {split: [] for split in A2D_SUBSETS}, coco_ground_truth()
    texts = root / "text_annotations"
    for k, (video, (subset, annotated)) in enumerate(A2D_VIDEOS.items()):
        clip = draw_clip(rng, A2D_FRAMES, HEIGHT, WIDTH + 16 * (k % 2))
        height, width = clip.object_map.shape[1:]
        write_clip(root / f"Release/clips320H/{video}.mp4", clip.frames)
        times, sizes = ("00:00:10", "00:00:12"), (2 * height, 2 * width)
        videoset.append((video, 11, *times, *sizes, A2D_FRAMES, len(annotated), subset))
        if video == A2D_MISSED:
            continue
        for number, ids in annotated.items():
            folder = texts / "a2d_annotation_with_instances" / video
            write_h5(folder / f"{number:05d}.h5", clip.object_map[number - 1], ids)
        for i, (query, *_) in clip.texts.items():
            query = f" {query.capitalize()} " if i == 1 else query  # real ones have such edges
            if video == A2D_COPIED and i == 2:
                rows.append((video, "1 (copy)", clip.texts[1][0]))
            rows.append((video, i - 1, query))
            for number, ids in annotated.items():
                mask = clip.object_map[number - 1] == i
                if i in ids and mask.any():
                    samples[A2D_SUBSETS[subset]].append([query.lower(), video, number, i - 1])
                    if A2D_SUBSETS[subset] == "test":
                        add_to_coco(coco, f"v_{video}_f_{number}_i_{i - 1}", mask, box_of(mask))
    write_csv(root / "Release/videoset.csv", videoset)
    write_csv(texts / "a2d_annotation.txt", rows)
    write_text(texts / "a2d_missed_videos.txt", A2D_MISSED)  # without a line end
    for split, listed in samples.items():
        write_json(root / f"a2d_sentences_single_frame_{split}_annotations.json", listed)
    write_json(root / "a2d_sentences_test_annotations_in_coco_format.json", coco)


def write_clip(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=25, height=frames.shape[1], width=frames.shape[2]) as writer:
        for frame in frames:
            writer.write(frame)


def write_h5(path: Path, object_map: np.ndarray, ids: tuple[int, ...]) -> None:
    """Masks are transposed; their first dimension, and the last one of the boxes, is missing where
    there is one instance."""
    seen = [i for i in ids if (object_map == i).any()]
    masks = np.stack([(object_map == i).T for i in seen]).astype(np.uint8)  # (n, width, height)
    boxes = np.array([box_of(object_map == i) for i in seen]).T  # (4, n)
    if len(seen) == 1:
        masks, boxes = masks[0], boxes[:, 0]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["instance"] = np.array(seen) - 1
        file["reMask"] = masks
        file["reBBox"] = boxes


def box_of(mask: np.ndarray) -> list[float]:
    """x1, y1, x2, y2, where the last two belong to the object."""
    ys, xs = np.nonzero(mask)
    return [float(edge) for edge in (xs.min(), ys.min(), xs.max(), ys.max())]


def coco_ground_truth() -> dict[str, list]:
    return {"categories": [{"id": 1, "name": "dummy_class"}], "images": [], "annotations": []}


def add_to_coco(
    coco: dict[str, list], image_id: str, mask: np.ndarray, box: list[float] | None = None
) -> None:
    """Add an image with one annotation, which tells a box in A2D-Sentences alone."""
    height, width = mask.shape
    coco["images"].append({"id": image_id, "height": height, "width": width})
    annotation = {"id": len(coco["annotations"]) + 1, "image_id": image_id, "category_id": 1}
    annotation |= {"segmentation": encode(mask), "area": float(mask.sum())}
    if box is not None:
        x1, y1, x2, y2 = box
        annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    coco["annotations"].append(annotation | {"iscrowd": 0})


JHMDB_VIDEOS = {  # video -> action, number of frames and of masks
    "100_pullups_pullup_f_nm_np1_fr_med_1": ("pullup", 8, 8),
    "11_4_08ErikaRecurveBack_shoot_bow_u_nm_np1_ba_med_0": ("shoot_bow", 9, 6),
    "April_09_brush_hair_u_nm_np1_ba_goo_0": ("brush_hair", 7, 7),
    "Goal_1_kick_ball_f_cm_np1_ba_med_5": ("kick_ball", 6, 6),
}
JHMDB_SILENT = "Goal_1_kick_ball_f_cm_np1_ba_med_5"  # JHMDB has more videos than sentences


def write_jhmdb_sentences(root: Path, rng: np.random.Generator) -> None:
    """The paths in the list of samples begin above the data set's folder."""
    rows, samples, coco = [("video_id", "query")], [], coco_ground_truth()
    for video, (action, num_frames, num_masks) in JHMDB_VIDEOS.items():
        clip = draw_clip(rng, num_frames)
        names = [f"{t:05d}" for t in range(1, num_frames + 1)]
        media, puppet = f"Rename_Images/{action}/{video}", f"puppet_mask/{action}/{video}"
        write_frames(root / media, names, clip.frames, ".png")
        masks = (clip.object_map[:num_masks] == 1).astype(np.uint8)
        write_mat(root / puppet / "puppet_mask.mat", masks)
        if video == JHMDB_SILENT:
            continue
        query = clip.texts[1][0]
        rows.append((video, query))
        for t in sorted(rng.choice(num_masks, 3, replace=False).tolist()):
            frame, mat = f"{media}/{names[t]}.png", f"{puppet}/puppet_mask.mat"
            paths = [f"./jhmdb_sentences/{path}" for path in (frame, mat)]
            samples.append([video, *paths, num_masks, query])
            add_to_coco(coco, f"v_{video}_f_{t + 1}", masks[t])
    write_csv(root / "jhmdb_annotation.txt", rows)
    write_json(root / "jhmdb_sentences_samples_metadata.json", samples)
    write_json(root / "jhmdb_sentences_gt_annotations_in_coco_format.json", coco)


def write_mat(path: Path, masks: np.ndarray) -> None:
    """Masks (T, height, width) as part_mask (height, width, T)."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"part_mask": masks.transpose(1, 2, 0)}, do_compression=True)
    header = b"MATLAB 5.0 MAT-file".ljust(116)  # scipy puts the time here
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + buffer.getvalue()[116:])


def write_mevis(root: Path, rng: np.random.Generator) -> None:
    """Annotation ids run through a whole split, from 0; where an object is not seen its code is
    null. An expression may mean several objects. valid tells neither objects nor masks."""
    for split in ("train", "valid_u", "valid"):
        listing, mask_dict = {}, {}
        for _ in range(2):
            video = rng.bytes(6).hex()
            clip = draw_clip(rng, 7)
            names = [f"{t:05d}" for t in range(7)]
            write_frames(root / split / "JPEGImages" / video, names, clip.frames)
            first = len(mask_dict)
            for i in clip.texts:
                masks = clip.object_map == i
                mask_dict[str(first + i - 1)] = [encode(m) if m.any() else None for m in masks]
            one, two, three = (texts[0] for texts in clip.texts.values())
            said = [(one, [1]), (two.capitalize(), [2]), (f"{one} and {two}", [1, 2]), (three, [3])]
            expressions = {
                str(e): {"exp": text, "obj_id": ids, "anno_id": [first + i - 1 for i in ids]}
                for e, (text, ids) in enumerate(said)
            }
            listing[video] = {"expressions": expressions, "frames": names}
        if split == "valid":
            listing = without_objects(listing)
        else:
            write_json(root / split / "mask_dict.json", mask_dict)
        write_json(root / split / "meta_expressions.json", {"videos": listing})


COCO_IMAGES = (131074, 262145, 393223, 524297, 581857, 549347)
COCO_CATEGORIES = [*SHAPES]  # ids from 1
REFER = {  # data set -> who split it, and the splits of the images
    "refcoco": ("unc", ("train", "train", "train", "val", "testA", "testB")),
    "refcoco+": ("unc", ("train", "val", "train", "testB", "testA", "train")),
    "refcocog": ("umd", ("train", "train", "train", "val", "test", "test")),
}


def draw_coco(root: Path, rng: np.random.Generator) -> tuple[dict, list[dict]]:
    """Write the images of RefCOCO, which all layouts share; COCO's annotations, and what REFER
    tells of each object of which something is said, without the split.

    The objects 1 and 3 of each image are annotated, by a polygon, but for a run-length code; of
    object 3 of the last image nothing is said. Objects do not come image by image.
    """
    images, annotations, said = [], [], {1: [], 3: []}
    for k, image_id in enumerate(COCO_IMAGES):
        clip = draw_clip(rng, 2, HEIGHT + 8 * (k % 2))
        name = f"COCO_train2014_{image_id:012d}"
        write_frames(root / "train2014", [name], clip.frames[:1])
        height, width = clip.object_map.shape[1:]
        image = {"file_name": f"{name}.jpg", "height": height, "width": width, "id": image_id}
        images.append(image)
        for i, refs in said.items():
            mask = clip.object_map[0] == i
            annotation = {"id": 10 * image_id + i, "image_id": image_id, "iscrowd": 0}
            annotation["category_id"] = 1 + COCO_CATEGORIES.index(clip.categories[i])
            x1, y1, x2, y2 = box_of(mask)
            annotation |= {"area": float(mask.sum()), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotation["segmentation"] = counts_of(mask) if (k, i) == (1, 3) else [outline_of(mask)]
            annotations.append(annotation)
            ref = {"image_id": image_id, "ann_id": annotation["id"], "texts": clip.texts[i][:2]}
            refs.append(
                ref | {"file_name": f"{name}_{i}.jpg", "category_id": annotation["category_id"]}
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(COCO_CATEGORIES, 1)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    return coco, said[1] + said[3][:-1]


def outline_of(mask: np.ndarray) -> list[float]:
    """The convex hull of a mask's pixels: x, y, x, y, ..."""
    corners = np.argwhere(mask)[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    points = corners.reshape(-1, 2)[:, ::-1]
    return points[ConvexHull(points).vertices].astype(float).ravel().tolist()


def counts_of(mask: np.ndarray) -> dict:
    """The run-length code that COCO gives crowds: lengths of runs down the columns, 0 first."""
    pixels = mask.T.ravel()
    ends = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff([0, *ends, len(pixels)]).tolist()
    return {"counts": [0] * int(pixels[0]) + counts, "size": list(mask.shape)}


def write_refcoco(root: Path, rng: np.random.Generator) -> None:
    """RefCOCO/+/g as REFER gives them out, beside the images of COCO."""
    coco, said = draw_coco(root, rng)
    for name, (split_by, splits) in REFER.items():
        refs = []
        for ref_id, told in enumerate(said):
            ref = {key: value for key, value in told.items() if key != "texts"}
            ids = [2 * ref_id, 2 * ref_id + 1]
            sentences = [
                {"tokens": text.split(), "raw": f"{text.capitalize()}.", "sent_id": i, "sent": text}
                for i, text in zip(ids, told["texts"], strict=True)
            ]
            ref |= {"ref_id": ref_id, "sent_ids": ids, "sentences": sentences}
            refs.append(ref | {"split": splits[COCO_IMAGES.index(ref["image_id"])]})
        write_json(root / name / "instances.json", coco)
        (root / name / f"refs({split_by}).p").write_bytes(pickle.dumps(refs, protocol=2))


def write_refcoco_converted(root: Path, rng: np.random.Generator) -> None:
    """The same as ReferFormer's script converts them: an image and an annotation an expression."""
    coco, said = draw_coco(root, rng)
    images = {image["id"]: image for image in coco["images"]}
    annotations = {annotation["id"]: annotation for annotation in coco["annotations"]}
    for name, (_, splits) in REFER.items():
        for split in dict.fromkeys(splits):
            converted = {"images": [], "annotations": [], "categories": coco["categories"]}
            for told in said:
                if splits[COCO_IMAGES.index(told["image_id"])] != split:
                    continue
                for text in told["texts"]:
                    number = len(converted["images"]) + 1
                    image = images[told["image_id"]]
                    image = image | {"original_id": image["id"], "id": number, "caption": text}
                    converted["images"].append(image | {"dataset_name": name})
                    annotation = annotations[told["ann_id"]]
                    annotation = annotation | {"original_id": annotation["id"], "id": number}
                    converted["annotations"].append(annotation | {"image_id": number})
            write_json(root / name / f"instances_{name}_{split}.json", converted)


FOLDER_FRAMES = 8


def write_folder(root: Path, rng: np.random.Generator) -> None:
    """Three videos of one's own: frames with masks of three objects, every second frame; frames
    with masks of one, whose names do not sort as text; and a video file. The table is as a
    spreadsheet saves it."""
    clips = {name: draw_clip(rng, FOLDER_FRAMES) for name in ("pond", "kitchen", "street")}
    names = [f"{t:05d}" for t in range(FOLDER_FRAMES)]
    short = [f"{t}" for t in range(6, 6 + FOLDER_FRAMES)]
    write_frames(root / "frames/pond", names, clips["pond"].frames)
    write_maps(root / "masks/pond", names[::2], clips["pond"].object_map[::2])
    write_frames(root / "frames/kitchen", short, clips["kitchen"].frames, ".png")
    masks = np.where(clips["kitchen"].object_map == 1, 255, 0).astype(np.uint8)
    write_frames(root / "masks/kitchen", short, masks, ".png")
    write_clip(root / "videos/street.mp4", clips["street"].frames)
    write_maps(root / "masks/street", names, clips["street"].object_map)
    rows = [("video", "object_id", "expression", "split")]
    for i in (1, 2, 3):
        rows.append(("pond", i, clips["pond"].texts[i][0], ""))
    rows.append(("kitchen", "", f"{clips['kitchen'].texts[1][0]}, seen from above", "train"))
    rows.append(("street", 1, clips["street"].texts[1][0], "valid"))
    rows.append(("street", "1 3", f"{clips['street'].texts[1][0]} and another", "valid"))
    write_csv(root / "expressions.csv", rows, lineterminator="\r\n", encoding="utf-8-sig")


WRITERS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "ref-youtube-vos": write_ref_youtube_vos,
    "ref-davis17": write_ref_davis17,
    "ref-davis17-converted": write_ref_davis17_converted,
    "a2d-sentences": write_a2d_sentences,
    "jhmdb-sentences": write_jhmdb_sentences,
    "mevis": write_mevis,
    "refcoco": write_refcoco,
    "refcoco-converted": write_refcoco_converted,
    "folder": write_folder,
}


def write_fixture(name: str, root: str | Path, seed: int = 0) -> None:
    """Write a benchmark in miniature. The same seed gives the same bytes, but for the mp4 files of
    A2D-Sentences (the encoder is not deterministic).

    Args:
        name: a key of `WRITERS`; "ref-davis17" and "refcoco" (with refcoco+ and refcocog) are the
            layouts as unzipped, "-converted" those of ReferFormer's scripts, with the same videos.
        root: becomes the folder of the data set; made if absent.
        seed: of the videos.
    """
    if name not in WRITERS:
        raise ValueError(f"there is no fixture {name!r}: give one of {', '.join(WRITERS)}")
    WRITERS[name](Path(root), np.random.default_rng(seed))


def main(
    name: Annotated[str, typer.Argument(help=", ".join(WRITERS))],
    root: Annotated[Path, typer.Argument(help="folder of the data set, made if absent")],
    seed: int = 0,
) -> None:
    write_fixture(name, root, seed)


if __name__ == "__main__":
    typer.run(main)
