"""Every error that a caller of trtjob meets.

    TrtjobError
    ├── ConfigError               a wrong option, argument or setting (exit code 2)
    ├── MissingDependencyError    an optional package is not installed
    ├── ConversionError           a foreign model cannot be converted
    │   ├── DarknetParseError     a cfg or names file cannot be understood: .path, .line
    │   └── DarknetWeightsError   a weights file does not fit its cfg: .layer
    ├── ModelError                a model file or registry entry is missing or is not one of ours
    │   └── ForeignModelError     an ONNX file was made elsewhere: it can be converted
    ├── EngineError               an engine cannot be loaded or fails
    │   ├── EngineInputError      a batch does not fit the engine
    │   ├── DeviceMemoryError     a GPU has too little memory left
    │   └── DeviceLostError       a GPU's context is broken: the process must end
    ├── QueueError                the queue's server cannot be started or reached
    ├── StorageError              a place cannot be listed, read or written
    │   └── PlaceError            a folder is not there on this machine, or stands still
    ├── JobError                  a job cannot be submitted, changed or read: .job_id
    │   ├── UnknownJobError       no job has this id
    │   ├── UnknownImageError     a job has no such image; also a KeyError: .image
    │   └── ForeignJobError       a job was submitted by another version of trtjob
    ├── WaitTimeoutError          a job that is waited for goes on; also a TimeoutError: .job_id
    ├── TooManyFailures           a job's `max_failures` is reached
    └── ImageError                one image cannot be processed: .kind

A message says what happened, with the value and the place; what was expected; and what the user can do.
"""

from enum import StrEnum
from pathlib import Path
from typing import ClassVar


class TrtjobError(Exception):
    """The root: the command line prints its message as one line and exits with `exit_code`."""

    exit_code: ClassVar[int] = 1


class ConfigError(TrtjobError):
    """A wrong option, argument or setting."""

    exit_code = 2


class MissingDependencyError(TrtjobError):
    """An optional package is not installed; the message names the extra that brings it.

    gpu_extra: the one that brings it for NVIDIA GPUs, where that is another one.
    """

    def __init__(self, package: str, *, extra: str, gpu_extra: str = "") -> None:
        for_gpus = f", or for an NVIDIA GPU: pip install 'trtjob[{gpu_extra}]'" if gpu_extra else ""
        super().__init__(
            f"the package '{package}' is not installed. Install it with: pip install 'trtjob[{extra}]'{for_gpus}"
        )
        self.package = package
        self.extra = extra


class ConversionError(TrtjobError):
    """A foreign model cannot be converted."""


class DarknetParseError(ConversionError):
    """A cfg or names file cannot be understood; `line` counts from 1, 0 for the whole file."""

    def __init__(self, message: str, *, path: Path | str = "<cfg>", line: int = 0) -> None:
        place = f"{path}:{line}" if line else str(path)
        super().__init__(f"{place}: {message}")
        self.path = path
        self.line = line


class DarknetWeightsError(ConversionError):
    """A weights file does not fit its cfg; `layer` is the section's number, counted as Darknet does (from 0)."""

    def __init__(self, message: str, *, layer: int | None = None) -> None:
        super().__init__(message)
        self.layer = layer


class ModelError(TrtjobError):
    """A model file or registry entry is missing or is not one of ours."""

    exit_code = 2


class ForeignModelError(ModelError):
    """An ONNX file was made elsewhere: it carries no description of ours, and can be converted."""


class EngineError(TrtjobError):
    """An engine cannot be loaded or fails."""


class EngineInputError(EngineError):
    """A batch does not fit the engine."""


class DeviceMemoryError(EngineError):
    """A GPU has too little memory left; a smaller batch may fit."""


class DeviceLostError(EngineError):
    """A GPU's context is broken, for good: only a new process can use the GPU again."""


class QueueError(TrtjobError):
    """The queue's server cannot be started or reached."""


class StorageError(TrtjobError):
    """A place cannot be listed, read or written."""


class PlaceError(StorageError):
    """A source or an output is not there on this machine, or does not answer: as a rule it is not mounted, for now."""


class JobError(TrtjobError):
    """A job cannot be submitted, changed or read."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class UnknownJobError(JobError):
    """No job has this id."""

    exit_code = 2

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job '{job_id}'. List the jobs with: trtjob status", job_id=job_id)


class UnknownImageError(JobError, KeyError):
    """A job has no image of this name."""

    def __init__(self, image: str, *, job_id: str) -> None:
        super().__init__(f"job '{job_id}' has no image {image!r}", job_id=job_id)
        self.image = image

    def __str__(self) -> str:  # a KeyError shows its message in quotes
        return str(self.args[0])


class ForeignJobError(JobError):
    """A job was submitted by another version of trtjob, whose description this one does not understand."""

    def __init__(self, job_id: str, version: str = "") -> None:
        """version: the one that submitted it, as far as that is known."""
        theirs = f"another version of trtjob ({version})" if version else "another version of trtjob"
        super().__init__(
            f"the job '{job_id}' was submitted by {theirs}, and this one cannot read it. "
            "Use that version for it, or submit the job again to another output",
            job_id=job_id,
        )


class WaitTimeoutError(TrtjobError, TimeoutError):
    """A job has not ended in the time for which it was waited for, and goes on."""

    def __init__(self, job_id: str, timeout_s: float) -> None:
        super().__init__(f"job '{job_id}' has not ended after {timeout_s:g} s, and goes on")
        self.job_id = job_id


class TooManyFailures(TrtjobError):
    """A job's `max_failures` is reached: it ends, whoever works on it."""


class FailureKind(StrEnum):
    """Why an image has an error record instead of a result."""

    MISSING = "missing"  # listed, but gone when it was read
    READ = "read"  # there, but its bytes cannot be had
    DECODE = "decode"  # the bytes are no image that we understand
    TOO_LARGE = "too_large"  # more pixels than TRTJOB_MAX_PIXELS
    INFER = "infer"
    DRAW = "draw"
    WRITE = "write"
    CRASHED = "crashed"  # it ended its image process, or hung in it


class ImageError(TrtjobError):
    """One image cannot be processed; it gets an error record and the others go on.

    kind: why; sha256: of the file's bytes, where they were read.
    """

    def __init__(self, kind: FailureKind, message: str, sha256: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.sha256 = sha256
