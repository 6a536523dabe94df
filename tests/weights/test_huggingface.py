"""Preprocessing and classes of files in Hugging Face layout: every form against transformers' own processor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import DetrImageProcessor, RTDetrImageProcessor

from boxwright.data.images import normalize
from boxwright.passport import Origin
from boxwright.weights.projects.huggingface import (
    DETR_PROCESSOR,
    RTDETR_PROCESSOR,
    Preprocessing,
    ProcessorDefaults,
    read_categories,
    read_preprocessing,
    write_categories,
    write_preprocessing,
)
from boxwright.weights.source import SourceFiles
from boxwright_runtime.input_format import InputFormat
from weights.source_checks import draw_images

SHAPES = ((480, 640), (333, 190), (150, 420), (427, 640), (500, 500))


def read(content: Mapping[str, Any], defaults: ProcessorDefaults = DETR_PROCESSOR) -> Preprocessing:
    return read_preprocessing(
        SourceFiles(origin=Origin(source="folder", kind=""), tensors={}, preprocessor=content), defaults
    )


def make_format(preprocessing: Preprocessing) -> InputFormat:
    return InputFormat(**{key.removeprefix("input."): value for key, value in preprocessing.overrides.items()})


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        ({"size": {"shortest_edge": 80, "longest_edge": 133}}, 0),
        ({"size": {"shortest_edge": 80, "longest_edge": 80}}, 0),
        ({"size": {"shortest_edge": 100, "longest_edge": 80}}, 0),
        ({"size": {"max_height": 90, "max_width": 90}}, 0),
        ({"size": {"height": 96, "width": 96}}, 0),
        ({"size": 80, "max_size": 133}, 0),
        ({"do_normalize": False, "size": {"shortest_edge": 80, "longest_edge": 133}}, 0),
        ({"rescale_factor": 1 / 127.5, "size": {"shortest_edge": 80, "longest_edge": 133}}, 0),
        ({"do_rescale": False, "image_mean": [120.0, 110, 100], "image_std": [60.0, 58, 57], "size": 80}, 0),
        ({"image_mean": [0.5, 0.4, 0.3], "image_std": 0.5, "size": 64, "max_size": 100}, 0),
    ],
)
def test_inputs_are_those_of_the_processor(content: dict[str, Any], notes: int) -> None:
    preprocessing = read(content)
    assert len(preprocessing.assumptions) == notes
    image_format, processor = make_format(preprocessing), DetrImageProcessor(**content)
    for image in draw_images(SHAPES):
        theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
        height, width = image_format.input_size(*image.shape[:2])
        assert tuple(theirs.shape[1:]) == (height, width), image.shape
        # Where nothing is resized, normalization alone can differ.
        plain = processor(images=image, return_tensors="pt", do_resize=False)["pixel_values"]
        ours = normalize(torch.from_numpy(image.copy()).permute(2, 0, 1)[None], image_format)
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_a_square_is_the_default_of_rtdetr() -> None:
    preprocessing = read({}, RTDETR_PROCESSOR)
    assert preprocessing.assumptions[0].startswith("no preprocessor_config.json: RTDetrImageProcessor's own")
    image_format, processor = make_format(preprocessing), RTDetrImageProcessor()
    (image,) = draw_images(((333, 190),))
    assert tuple(processor(images=image, return_tensors="pt")["pixel_values"].shape[-2:]) == (640, 640)
    assert image_format == InputFormat()
    assert make_format(read({"size": 320}, RTDETR_PROCESSOR)).image_size == 320


def test_sizes_that_transformers_refuses_today_are_read_with_a_note() -> None:
    preprocessing = read({"size": {"longest_edge": 800}})
    assert preprocessing.assumptions == ("size has no shortest_edge: the longest side of its images is 800 pixels",)
    assert make_format(preprocessing).input_size(400, 1600) == (200, 800)
    assert make_format(preprocessing).input_size(1600, 400) == (800, 200)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"resample": 3}, "with filter 3 of Pillow"),
        ({"pad_size": {"height": 900, "width": 900}}, "padded to .*900"),
        ({}, "no preprocessor_config.json: DetrImageProcessor's own preprocessing"),
    ],
)
def test_what_has_no_counterpart_is_said(content: Mapping[str, Any], message: str) -> None:
    (note,) = read(content).assumptions
    assert re.search(message, note), note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"do_resize": False}, "not resized"),
        ({"size": {"height": 480, "width": 640}}, "stretched to 480 x 640 pixels"),
        ({"size": {"height": 100, "width": 100}}, "multiple of 32"),
        ({"size": {"max_height": 480, "max_width": 640}}, "fit into 480 x 640 pixels"),
        ({"size": {"width": 640}}, "has no sides"),
        ({"size": [480, 640]}, "none of the forms of transformers"),
    ],
)
def test_preprocessing_without_a_counterpart_is_refused(content: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read(content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "image_format",
    [
        InputFormat(image_size=96),
        InputFormat(
            image_size=80, resize="shortest_side", max_size=133, size_rule="transformers", mean=(0.5, 0.4, 0.3)
        ),
    ],
)
def test_what_we_write_reads_back(image_format: InputFormat) -> None:
    assert make_format(read(write_preprocessing(image_format, "DetrImageProcessor"))) == image_format


def test_a_size_without_limit_is_written_with_one_that_never_binds() -> None:
    image_format = InputFormat(image_size=80, resize="shortest_side", size_rule="transformers")
    assert make_format(read(write_preprocessing(image_format, "DetrImageProcessor"))).max_size == 8000


def test_classes() -> None:
    config = {"id2label": {"0": "N/A", "1": "person", "3": "cat"}}
    categories, notes = read_categories(config, 4)
    assert [(each.id, each.name) for each in categories] == [(0, "N/A"), (1, "person"), (2, "LABEL_2"), (3, "cat")]
    assert notes == []
    assert write_categories(categories)["id2label"] == {"0": "N/A", "1": "person", "2": "LABEL_2", "3": "cat"}
    categories, notes = read_categories({}, 2)
    assert [each.name for each in categories] == ["LABEL_0", "LABEL_1"]
    assert notes == ["the names of its 2 classes are not in its files: they are called LABEL_0 and so on"]
