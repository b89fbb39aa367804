"""PaddleDetection's detectors, PP-YOLOE among them: class, score and corners of each box.

deploy/EXPORT_ONNX_MODEL_en.md and deploy/third_engine/onnx in PaddlePaddle/PaddleDetection. What it takes beside the
image is filled in so that boxes are pixels of the input.
"""

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import columns, padded, single
from trtjob.converters.onnx.outputs import Layout
from trtjob.converters.pixels import torch_pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode

_ORDER = (2, 3, 4, 5, 1, 0)


def _found(seen: Seen) -> str:
    """Return the name of the boxes' output; empty: there is none."""
    return next((name for name, array in seen.outputs.items() if array.ndim in (2, 3) and array.shape[-1] == 6), "")


def _fits(seen: Seen) -> bool:
    return bool(_found(seen))


def _describe(seen: Seen) -> Contract:
    guess = (
        "Pixels are taken less ImageNet's mean, by its deviation, as most of PaddleDetection's models want them. That "
        "is a guess: infer_cfg.yml says it; where it has no mean, use --preprocess unit."
    )
    return Contract(torch_pixels(), ResizeMode.STRETCH, is_final=True, guess=guess)


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    found = columns(graph, _found(seen), *_ORDER)
    is_flat = seen.outputs[_found(seen)].ndim == 2
    return padded(graph, found) if is_flat else Rewired(found, Layout.FINAL)


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    found = outputs[_found(seen)].reshape(1, -1, 6)
    return single(found[..., 2:], found[..., 1], found[..., 0], labels)


FAMILY = Family(
    name="paddle",
    title="PaddleDetection, PP-YOLOE",
    gives="[M, 6]: class, score and corners",
    needs="--labels, and what infer_cfg.yml says of pixels: --preprocess torch, or unit (PP-YOLOE+)",
    fits=_fits,
    recognises=lambda seen: _fits(seen) and "scale_factor" in seen.inputs,
    describe=_describe,
    classes=lambda _seen: 0,
    rewire=_rewire,
    read=_read,
)
