"""What the shell offers at the Tab key. It never starts a server and never fails."""

from pathlib import Path

MOST_OFFERED = 500


def model_names() -> list[str]:
    """Return the registered models, and nothing where there are none."""
    from trtjob.config import load_settings
    from trtjob.errors import TrtjobError

    try:
        names = load_settings().models_dir / "names"
    except TrtjobError:
        return []
    return sorted(path.stem for path in names.glob("*.json"))


def job_ids() -> list[str]:
    """Return the newest jobs, the newest first: as the server says where one runs, and those in the usual output."""
    return list(dict.fromkeys([*_known_jobs(), *_jobs_here()]))


def _jobs_here() -> list[str]:
    """Return the jobs whose folders lie in the usual output below the working directory: no server is needed."""
    from trtjob.api.job_request import DEFAULT_OUTPUT
    from trtjob.jobs.folder import JOB

    try:
        found = [(path.stat().st_mtime, path.parent.name) for path in Path(DEFAULT_OUTPUT).glob(f"*/{JOB}")]
    except OSError:
        return []
    return [name for _, name in sorted(found, reverse=True)[:MOST_OFFERED]]


def _known_jobs() -> list[str]:
    from redis import RedisError

    from trtjob.config import load_settings
    from trtjob.errors import TrtjobError
    from trtjob.queue.connection import Connection
    from trtjob.queue.embedded_server import EmbeddedServer
    from trtjob.queue.job_store import JobStore

    try:
        settings = load_settings()
        if settings.redis_url is None and not EmbeddedServer(settings.server_dir).answers():
            return []
        with Connection(settings) as connection:
            return JobStore(connection.heartbeat()).job_ids(MOST_OFFERED)
    except (TrtjobError, RedisError, OSError):
        return []


def job_ids_and_folders(incomplete: str) -> list[str]:
    """Return the jobs, and the folders that continue a path."""
    start = Path(incomplete)
    parent = start if incomplete.endswith("/") else start.parent
    try:
        folders = [f"{path}/" for path in sorted(parent.iterdir()) if path.is_dir()]
    except OSError:
        folders = []
    return [word for word in (*job_ids(), *folders) if word.startswith(incomplete)]
