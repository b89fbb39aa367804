"""Functions that take the fields of a dataclass."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from trtjob.near import near

P = ParamSpec("P")
Request = TypeVar("Request")
T = TypeVar("T")


def taking_fields_of(kind: Callable[P, Request]) -> Callable[[Callable[[Request], T]], Callable[P, T]]:
    """Have a function of one request take what that is made of. A name that is not known is a TypeError.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Order:
    ...     what: str
    ...     count: int = 1
    >>> @taking_fields_of(Order)
    ... def place(order):
    ...     return f"{order.count} of {order.what}"
    >>> place("tea", count=2)
    '2 of tea'
    >>> place("tea", cuont=2)
    Traceback (most recent call last):
    TypeError: place() got an unexpected keyword argument 'cuont'. Is it count?
    """
    signature = inspect.signature(kind)

    def decorated(function: Callable[[Request], T]) -> Callable[P, T]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as err:
                unknown = [name for name in kwargs if name not in signature.parameters]
                meant = [known for name in unknown for known in near(name, signature.parameters)]
                hint = f". Is it {meant[0]}?" if meant else ""
                raise TypeError(f"{function.__name__}() {err}{hint}") from None
            return function(kind(*args, **kwargs))

        returned = inspect.signature(function).return_annotation
        called.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
        return called

    return decorated
