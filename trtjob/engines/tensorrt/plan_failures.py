"""Plans that cannot be built: remembered for an hour, so that not every worker process takes a minute to find out.

What may pass is tried twice within that hour.
"""

import logging
import time
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from trtjob import atomic
from trtjob.documents import Document
from trtjob.errors import EngineError

log = logging.getLogger(__name__)

HOLDS_S = 3600.0
MOST_TRIES = 2
SUFFIX = ".failed"


class PassingBuildError(EngineError):
    """A build failed for what may be over at the next try: a lack of memory or of room, an end from outside."""


class Failure(Document):
    """What stands beside where the plan would. model: its sha256; failed_at: seconds since the epoch; tries: those that
    count, all of them where another would be in vain."""

    model: str
    reason: str
    failed_at: float
    tries: int = MOST_TRIES

    @property
    def age_s(self) -> float:
        return time.time() - self.failed_at

    @property
    def holds(self) -> bool:
        return 0 <= self.age_s < HOLDS_S


def remember(path: Path, model: str, error: EngineError) -> None:
    """Write down why a plan cannot be built; where that fails, the next process finds out by itself."""
    earlier = _read(path)
    tried = earlier.tries if earlier is not None and earlier.holds else 0
    tries = tried + 1 if isinstance(error, PassingBuildError) else MOST_TRIES
    failure = Failure(model=model, reason=str(error), failed_at=time.time(), tries=tries)
    try:
        atomic.write(path, failure.model_dump_json(indent=1).encode(), sync=False)
    except OSError as err:
        log.debug("the failure of a build cannot be kept", extra={"path": str(path), "error": str(err)})


def check(path: Path) -> None:
    """Raise EngineError where the plan could not be built within the last hour, with the reason of then."""
    failure = _read(path)
    if failure is not None and failure.holds and failure.tries >= MOST_TRIES:
        raise EngineError(
            f"{failure.reason} (found {failure.age_s / 60:.0f} min ago, and tried again after an hour, "
            "or at once by: trtjob models build NAME)"
        )


def _read(path: Path) -> Failure | None:
    try:
        return Failure.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def forget(path: Path) -> None:
    """Let the next process try again."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def forget_all(folder: Path, model: str) -> None:
    """Forget what is known of a model, by its sha256."""
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError, ValidationError):
            if Failure.model_validate_json(path.read_bytes()).model == model:
                path.unlink()
