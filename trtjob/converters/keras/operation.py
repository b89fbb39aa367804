"""What Keras 2 had and Keras 3 has not. Imports Keras and TensorFlow: import it where it is needed."""

from operator import attrgetter
from typing import Any

import keras
import tensorflow

from trtjob.converters.keras.functions import is_allowed
from trtjob.converters.keras.modern import OLD_HARD_SIGMOID
from trtjob.converters.keras.safety import FUNCTION_OF_TENSORFLOW


class TensorFlowFunction(keras.Operation):  # type: ignore[misc]
    """One of the functions that `functions` allows; function: its name below `tf.`."""

    def __init__(self, function: str, name: str | None = None) -> None:
        super().__init__(name=name)
        if not is_allowed(function):
            raise ValueError(f"the function {function!r} of TensorFlow is not allowed")
        self.function = function
        self._call = attrgetter(function)(tensorflow)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


def hard_sigmoid_of_keras_2(x: Any) -> Any:
    """0.2 x + 0.5 between 0 and 1; of Keras 3 its slope is 1/6."""
    return tensorflow.clip_by_value(0.2 * x + 0.5, 0, 1)


KNOWN = {
    FUNCTION_OF_TENSORFLOW: TensorFlowFunction,
    OLD_HARD_SIGMOID: hard_sigmoid_of_keras_2,
}
