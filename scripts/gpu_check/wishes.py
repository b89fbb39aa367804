"""What to check with."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "digits" / "digits.weights"
SCENES = SAMPLE.parent / "scenes"


@dataclass(frozen=True, slots=True)
class Wishes:
    """models: files to measure with, converted on first use; images: a folder that they find something in, None for
    generated ones; seconds: for each figure; home: where models and plans are kept."""

    models: tuple[Path, ...]
    images: Path | None
    seconds: float
    home: Path

    def arguments(self) -> list[str]:
        """Return them as a child process takes them."""
        named = [part for model in self.models for part in ("--model", str(model))]
        images = [] if self.images is None else ["--images", str(self.images)]
        return [*named, *images, "--seconds", str(self.seconds), "--home", str(self.home)]
