"""Where a network comes from, as its layers tell, and so what it expects of a pixel."""

from typing import Any

from trtjob.converters.keras.functional import layers_of

# Names of layers that keras.applications gives to a family of networks, all of which are there, and the mode of its
# preprocess_input (keras/src/applications: the module of each family). The first that fits counts.
_FAMILIES: tuple[tuple[str, frozenset[str], str], ...] = (
    ("Xception", frozenset({"block1_conv1_bn", "block14_sepconv2"}), "tf"),
    ("VGG", frozenset({"block1_conv1", "block1_pool", "block5_conv3"}), "caffe"),
    ("DenseNet", frozenset({"conv1_conv", "conv2_block1_concat", "pool4_conv"}), "torch"),
    ("ResNetV2", frozenset({"conv1_conv", "conv2_block1_preact_bn", "post_bn"}), "tf"),
    ("ResNet", frozenset({"conv1_conv", "conv1_bn", "conv2_block1_out"}), "caffe"),
    ("MobileNetV2", frozenset({"Conv1", "expanded_conv_depthwise", "Conv_1"}), "tf"),
    ("MobileNet", frozenset({"conv1", "conv_dw_1", "conv_pw_13"}), "tf"),
    ("InceptionResNetV2", frozenset({"mixed_5b", "mixed_6a", "conv_7b"}), "tf"),
    ("InceptionV3", frozenset({"mixed0", "mixed10"}), "tf"),
    ("NASNet", frozenset({"stem_conv1", "stem_bn1"}), "tf"),
)
_PREPARES_ITSELF = frozenset({"Rescaling", "Normalization"})
_LEAVES_PIXELS = frozenset({"ActivityRegularization", "Dropout", "GaussianNoise", "Identity", "Sequential"})


def mode_of(model: Any) -> tuple[str, str] | None:
    """Return what a model expects of a pixel, as a name of `--preprocess`, and why; None where it does not show."""
    layers = list(layers_of(model))
    first = next((kind for layer in layers if not _leaves_pixels(kind := type(layer).__name__)), "")
    if first in _PREPARES_ITSELF:
        return "none", f"it begins with a layer {first}"
    names = {layer.name for layer in layers}
    if first not in {"Conv2D", "ZeroPadding2D"}:  # some operation on pixels comes first
        return None
    for family, marks, mode in _FAMILIES:
        if marks <= names:
            return mode, f"its layers are those of keras.applications' {family}"
    return None


def _leaves_pixels(kind: str) -> bool:
    return kind in _LEAVES_PIXELS or kind.startswith("Random")
