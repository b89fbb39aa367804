"""Look into a Keras file before Keras does: what it holds, and whether its sizes can be."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtjob.converters.texts import one_line, shown
from trtjob.errors import ConversionError, MissingDependencyError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"  # members of a .keras file
_METADATA = "metadata.json"
# Weights hardly shrink, so what claims to be this many times larger than its file is damaged or means harm.
_MOST_EXPANSION = 4
_SMALL_BYTES = 1_000_000  # a file of text may shrink more
_MOST_DEPTH = 64  # of groups inside groups


@dataclass(frozen=True, slots=True)
class Archive:
    """What a Keras file holds. config: of the whole model, None where there are weights alone.

    weights: a file that Keras reads the weights from, known by its name; numbers: how many it holds at most;
    loss: what the model was trained with, as Keras describes it; version: of the Keras that wrote the file, perhaps "".
    """

    config: dict[str, Any] | None
    weights: Path
    numbers: int
    loss: Any = None
    version: str = ""


@contextmanager
def opened(path: Path, folder: Path) -> Iterator[Archive]:
    """Give what a file holds. folder: for parts of it, as long as they are needed. Raises ConversionError."""
    try:
        with path.open("rb") as file:
            is_hdf5 = file.read(len(_HDF5)) == _HDF5
        archive = _hdf5(path, folder) if is_hdf5 else _zip(path, folder)
    except (ConversionError, MissingDependencyError):
        raise
    except MemoryError as err:
        raise ConversionError(
            f"'{path}' needs more memory than there is, or is damaged and its sizes are wrong"
        ) from err
    except Exception as err:  # zipfile, zlib, json and h5py raise errors of many kinds for damage
        raise _damaged(path, one_line(err)) from err
    yield archive


def _damaged(path: Path, why: str) -> ConversionError:
    return ConversionError(f"'{path}' is damaged: {why}. Copy or save it again")


def _zip(path: Path, folder: Path) -> Archive:
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        raise ConversionError(
            f"'{path}' is no Keras file: it is neither a zip archive, as .keras is, nor HDF5, as .h5 is. "
            "Copy or save it again"
        )
    with zipfile.ZipFile(path) as file:
        members = {info.filename: info for info in file.infolist()}
        if missing := {_CONFIG, _WEIGHTS} - members.keys():
            raise ConversionError(
                f"'{path}' is no Keras file: it holds no {' and no '.join(sorted(missing))}. Save the whole model with "
                "model.save('model.keras')"
            )
        _expect_size(path, sum(info.file_size for info in members.values()), size)
        config = _parsed(path, file.read(_CONFIG))
        metadata = _parsed(path, file.read(_METADATA)) if _METADATA in members else {}
        weights = folder / _WEIGHTS
        with file.open(_WEIGHTS) as source, weights.open("wb") as target:
            shutil.copyfileobj(source, target)
    with _hdf5_file(weights) as root:
        numbers = _numbers(path, root, weights.stat().st_size)
    compiled = config.get("compile_config")
    loss = compiled.get("loss") if isinstance(compiled, dict) else None
    return Archive(config, weights, numbers, loss, str(metadata.get("keras_version", "")))


def _hdf5(path: Path, folder: Path) -> Archive:
    with _hdf5_file(path) as root:
        numbers = _numbers(path, root, path.stat().st_size)
        config = _parsed(path, root.attrs["model_config"]) if "model_config" in root.attrs else None
        training = _parsed(path, root.attrs["training_config"]) if "training_config" in root.attrs else {}
        version = root.attrs.get("keras_version", "")
        is_old = "layer_names" in root.attrs or "model_weights" in root
    # Keras goes by the name of the file, whatever is in it.
    weights = folder / ("old.h5" if is_old else "new.weights.h5")
    weights.unlink(missing_ok=True)
    weights.symlink_to(path.resolve())
    return Archive(config, weights, numbers, training.get("loss"), version if isinstance(version, str) else "")


def _hdf5_file(path: Path) -> Any:
    try:
        import h5py
    except ModuleNotFoundError as err:
        raise MissingDependencyError("h5py", extra="keras") from err
    return h5py.File(path, "r")


def _parsed(path: Path, text: Any) -> dict[str, Any]:
    if not isinstance(text, str | bytes):
        raise _damaged(path, "what describes the network is no text")
    config = json.loads(text)
    if not isinstance(config, dict):
        raise _damaged(path, "what describes the network is no JSON object")
    return config


def _expect_size(path: Path, claimed_bytes: int, size_bytes: int) -> None:
    if claimed_bytes > _MOST_EXPANSION * size_bytes + _SMALL_BYTES:
        raise _damaged(path, f"it claims to hold {claimed_bytes:,} bytes, but has {size_bytes:,}")


def _numbers(path: Path, root: Any, size_bytes: int) -> int:
    """Return how many numbers the arrays of an HDF5 file hold. Raises ConversionError where they cannot all be there.

    What points to another file is refused: a model is whole by itself.
    """
    numbers = claimed_bytes = 0
    for name, dataset in _datasets(path, root, 0):
        if dataset.external or dataset.is_virtual:
            raise ConversionError(f"'{path}': the array {shown(name)} lies in another file. Save the model as a whole")
        if dataset.dtype.kind not in "fiub":  # texts, of the layers' names and the like
            continue
        numbers += dataset.size
        claimed_bytes += dataset.size * dataset.dtype.itemsize
        _expect_size(path, claimed_bytes, size_bytes)
    return numbers


def _datasets(path: Path, group: Any, depth: int) -> Iterator[tuple[str, Any]]:
    import h5py

    if depth > _MOST_DEPTH:
        raise _damaged(path, "its groups lie too deep in one another")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ConversionError(f"'{path}': {shown(name)} is a link to something else. Save the model as a whole")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _datasets(path, item, depth + 1)
        elif isinstance(item, h5py.Dataset):
            yield name, item
