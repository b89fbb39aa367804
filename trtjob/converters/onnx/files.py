"""Find what belongs to an ONNX file: its labels, and the files beside it that hold its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trtjob.converters.own_files import expect_own
from trtjob.converters.request import ConversionRequest
from trtjob.engines.spec import METADATA_KEY

if TYPE_CHECKING:
    from onnx import ModelProto

NAMES_KEY = "names"  # of the metadata, where an exporter writes the labels


def files(request: ConversionRequest) -> tuple[Path, ...]:
    """Return the model, the files of its weights, and its labels' where it has any.

    Raises ModelError, ConversionError.
    """
    from trtjob.converters.onnx.read import read_model, refusing_damage

    with refusing_damage(request.model):
        return files_of_model(read_model(request.model), request)


def files_of_model(model: "ModelProto", request: ConversionRequest) -> tuple[Path, ...]:
    """Return the files of a model that has been read, without what lies in other files."""
    from trtjob.converters.onnx.external import external_files
    from trtjob.converters.onnx.huggingface import documents_beside
    from trtjob.converters.onnx.read import metadata_of

    metadata = metadata_of(model)
    labels = labels_file(request, metadata)
    documents = [] if METADATA_KEY in metadata else documents_beside(request.model)
    return request.model, *external_files(model, request.model), *([] if labels is None else [labels]), *documents


def labels_file(request: ConversionRequest, metadata: Mapping[str, str]) -> Path | None:
    """Return the file of the labels: the one that is asked for, else the `.names` beside a model that holds none."""
    if METADATA_KEY in metadata:
        return None
    if request.labels is not None:
        return request.labels
    beside = request.model.with_suffix(".names")
    if NAMES_KEY in metadata or not beside.is_file():
        return None
    return expect_own(beside, request.model, option="--labels")
