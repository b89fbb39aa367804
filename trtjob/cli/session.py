"""How a command begins: with its settings and its log."""

import logging
from typing import TYPE_CHECKING

from trtjob.api.session import WorkerOptions, settings_for

if TYPE_CHECKING:
    from trtjob.config import Settings

log = logging.getLogger(__name__)


def start(workers: WorkerOptions | None = None, *, http: str | None = None, quiet: bool = True) -> "Settings":
    """Read the settings, with the command's own over them, and set the log up. quiet: as of `settings_for`."""
    from trtjob.config import strange_variables
    from trtjob.logs import configure_logging

    settings = settings_for(workers, http=http, quiet=quiet)
    configure_logging(settings.log_level, settings.log_format)
    for said in strange_variables():
        log.warning(said)
    return settings
