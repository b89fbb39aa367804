"""What to check with."""

from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "digits" / "digits.weights"
SCENES = SAMPLE.parent / "scenes"


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """home: where models and plans are kept; seconds: for each figure; builders: plans that are built at once.

    official: YOLOv3-tiny's weights, its cfg and names beside them; models: the folder of scripts/gpu_models/ahead.py;
    images: photographs; darknet: Darknet's own results; keras_python: a Python with Keras and PyTorch or JAX;
    keras_path: a folder of packages or wheels for it; ultralytics_python, ultralytics_path: likewise, of Ultralytics,
    whose path must bring what trtjob needs too; None: not at hand. variants: NAME@PRECISION of those models that are
    built and timed; none: all.
    """

    home: Path
    seconds: float = 2.0
    builders: int = 4
    is_quick: bool = False
    is_built: bool = False
    levels: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    variants: tuple[str, ...] = ()
    official: Path | None = None
    models: Path | None = None
    images: Path | None = None
    darknet: Path | None = None
    keras_python: Path | None = None
    keras_path: Path | None = None
    ultralytics_python: Path | None = None
    ultralytics_path: Path | None = None

    def arguments(self) -> list[str]:
        """Return them as a child process takes them."""
        found: list[str] = []
        for field in fields(self):
            value, option = getattr(self, field.name), OPTIONS[field.name]
            if value is True:
                found.append(option)
            elif isinstance(value, tuple) and value:
                found += [option, *map(str, value)]
            elif value not in (None, False, ()):
                found += [option, str(value)]
        return found


OPTIONS = {
    "home": "--home",
    "seconds": "--seconds",
    "builders": "--builders",
    "is_quick": "--quick",
    "is_built": "--only-built",
    "levels": "--levels",
    "variants": "--variants",
    "official": "--yolov3-tiny",
    "models": "--models",
    "images": "--images",
    "darknet": "--darknet",
    "keras_python": "--keras-python",
    "keras_path": "--keras-path",
    "ultralytics_python": "--ultralytics-python",
    "ultralytics_path": "--ultralytics-path",
}
