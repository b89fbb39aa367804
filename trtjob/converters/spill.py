"""Constants on the disk while a model is converted, so that memory holds its weights once: in the original.

A constant there is a TensorProto with external data, as ONNX has it, in a file of our own that goes with the process.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

SPILLED_BYTES = 1 << 20  # smaller constants stay in memory
_CHUNK_BYTES = 16 << 20


class Spill:
    """A file of constants. It is there for as long as this is."""

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="trtjob-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._path = Path(folder) / "constants"
        self._size = 0

    def tensor(self, array: NDArray[Any], name: str) -> TensorProto:
        """Write an array, of any layout, and return the constant."""
        tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        place = {"location": str(self._path), "offset": str(self._size), "length": str(array.nbytes)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
        with self._path.open("ab") as file:
            for rows in _by_rows(array):
                file.write(np.ascontiguousarray(rows).data)
        self._size += array.nbytes
        return tensor


def is_spilled(tensor: TensorProto) -> bool:
    """Tell whether a constant's numbers lie on the disk."""
    return tensor.data_location == TensorProto.EXTERNAL


def without_numbers(tensor: TensorProto) -> TensorProto:
    """Return a spilled constant as it will be, without its numbers."""
    return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)


def length_of(tensor: TensorProto) -> int:
    """Return how many bytes a spilled constant's numbers take."""
    return int(_place(tensor)["length"])


def numbers_of(tensor: TensorProto) -> Iterator[bytes]:
    """Yield a spilled constant's numbers, piece by piece."""
    place, left = _place(tensor), length_of(tensor)
    with Path(place["location"]).open("rb") as file:
        file.seek(int(place["offset"]))
        while left:
            data = file.read(min(left, _CHUNK_BYTES))
            left -= len(data)
            yield data


def folder_of(model: ModelProto) -> Path | None:
    """Return the folder where a model's large constants lie; None where they are in it."""
    spilled = next(filter(is_spilled, model.graph.initializer), None)
    return None if spilled is None else Path(_place(spilled)["location"]).parent


def linked(model: ModelProto) -> ModelProto:
    """Return a copy of a model that can be read in the folder of its constants."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in filter(is_spilled, copy.graph.initializer):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = Path(entry.value).name
    return copy


def gather(model: ModelProto) -> None:
    """Take all constants of a model into memory, in place."""
    for tensor in filter(is_spilled, model.graph.initializer):
        whole = without_numbers(tensor)
        whole.raw_data = b"".join(numbers_of(tensor))
        tensor.CopyFrom(whole)


def _place(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _by_rows(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
