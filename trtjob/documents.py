"""What every document is that is read from a file, a server or a process: checked as it is read, and never changed."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Document(BaseModel):
    """The base of a document and of its parts. What it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def problems(err: ValidationError) -> str:
    """Return what is wrong with a document, in one line."""
    return "; ".join(": ".join([*map(str, problem["loc"]), problem["msg"]]) for problem in err.errors())
