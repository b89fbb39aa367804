"""What every document is that is read from a file, a server or a process: checked as it is read, and never changed."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

_IN_WORDS = {
    "greater_than_equal": "expected {ge} or more",
    "greater_than": "expected more than {gt}",
    "less_than_equal": "expected {le} or less",
    "less_than": "expected less than {lt}",
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
    "string_pattern_mismatch": "expected what matches {pattern}",
    "value_error": "{error}",
    "missing": "it is missing",
    "extra_forbidden": "it is not known",
}
# By what the type's name begins with.
_KINDS = {
    "int": "expected a whole number",
    "float": "expected a number",
    "finite": "expected a number",
    "bool": "expected true or false",
    "string": "expected text",
    "path": "expected a path",
    "too_long": "expected at most {max_length} of them",
}


class Document(BaseModel):
    """The base of a document and of its parts. What it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def problems(err: ValidationError) -> str:
    """Return what is wrong with a document, in one line."""
    return "; ".join(": ".join([*map(str, problem["loc"]), in_words(problem)]) for problem in err.errors())


def in_words(problem: ErrorDetails) -> str:
    """Return what is wrong with one value, without a library's words where we have our own.

    >>> from pydantic import TypeAdapter
    >>> try:
    ...     TypeAdapter(int).validate_python("many")
    ... except ValidationError as err:
    ...     print(in_words(err.errors()[0]))
    expected a whole number
    """
    kind = problem["type"]
    words = _IN_WORDS.get(kind) or next((said for start, said in _KINDS.items() if kind.startswith(start)), "")
    context: dict[str, Any] = problem.get("ctx", {})
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    return words.format_map(shown) if words else problem["msg"]
