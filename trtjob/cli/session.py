"""How a command begins: with its settings and its log."""

from typing import TYPE_CHECKING

from trtjob.api.session import WorkerOptions, settings_for

if TYPE_CHECKING:
    from trtjob.config import Settings


def start(workers: WorkerOptions | None = None, *, http: str | None = None, quiet: bool = True) -> "Settings":
    """Read the settings, with the command's own over them, and set the log up. quiet: as of `settings_for`."""
    from trtjob.logs import configure_logging

    settings = settings_for(workers, http=http, quiet=quiet)
    configure_logging(settings.log_level, settings.log_format)
    return settings
