# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
from dataclasses import FrozenInstanceError

import pytest

from proxyformer_hf.data.load import BUILDERS, builder_class
from proxyformer_hf.evaluation.protocols import PROTOCOLS, find_protocol

# What ReferFormer's inference_ytvos.py, inference_davis.py and its A2D/JHMDB evaluation use, and
# MTTR's annotations: (split, short side, longest side, frames in a clip).
PUBLISHED = {
    "ref-youtube-vos": ("valid", 360, None, None),
    "ref-davis17": ("valid", 360, None, 36),
    "a2d-sentences": ("test", 360, 640, 5),
    "jhmdb-sentences": ("test", 360, 640, 5),
    "mevis": ("valid_u", 360, None, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_windows_and_thresholds(name):
    protocol = find_protocol(name)
    assert protocol.name == "published"
    sizes = protocol.shortest_edge, protocol.longest_edge, protocol.window
    assert (protocol.split, *sizes) == PUBLISHED[name]
    assert protocol.threshold == 0.5


def test_ref_davis17_merges_over_a_background_for_four_annotators():
    protocol = find_protocol("ref-davis17")
    assert (protocol.background, protocol.annotators) == (0.1, 4)


def test_alternatives_differ_from_the_published_protocol_in_what_they_are_named_after():
    assert find_protocol("ref-davis17", "per-expression").window == 36
    assert not hasattr(find_protocol("ref-davis17", "per-expression"), "background")
    for name in ("a2d-sentences", "jhmdb-sentences"):
        assert find_protocol(name).detections == "all"
        assert find_protocol(name, "top-1").detections == "best"


def test_servers_take_these_top_folders():
    tops = {p.benchmark: p.submission for p in PROTOCOLS if hasattr(p, "submission")}
    assert tops == {
        "ref-youtube-vos": "Annotations",
        "ref-davis17": None,
        "mevis": "",
        **dict.fromkeys(("moving-shapes", "refcoco", "refcoco+", "refcocog", "folder")),
    }


def test_every_benchmark_has_a_protocol_on_a_split_that_it_has():
    assert {protocol.benchmark for protocol in PROTOCOLS} == {*BUILDERS}
    assert all(protocol.split in builder_class(protocol.benchmark).splits for protocol in PROTOCOLS)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("youtube",), "no benchmark 'youtube': choose ref-youtube-vos, ref-davis17, a2d"),
        (("mevis", "top-1"), "mevis has no protocol 'top-1': choose published$"),
        (("moving-shapes", "published"), "choose per-expression$"),
    ],
)
def test_unknown_names_list_the_known_ones(names, message):
    with pytest.raises(ValueError, match=message):
        find_protocol(*names)


def test_protocols_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        find_protocol("mevis").threshold = 0.4
