"""The opset that brought bf16, and the one before it, which a graph without bf16 is of just as well."""

from onnx import ModelProto

BF16_OPSET = 22  # the first in which convolutions take bfloat16


def as_before_bf16(model: ModelProto) -> None:
    """Say of a graph without bf16 that it is of the opset before, in place.

    Opset 22 adds types to operators and changes none; of some, such as RoiAlign, ONNX Runtime has the former alone.
    """
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version == BF16_OPSET:
            entry.version = BF16_OPSET - 1
