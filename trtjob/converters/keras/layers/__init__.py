"""Which layer becomes what: one small function each, by the class of Keras."""

from typing import Any

from trtjob.converters.keras.activations import ACTIVATIONS, activate, clip, softmax
from trtjob.converters.keras.layers import merge, normalization, operators, resize, shape
from trtjob.converters.keras.layers.convolution import conv2d, dense, depthwise_conv2d, separable_conv2d
from trtjob.converters.keras.layers.pooling import global_pooling2d, pooling2d
from trtjob.converters.keras.network import Network, Translate, Value, expect, weights_of


def _relu(net: Network, layer: Any, x: Value) -> Value:
    expect(not layer.threshold, "its threshold is not 0")
    if layer.negative_slope:
        expect(layer.max_value is None, "it has both a slope and an end")
        return net.add("LeakyRelu", x, alpha=float(layer.negative_slope))
    return net.add("Relu", x) if layer.max_value is None else clip(net, x, float(layer.max_value))


def _leaky_relu(net: Network, layer: Any, x: Value) -> Value:
    return net.add("LeakyRelu", x, alpha=float(layer.negative_slope))


def _elu(net: Network, layer: Any, x: Value) -> Value:
    return net.add("Elu", x, alpha=float(layer.alpha))


def _prelu(net: Network, layer: Any, x: Value) -> Value:
    alpha = weights_of(layer.alpha)
    expect(alpha.size == x.shape[-1], "its slopes are not one for each channel")
    return net.add("PRelu", x, net.per_channel(x, alpha, "slopes"))


def _softmax(net: Network, layer: Any, x: Value) -> Value:
    expect(layer.axis in {-1, len(x.shape)}, "its axis is not the last")
    return softmax(net, x)


_AT_RANDOM = (
    *(
        "Brightness",
        "ColorDegeneration",
        "ColorJitter",
        "Contrast",
        "ElasticTransform",
        "Erasing",
        "Flip",
        "GaussianBlur",
    ),
    *("Grayscale", "Hue", "Invert", "Perspective", "Posterization", "Rotation", "Saturation", "Sharpness", "Shear"),
    *("Translation", "Zoom"),
)
_IN_TRAINING_ALONE = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    *(f"Random{what}" for what in _AT_RANDOM),
    "SpatialDropout2D",
)

LAYERS: dict[str, Translate] = {
    **dict.fromkeys(_IN_TRAINING_ALONE, shape.nothing),
    "Activation": activate,
    "Add": merge.elementwise("Add"),
    "Average": merge.average,
    "AveragePooling2D": pooling2d("AveragePool", count_include_pad=0),
    "BatchNormalization": normalization.batch_normalization,
    "CenterCrop": resize.center_crop,
    "Concatenate": merge.concatenate,
    "Conv2D": conv2d,
    "Cropping2D": shape.cropping2d,
    "Dense": dense,
    "DepthwiseConv2D": depthwise_conv2d,
    "ELU": _elu,
    "Flatten": shape.flatten,
    "GlobalAveragePooling2D": global_pooling2d("GlobalAveragePool"),
    "GlobalMaxPooling2D": global_pooling2d("GlobalMaxPool"),
    "LayerNormalization": normalization.layer_normalization,
    "LeakyReLU": _leaky_relu,
    "Maximum": merge.elementwise("Max"),
    "MaxPooling2D": pooling2d("MaxPool"),
    "Minimum": merge.elementwise("Min"),
    "Multiply": merge.elementwise("Mul"),
    "Normalization": normalization.normalization,
    "PReLU": _prelu,
    "ReLU": _relu,
    "Rescaling": normalization.rescaling,
    "Reshape": shape.reshape,
    "Resizing": resize.resizing,
    "SeparableConv2D": separable_conv2d,
    "Softmax": _softmax,
    "Subtract": merge.elementwise("Sub"),
    "UpSampling2D": resize.upsampling2d,
    "ZeroPadding2D": shape.zero_padding2d,
}

_NUMPY, _NN = "keras.src.ops.numpy", "keras.src.ops.nn"
# What is called with numbers, and by name, too.
_OPERATIONS: dict[tuple[str, str], Translate] = {
    **{
        (_NUMPY, name.title().replace("_", "")): operators.operator(op)
        for name, op in operators.OPERATORS.items()
        if name != "truediv"
    },
    (_NUMPY, "GetItem"): operators.get_item,
    (_NUMPY, "Stack"): operators.stack,
    ("keras.src.ops.core", "Cast"): operators.cast,
    ("trtjob.converters.keras.operation", "TensorFlowFunction"): operators.tensorflow_function,
}
WITH_NUMBERS = frozenset(_OPERATIONS.values())

# Of modules other than keras.layers: two layers of keras.applications, and operators such as + between tensors.
OTHERS: dict[tuple[str, str], Translate] = {
    **_OPERATIONS,
    ("keras.src.applications.convnext", "LayerScale"): normalization.layer_scale,
    ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"): merge.custom_scale,
    **{(_NN, name): operators.unary(ACTIVATIONS[name.lower()]) for name in ("Relu", "Relu6", "Sigmoid", "Tanh")},
}

# Those that can take the batch normalisation behind them into their weights.
WITH_KERNEL = frozenset({"Conv2D", "Dense", "DepthwiseConv2D", "SeparableConv2D"})
