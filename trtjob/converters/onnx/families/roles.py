"""Which of a graph's outputs is which: by its exporter's names, else by their kinds, for people change names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.onnx.families.family import Arrays, Seen

Kind = Callable[[NDArray[Any]], bool]


def are_boxes(array: NDArray[Any]) -> bool:
    return array.ndim == 3 and array.shape[2] == 4 and not are_integers(array)


def are_scores(array: NDArray[Any]) -> bool:
    """Tell whether there is a number for each box."""
    return array.ndim == 2 and not are_integers(array)


def are_class_ids(array: NDArray[Any]) -> bool:
    return array.ndim == 2 and are_integers(array)


def are_several_class_ids(array: NDArray[Any]) -> bool:
    """Tell them from the number of boxes, which stands beside them."""
    return are_class_ids(array) and array.shape[1] > 1


def are_logits(array: NDArray[Any]) -> bool:
    """Tell whether there is a number for each class of each box."""
    return array.ndim == 3 and not are_integers(array)


def are_logits_and_no_boxes(array: NDArray[Any]) -> bool:
    return are_logits(array) and array.shape[2] != 4


def are_integers(array: NDArray[Any]) -> bool:
    return bool(np.issubdtype(array.dtype, np.integer))


@dataclass(frozen=True, slots=True)
class Roles:
    """A family's outputs. kinds: by the names of its exporter; unnamed: narrower kinds, where names do not tell."""

    kinds: Mapping[str, Kind]
    unnamed: Mapping[str, Kind] = field(default_factory=dict)

    def are_named(self, seen: Seen) -> bool:
        return seen.names >= self.kinds.keys()

    def fit(self, seen: Seen) -> bool:
        """Tell whether each role has its output, none has two, and all are of as many boxes."""
        found = self._found(seen)
        return found is not None and len({seen.outputs[name].shape[:2] for name in found.values()}) == 1

    def names(self, seen: Seen) -> list[str]:
        """Return the outputs' names in the graph, in the order of the roles."""
        found = self._found(seen)
        assert found is not None
        return [found[role] for role in self.kinds]

    def arrays(self, outputs: Arrays, seen: Seen) -> list[NDArray[Any]]:
        """Return the outputs themselves, in the order of the roles."""
        return [outputs[name] for name in self.names(seen)]

    def _found(self, seen: Seen) -> dict[str, str] | None:
        if self.are_named(seen):
            named = {role: seen.named(role) for role in self.kinds}
            return named if all(is_one(seen.outputs[named[role]]) for role, is_one in self.kinds.items()) else None
        found = {}
        for role, is_one in (dict(self.kinds) | dict(self.unnamed)).items():
            fitting = [name for name, array in seen.outputs.items() if is_one(array)]
            if len(fitting) != 1:
                return None
            (found[role],) = fitting
        return found if len(set(found.values())) == len(found) else None
