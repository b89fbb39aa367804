"""Detectors made by their families' own code find what their owners' own predictions found."""

from pathlib import Path

import pytest

from scripts.detector_families import compared, table, written

CASES = {
    "hf_detr": "huggingface",
    "hf_rtdetr": "huggingface",
    "torchvision_fasterrcnn": "torchvision",
    "torchvision_retinanet": "torchvision",
    "ultralytics_rtdetr": "ultralytics-rtdetr",
    "yolox_decoded": "yolox",
    "yolox_raw": "yolox",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_its_owner_finds_is_found(name: str, shared: Path) -> None:
    found = compared(shared / "detectors" / name, shared / "images")
    assert found.family == CASES[name]
    assert (found.missing, found.extra) == (0, 0)
    assert found.wanted > 10
    assert found.boxes_px < 0.5
    # JPEG decoders differ by a level, which the made-up DETR magnifies.
    assert found.scores < (0.02 if name == "hf_detr" else 0.005)


def test_the_table_stands_between_its_marks() -> None:
    document = "before\n<!-- families -->\nold\n<!-- end of families -->\nafter\n"
    rows = table([])
    assert "| `yolox` | YOLOX | by hand, after its code | | as written down |" in rows
    assert written(document, rows) == f"before\n<!-- families -->\n\n{rows}\n\n<!-- end of families -->\nafter\n"
