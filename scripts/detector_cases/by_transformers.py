"""transformers' detectors, by torch.onnx with the names and open sizes that optimum gives them.

(optimum-onnx, exporters/onnx/model_configs.py: DetrOnnxConfig, RTDetrOnnxConfig and others.)
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from scripts.detector_cases.case import CONF, LABELS, Found, Made, Maker, make_sure, revive

SIDE = 128
_WHOLE = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_layers": 1, "decoder_layers": 2}
_BACKBONE: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
_OF_RTDETR: dict[str, Any] = {
    **{"d_model": 32, "encoder_hidden_dim": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 40},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_layers": 2},
    **{"encoder_in_channels": [16, 24, 32], "decoder_in_channels": [32, 32, 32], "anchor_image_size": None},
}
_OF_DETR = {**_WHOLE, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_queries": 30}
_STRETCHED = {"do_normalize": False, "size": {"height": SIDE, "width": SIDE}}
_EDGES = {"size": {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}}

# By its architecture: the configuration, its processor, and what that is told.
NETWORKS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "RTDetrV2": ("RTDetrV2Config", _OF_RTDETR, "RTDetrImageProcessor", _STRETCHED),
    "DFine": ("DFineConfig", _OF_RTDETR, "RTDetrImageProcessor", _STRETCHED),
    "ConditionalDetr": ("ConditionalDetrConfig", _OF_DETR, "ConditionalDetrImageProcessor", _EDGES),
    "DeformableDetr": ("DeformableDetrConfig", _OF_DETR, "DeformableDetrImageProcessor", _EDGES),
    "Yolos": (
        "YolosConfig",
        {
            **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32},
            **{"image_size": [SIDE, 192], "num_detection_tokens": 30, "use_mid_position_embeddings": False},
        },
        "YolosImageProcessor",
        _EDGES,
    ),
}


def cases() -> Iterator[tuple[str, Maker]]:
    for name in NETWORKS:
        yield f"hf_{name.lower()}", partial(_made, name)


def _made(name: str, folder: Path, images: Mapping[str, NDArray[np.uint8]]) -> Made:
    config_name, sizes, processor_name, told = NETWORKS[name]
    names = dict(enumerate(LABELS))
    if name == "Yolos":
        config = transformers.YolosConfig(**sizes, id2label=names)
    else:
        backbone = transformers.RTDetrResNetConfig(**_BACKBONE)
        config = getattr(transformers, config_name)(
            **sizes, backbone_config=backbone, backbone=None, use_pretrained_backbone=False, id2label=names
        )
    model = getattr(transformers, f"{name}ForObjectDetection")(config).eval()
    processor = getattr(transformers, processor_name)(**told)
    pictures = [Image.fromarray(image) for image in images.values()]
    fed = [processor(picture, return_tensors="pt")["pixel_values"] for picture in pictures]

    def run() -> None:
        for pixels in fed:
            model(pixel_values=pixels)

    revive(model, run, seed=len(name))
    for layer in _heads(model, config):
        make_sure(layer, run)
    model.save_pretrained(folder)  # config.json
    (folder / "model.safetensors").unlink()
    processor.save_pretrained(folder)
    _export(model, fed[0], folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    found = {}
    for (key, image), pixels in zip(images.items(), fed, strict=True):
        if pixels.shape[2:] != fed[0].shape[2:]:
            continue  # the conversion has one size
        with torch.no_grad():
            outputs = model(pixel_values=pixels)
        # Random weights magnify what an export rounds otherwise: the file is the model, its owner's code reads it.
        logits, boxes = (torch.from_numpy(array) for array in session.run(None, {"pixel_values": pixels.numpy()}))
        off = max(float((a - b).abs().max()) for a, b in ((logits, outputs.logits), (boxes, outputs.pred_boxes)))
        print(f"{name}: the file is up to {off:.2g} off PyTorch")
        outputs.logits, outputs.pred_boxes = logits, boxes
        (said,) = processor.post_process_object_detection(
            outputs, threshold=CONF, target_sizes=[(image.shape[0], image.shape[1])]
        )
        found[key] = Found(said["boxes"].numpy(), said["scores"].numpy(), said["labels"].numpy())
    exporter = f"transformers {transformers.__version__} {name}ForObjectDetection"
    return Made(exporter, LABELS, found, {"input_hw": list(fed[0].shape[2:])})


def _heads(model: torch.nn.Module, config: Any) -> list[torch.nn.Linear]:
    """Return the last layers that give logits of classes."""
    count = config.num_labels
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module.out_features in (count, count + 1)
        and any(word in name for word in ("class", "score"))
    ]


class _AsOptimum(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        said = self.model(pixel_values=pixel_values)
        return said.logits, said.pred_boxes


def _export(model: torch.nn.Module, pixels: torch.Tensor, path: Path) -> None:
    open_sizes = {0: "batch_size", 1: "num_channels", 2: "height", 3: "width"}
    torch.onnx.export(
        _AsOptimum(model),
        (pixels,),
        str(path),
        opset_version=16,
        dynamo=False,
        input_names=["pixel_values"],
        output_names=["logits", "pred_boxes"],
        dynamic_axes={
            "pixel_values": open_sizes,
            "logits": {0: "batch_size", 1: "num_queries"},
            "pred_boxes": {0: "batch_size", 1: "num_queries"},
        },
    )
