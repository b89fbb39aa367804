"""TensorFlow's functions that a Keras 2 model may call: what `x / 127.5` or `tf.image.resize(x, ...)` left in it.

Each computes its result from its arguments and does nothing else.
"""

# The layers that Keras 2 made of a call of a function.
FUNCTIONS_OF_TENSORFLOW = frozenset({"TFOpLambda", "SlicingOpLambda"})
_FIRST_VERSION = "compat.v1."
_LONG_MODULES = ("math.", "nn.")  # whose functions have a short name, too

# By the module below `tf.` that has them.
_NAMES = {
    "__operators__.": """
        add eq getitem ne
    """,
    "": """
        argmax batch_to_space broadcast_to cast clip_by_value concat convert_to_tensor einsum expand_dims gather
        gather_nd identity matmul norm one_hot ones_like pad rank repeat reshape reverse roll shape size slice
        space_to_batch split squeeze stack stop_gradient strided_slice tensordot tile transpose unstack where
        zeros_like
    """,
    "math.": """
        abs acos add add_n argmax argmin asin atan atan2 ceil cos cumsum divide divide_no_nan equal erf exp expm1
        floor floordiv floormod greater greater_equal is_nan l2_normalize less less_equal log log1p log_sigmoid
        logical_and logical_not logical_or maximum minimum mod multiply multiply_no_nan negative not_equal pow
        reciprocal reduce_all reduce_any reduce_euclidean_norm reduce_logsumexp reduce_max reduce_mean reduce_min
        reduce_prod reduce_std reduce_sum reduce_variance round rsqrt scalar_mul sigmoid sign sin softmax softplus
        sqrt square squared_difference subtract tan tanh top_k truediv
    """,
    "nn.": """
        avg_pool avg_pool2d batch_normalization bias_add conv2d depth_to_space depthwise_conv2d elu gelu
        l2_normalize leaky_relu local_response_normalization log_softmax lrn max_pool max_pool2d moments normalize
        relu relu6 selu sigmoid silu softmax softplus softsign space_to_depth swish tanh top_k
    """,
    "image.": """
        adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation central_crop convert_image_dtype
        crop_and_resize crop_to_bounding_box flip_left_right flip_up_down grayscale_to_rgb hsv_to_rgb
        pad_to_bounding_box per_image_standardization resize resize_with_crop_or_pad resize_with_pad
        rgb_to_grayscale rgb_to_hsv rgb_to_yuv rot90 transpose yuv_to_rgb
    """,
    "linalg.": """
        einsum l2_normalize matmul matrix_transpose norm normalize tensordot
    """,
}
_ALLOWED = frozenset(module + name for module, names in _NAMES.items() for name in names.split())
# Of the first version some were called without their module.
_ALLOWED |= frozenset(_NAMES["math."].split())


def is_allowed(function: object) -> bool:
    """Tell whether a name, below `tf.`, is that of a function that does nothing but compute."""
    return isinstance(function, str) and function.removeprefix(_FIRST_VERSION) in _ALLOWED


def short_name(function: str) -> str:
    """Return a function's name without the modules that it is called with or without.

    >>> short_name("compat.v1.math.truediv"), short_name("nn.relu6"), short_name("image.resize")
    ('truediv', 'relu6', 'image.resize')
    """
    for prefix in (_FIRST_VERSION, *_LONG_MODULES):
        function = function.removeprefix(prefix)
    return function
