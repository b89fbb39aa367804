"""How child processes are called: none imports from the folder that we happen to stand in, or inherits a secret that it
has no use for."""

import os
import re
import sys
from collections.abc import Mapping
from types import MappingProxyType

# What its name says to be a secret: of trtjob itself, and of whatever else runs beside it.
_SECRET = re.compile("SECRET|TOKEN|PASSW|CREDENTIAL|AUTH|KEY", re.IGNORECASE)
# Our settings travel in a child's config. Its own look at the file of them must find the same one.
_OURS, _CONFIG = "TRTJOB_", "TRTJOB_CONFIG"
_BUCKETS = "AWS_"

# For a process through which large pictures go, one after another: it keeps the memory of one for the next. Given back
# to the kernel each time, as glibc would, it costs as many page faults as it has pages, and half as long as decoding.
KEEPS_MEMORY = MappingProxyType(
    {
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the most that glibc takes
        "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    }
)

# Pydantic would look through all packages that are installed, in each process, for plugins of its own.
NO_PLUGINS = MappingProxyType({"PYDANTIC_DISABLE_PLUGINS": "__all__"})


def python(*arguments: str) -> list[str]:
    """Return the command that runs this Python with these arguments; every child that is Python is called so."""
    return [sys.executable, "-P", *arguments]


def environment(more: Mapping[str, str] = MappingProxyType({}), *, buckets: bool = False) -> dict[str, str]:
    """Return what a child inherits, and more variables.

    buckets: the child reads and writes buckets, so that it needs what leads to them.
    """
    kept = {name: value for name, value in os.environ.items() if _is_needed(name, buckets=buckets)}
    return {**kept, **NO_PLUGINS, **more}


def _is_needed(name: str, *, buckets: bool) -> bool:
    if name.startswith(_BUCKETS):
        return buckets
    return name == _CONFIG if name.startswith(_OURS) else not _SECRET.search(name)
