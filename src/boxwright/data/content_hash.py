"""Hashes of what data sets hold, whatever format it is stored in."""

from __future__ import annotations

import hashlib

import numpy as np

from boxwright.data.records import DetectionData, file_names, image_sizes, object_columns

_STEPS_PER_PIXEL = 100
"""Boxes count to a hundredth of a pixel: formats that store fractions of the image round them."""


def content_sha256(data: DetectionData) -> str:
    """Compute the SHA-256 of names and sizes of the images, and classes, boxes and crowd marks of the objects.

    Neither the order of images and classes nor ids and folders matter, so that another format of the same data has the
    same hash.
    """
    records = data.records
    names = np.array([*file_names(records), ""], dtype=np.str_)[:-1]
    sizes, objects = image_sizes(records), object_columns(records)
    order = np.lexsort((sizes[:, 1], sizes[:, 0], names))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    by_image = np.argsort(position[objects.image_index], kind="stable")
    used = np.unique(objects.labels)
    classes = [data.categories[label].name for label in used.tolist()]
    class_order = np.argsort(np.array([*classes, ""], dtype=np.str_)[:-1], kind="stable")
    rank = np.zeros(len(data.categories) + 1, np.int64)
    rank[used[class_order]] = np.arange(len(used))
    # Adding 0 makes -0 the same as 0.
    boxes = np.rint(objects.bbox_xywh[by_image] * _STEPS_PER_PIXEL) + 0.0
    digest = hashlib.sha256()
    for text in (names[order].tolist(), [classes[index] for index in class_order.tolist()]):
        digest.update("\0".join((str(len(text)), *text, "")).encode("utf-8", "surrogatepass"))
    for column in (
        sizes[order],
        position[objects.image_index[by_image]],
        rank[objects.labels[by_image]],
        boxes,
        objects.crowd[by_image],
    ):
        digest.update(np.ascontiguousarray(column, dtype="<f8" if column.dtype.kind == "f" else "<i8").tobytes())
    return digest.hexdigest()


def images_sha256(data: DetectionData) -> str | None:
    """Compute the SHA-256 of names and bytes of the image files, in whatever order; None if they were not read."""
    digests = [facts.digest for facts in data.facts]
    if not digests or len(digests) != len(data.records):
        return None
    names = [name.encode("utf-8", "surrogatepass") for name in file_names(data.records)]
    pairs = sorted((name, digest) for name, digest in zip(names, digests, strict=True) if digest is not None)
    if len(pairs) < len(names):
        return None
    return hashlib.sha256(b"".join(b"%d %b %b" % (len(name), name, digest) for name, digest in pairs)).hexdigest()


def order_sha256(data: DetectionData) -> str:
    """Compute the SHA-256 of the names of the images, in their order."""
    return hashlib.sha256("\0".join(file_names(data.records)).encode("utf-8", "surrogatepass")).hexdigest()
