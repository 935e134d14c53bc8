import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from drywall_seg.inference.annotations import to_annotation, to_polygons, to_rle


def rasterised(polygons, shape):
    if not polygons:
        return np.zeros(shape, bool)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))) > 0


def iou(a, b):
    return (a & b).sum() / max(1, (a | b).sum())


@settings(max_examples=150, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=16)))
def test_run_lengths_and_polygons_come_back_as_the_mask(mask):
    assert np.array_equal(coco_mask.decode(json.loads(json.dumps(to_rle(mask)))) > 0, mask)
    polygons = to_polygons(mask)
    assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in polygons)
    assert np.array_equal(rasterised(polygons, mask.shape), mask)


def test_a_box_has_four_corners():
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, 8:20] = 255
    (polygon,) = to_polygons(mask)
    assert {(polygon[i], polygon[i + 1]) for i in range(0, 8, 2)} == {(8, 5), (20, 5), (20, 12), (8, 12)}
    assert len(polygon) == 8 and to_polygons(np.zeros((3, 3))) == []


def test_a_ring_is_cut_and_a_thin_crack_kept():
    y, x = np.mgrid[:200, :200]
    ring = np.abs(np.hypot(y - 100, x - 100) - 60) < 4
    assert len(to_polygons(ring)) >= 2 and iou(rasterised(to_polygons(ring), ring.shape), ring) == 1
    crack = np.abs(y - 100 - 30 * np.sin(x / 25)) < 0.8
    assert iou(rasterised(to_polygons(crack), crack.shape), crack) >= 0.98


def test_more_holes_than_calls_may_be_deep():
    mask = np.ones((5, 4001), bool)
    mask[2, 1:-1:2] = False
    assert np.array_equal(rasterised(to_polygons(mask), mask.shape), mask)


@pytest.mark.parametrize("polygons", [True, False])
def test_an_annotation_says_where_and_how_large(polygons):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, 8:20] = 255
    mask[5, 8] = 0
    annotation = json.loads(json.dumps(to_annotation(mask, 7, 3, 1, polygons)))
    assert (annotation["id"], annotation["image_id"], annotation["category_id"]) == (7, 3, 1)
    assert annotation["bbox"] == [8, 5, 12, 7] and annotation["area"] == 83
    assert isinstance(annotation["segmentation"], list) == polygons == (not annotation["iscrowd"])
