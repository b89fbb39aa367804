"""Labels of images, as people hold a job against them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from epochs import LABELS

from trtjob.jobs.report.truth import TrueObject


def coco(path: Path, images: Mapping[str, Sequence[TrueObject]], categories: Sequence[str] = LABELS) -> Path:
    """Write COCO's JSON. Ids of images fall, so that their order is not that of the names."""
    names = list(images)
    document = {
        "info": {"nested": [{"images": []}]},
        "annotations": [
            {"id": number, "image_id": 900 - names.index(name), "category_id": 10 * (1 + each.class_id),
             "bbox": list(each.box), "area": each.box[2] * each.box[3], "iscrowd": int(each.is_crowd)}
            for number, (name, each) in enumerate(((name, each) for name in names for each in images[name]), start=1)
        ],
        "images": [{"id": 900 - number, "file_name": name} for number, name in enumerate(names)],
        "categories": [{"id": 10 * (1 + number), "name": name} for number, name in enumerate(categories)],
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path
