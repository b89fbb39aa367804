"""Hand a job in to the queue."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from trtjob.api.given import as_choice
from trtjob.api.job_locations import JobLocations
from trtjob.api.job_request import JobRequest
from trtjob.api.job_spec import job_from, resolved_model
from trtjob.api.progress import Audience
from trtjob.api.session import Session
from trtjob.api.stop import Stop
from trtjob.tilde import expand_tilde

if TYPE_CHECKING:
    from trtjob.queue.submit import Outcome

Begun: TypeAlias = "tuple[str, Outcome]"  # the job's id, and what was done

_CONTINUES = {
    "running": "is under way; going on with what is missing",
    "resumed": "continues with what is missing",
    "updating": "was done before; looking for new and changed images",
}


def hand_in(
    session: Session,
    request: JobRequest,
    locations: JobLocations,
    audience: Audience,
    stop: Stop | None = None,
    *,
    runner: str = "",
    upload: bool | None = None,
) -> Begun:
    """Resolve the model, bring to a bucket what workers need from there, and submit the job.

    stop: ends an upload; runner: the `run` that the job belongs to; upload: whether images go there too, None: where
    they must. Returns the job's id and what was done.
    """
    from trtjob.jobs.roots import check_servers, check_spec
    from trtjob.jobs.states import Priority
    from trtjob.queue.submit import submit

    notify = ""
    if request.notify:
        from trtjob.queue.notifications import check_notify_url

        notify = check_notify_url(str(request.notify))
    is_uploaded = _is_uploaded(session, locations, upload)
    if is_uploaded:
        locations = _upload(locations, audience, stop, allow_local=session.settings.fetch_allow_local)
    spec = job_from(request, locations, session.settings.models_dir, converting(audience), upload_model=is_uploaded)
    check_spec(spec, session.settings.roots, session.settings.home)
    check_servers(spec.source, allow_local=session.settings.fetch_allow_local)
    priority = as_choice("--priority", Priority, request.priority) if request.priority else None
    spec, outcome = submit(
        session.store, session.queue, spec, locations.keys, priority=priority, notify=notify, runner=runner
    )
    tell_continuing(audience, spec.job_id, outcome)
    return spec.job_id, outcome


def _is_uploaded(session: Session, locations: JobLocations, upload: bool | None) -> bool:
    """Return whether the model, and a local folder's images, go to the output's bucket first."""
    from trtjob.errors import ConfigError
    from trtjob.storage import is_s3

    if upload and not is_s3(locations.output):
        raise ConfigError("--upload puts the images beside the outputs: give an --output such as s3://bucket/results")
    # Workers of a server elsewhere are elsewhere too; those of one on this machine see its folders.
    wanted = not session.connection.is_local if upload is None else upload
    return wanted and is_s3(locations.output)


def _upload(locations: JobLocations, audience: Audience, stop: Stop | None, *, allow_local: bool) -> JobLocations:
    from trtjob.errors import StorageError
    from trtjob.jobs.upload import uploaded_source
    from trtjob.storage import is_address

    if all(map(is_address, locations.source.roots)):
        return locations
    with audience.stages(locations.source.shown) as display:

        def on_progress(done: int, total: int, sent_bytes: int) -> None:
            display.show(f"uploading, {sent_bytes / 1e6:.1f} MB sent", done, total)
            if stop is not None and stop.signal is not None:
                raise StorageError("the upload was stopped; the same command continues it")

        source, keys = uploaded_source(
            locations.source, locations.keys, locations.output, on_progress, allow_local=allow_local
        )
    return replace(locations, source=source, keys=keys)


def tell_continuing(audience: Audience, job_id: str, outcome: "Outcome") -> None:
    """Tell that a job does not begin anew."""
    if outcome != "queued":
        audience.tell(f"{job_id}: {_CONTINUES[outcome]}")


def convert_ahead(request: JobRequest, models_dir: Path, audience: Audience) -> None:
    """Convert a model that TensorFlow reads, before the caller has other threads and starts processes.

    What TensorFlow prints can be told apart only while nobody else writes to the same file descriptor, or is given it.
    """
    from trtjob.converters.sources import needs_tensorflow

    path = expand_tilde(request.model)
    if path.exists() and needs_tensorflow(path):
        resolved_model(request, models_dir, converting(audience))


def converting(audience: Audience) -> Callable[[Path], None]:
    """Return what tells what the wait for a model is for."""
    return lambda model: audience.tell(f"Converting {model.name}, once ...")
