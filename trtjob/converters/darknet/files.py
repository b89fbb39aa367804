"""Find and read what belongs to a weights file: its cfg and its labels."""

import re
from pathlib import Path

from trtjob.converters.request import ConversionRequest
from trtjob.errors import ConversionError, DarknetParseError

# Darknet's training adds these to the cfg's name: yolov4-custom_best.weights, yolov4-custom_12000.weights.
_TRAINING_SUFFIX = re.compile(r"_(best|last|final|\d+)$")
# What Darknet's own examples call their labels.
_USUAL_LABELS = ("obj.names", "coco.names", "classes.txt")


def files(request: ConversionRequest) -> tuple[Path, ...]:
    """Return the weights, the cfg and the labels, found beside the weights where they are not named."""
    cfg = request.cfg or find_cfg(request.model)
    return request.model, cfg, request.labels or find_labels(request.model, cfg)


def find_cfg(weights: Path) -> Path:
    """Return the cfg beside a weights file. Raises ConversionError where there is none."""
    stems = list(dict.fromkeys([weights.stem, _TRAINING_SUFFIX.sub("", weights.stem)]))
    for stem in stems:
        if (candidate := weights.with_name(f"{stem}.cfg")).is_file():
            return candidate
    looked = " or ".join(f"'{stem}.cfg'" for stem in stems)
    raise ConversionError(f"no {looked} beside '{weights}'. Name the network's cfg with --cfg FILE")


def find_labels(weights: Path, cfg: Path) -> Path:
    """Return the labels' file beside a weights file or its cfg. Raises ConversionError where there is none."""
    stems = dict.fromkeys([weights.stem, _TRAINING_SUFFIX.sub("", weights.stem), cfg.stem])
    folders = dict.fromkeys([weights.parent, cfg.parent])
    for folder in folders:
        for name in (*(f"{stem}.names" for stem in stems), *_USUAL_LABELS):
            if (candidate := folder / name).is_file():
                return candidate
        if len(alone := [path for path in folder.glob("*.names") if path.is_file()]) == 1:
            return alone[0]
    raise ConversionError(
        f"no labels for '{weights}': expected '{cfg.stem}.names' beside it, with one class on each line. "
        "Name the file with --labels FILE"
    )


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Return the labels of a names file. Raises DarknetParseError unless there are as many as the model has classes."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as err:
        raise DarknetParseError(f"the labels cannot be read: {err.strerror}", path=path) from err
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        raise DarknetParseError("expected labels in UTF-8, one on each line", path=path, line=line) from err
    labels = [line.strip() for line in text.rstrip().split("\n")]
    if "\0" in text or len(labels) != classes or not all(labels):
        empty = next((number for number, label in enumerate(labels, 1) if not label or "\0" in label), 0)
        found = f"line {empty} is empty or binary" if empty else f"found {len(labels)}"
        raise DarknetParseError(
            f"expected {classes} labels, as many as the cfg has classes, one on each line; {found}. "
            "Name another file with --labels FILE",
            path=path,
            line=empty,
        )
    return tuple(labels)
