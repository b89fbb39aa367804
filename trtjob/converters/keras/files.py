"""Find the files of a Keras or TensorFlow model."""

from pathlib import Path

from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import SAVED_MODEL
from trtjob.errors import ConversionError


def files(request: ConversionRequest) -> tuple[Path, ...]:
    """Return the model's files, all of a SavedModel's folder, and the labels where they are given.

    Raises ConversionError where a folder cannot be listed.
    """
    model = saved_model_folder(request.model)
    labels = () if request.labels is None else (request.labels,)
    return (*(_files_below(model) if model is not None else [request.model]), *labels)


def saved_model_folder(path: Path) -> Path | None:
    """Return the folder of the SavedModel that a path means, the folder's own or its file's; None where it is none."""
    if path.name == SAVED_MODEL:
        return path.parent
    return path if path.is_dir() else None


def _files_below(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError as err:
        raise ConversionError(f"'{folder}' cannot be listed: {err.strerror}") from err
