"""Find and read what belongs to a weights file: its cfg, its labels, and what the cfg names.

They lie beside the weights, or as in a project of Darknet's, from whose folder it is started, and files are named.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from trtjob.converters.darknet.cfg import Section, read_cfg
from trtjob.converters.labels import data_options
from trtjob.converters.own_files import CFG, DATA, expect_own, is_own, project_of
from trtjob.converters.request import ConversionRequest
from trtjob.errors import ConversionError, DarknetParseError

# Darknet's training adds these to the cfg's name: yolov4-custom_best.weights, yolov4-custom_12000.weights.
_TRAINING_SUFFIX = re.compile(r"_(best|last|final|\d+)$")
# What Darknet's own examples call their labels.
_USUAL_LABELS = ("obj.names", "coco.names", "classes.txt")
# What a cfg may name: the tree of its classes, and which of them its labels are.
_NAMED_BY_CFG = ("tree", "map")


def files(request: ConversionRequest) -> tuple[Path, ...]:
    """Return the weights, the cfg and the labels, found where they are not named, and then others.

    Raises ConversionError, DarknetParseError where one is missing.
    """
    cfg = request.cfg or find_cfg(request.model)
    labels = request.labels or find_labels(request.model, cfg)
    named = (beside(section, name, request.model) for section in read_cfg(cfg) for name in _NAMED_BY_CFG)
    return request.model, cfg, labels, *dict.fromkeys(path for path in named if path is not None)


def find_cfg(weights: Path) -> Path:
    """Return the cfg beside a weights file, or of its project. Raises ConversionError where there is none."""
    names = [f"{stem}.cfg" for stem in dict.fromkeys([weights.stem, _TRAINING_SUFFIX.sub("", weights.stem)])]
    root = project_of(weights)
    for folder in (weights.parent, *_below(root, CFG)):
        for candidate in _existing(folder, names):
            return expect_own(candidate, weights, option="--cfg")
    looked = " or ".join(f"'{name}'" for name in names)
    there = "" if root is None else f" or in '{root / CFG}'"
    raise ConversionError(f"no {looked} beside '{weights}'{there}. Name the network's cfg with --cfg FILE")


def find_labels(weights: Path, cfg: Path) -> Path:
    """Return the labels' file beside a weights file or its cfg, or of their project, or what a .data file there names.

    Raises ConversionError where there is none.
    """
    stems = list(dict.fromkeys([weights.stem, _TRAINING_SUFFIX.sub("", weights.stem), cfg.stem]))
    for folder in dict.fromkeys([weights.parent, cfg.parent, *_below(project_of(weights), DATA)]):
        for candidate in _labels_in(folder, stems, (weights, cfg)):
            return expect_own(candidate, weights, cfg, option="--labels")
    raise ConversionError(
        f"no labels for '{weights}': expected '{cfg.stem}.names' beside it, with one class on each line. "
        "Name the file with --labels FILE"
    )


def _labels_in(folder: Path, stems: list[str], named: tuple[Path, Path]) -> Iterator[Path]:
    """Yield the labels of a folder, the most likely first. named: the weights and the cfg."""
    yield from _existing(folder, [f"{stem}.names" for stem in stems])
    for data in _existing(folder, [f"{stem}.data" for stem in stems]):
        yield from _labels_of_data(data, named)
    yield from _existing(folder, _USUAL_LABELS)
    if len(alone := [path for path in folder.glob("*.names") if path.is_file()]) == 1:
        yield alone[0]
    if len(alone := [path for path in folder.glob("*.data") if path.is_file()]) == 1:
        yield from _labels_of_data(alone[0], named)


def _below(root: Path | None, *names: str) -> list[Path]:
    """Return folders of a project, none where there is no project."""
    return [] if root is None else [root / name for name in names]


def _existing(folder: Path, names: "list[str] | tuple[str, ...]") -> Iterator[Path]:
    return (folder / name for name in names if (folder / name).is_file())


def _labels_of_data(data: Path, named: tuple[Path, Path]) -> Iterator[Path]:
    """Yield the file that a .data file names as `names`, else as `labels`; nothing where it names none.

    Raises DarknetParseError where the file is not there.
    """
    options = data_options(expect_own(data, *named, option="--labels"))
    for name in ("names", "labels"):
        if name in options:
            value, line = options[name]
            yield _found(value, named, DarknetParseError(_MISSING.format(name, value), path=data, line=line))
            return


_MISSING = "{}={}: there is no such file beside the cfg or the weights. Name the labels with --labels FILE"


def beside(section: Section, name: str, weights: Path) -> Path | None:
    """Return the file that a cfg's option names, None where it names none.

    Darknet looks from the folder that it is started in: that of the weights as a rule, or of their project.
    Raises DarknetParseError where the file is not there, or is not the model's own.
    """
    value = section.text(name, "")
    if not value:
        return None
    cfg = Path(section.path)
    missing = section.error(f"{name}={value}: there is no such file beside the cfg or the weights", name)
    return _found(value, (weights, cfg), missing)


def _found(value: str, named: tuple[Path, Path], missing: DarknetParseError) -> Path:
    """Return a file as it is named from the folder of the weights, of the cfg or of their project, or by its last name.

    What is no file of the model's own is as good as missing: nobody learns whether it is there.
    """
    folders = dict.fromkeys([*(file.parent for file in named), *_below(project_of(named[0]), "", DATA)])
    for name in dict.fromkeys((value, Path(value).name)):
        for folder in folders:
            try:
                if name and "\0" not in name and is_own(folder / name, *named) and (folder / name).is_file():
                    return folder / name
            except OSError:  # a name that no file can have
                continue
    raise missing
