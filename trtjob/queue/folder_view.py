"""A job as its folder says that it stands, for where the queue's server knows nothing of it."""

from trtjob.jobs.finish import Receipt, Summary
from trtjob.jobs.folder import RECEIPT, SUMMARY, JobFolder, PlanEpoch
from trtjob.jobs.plan import committed_counts
from trtjob.jobs.states import JobState
from trtjob.queue.views import JobView

INCOMPLETE = "not complete, and this queue's server does not know it. Go on with: trtjob resume"


def folder_view(folder: JobFolder) -> JobView:
    """Return a job: complete where there is a receipt, else with what is committed.

    Raises JobError where the folder is no job's, StorageError where it is damaged or cannot be read.
    """
    return _complete(folder) if folder.storage.exists(RECEIPT) else _incomplete(folder)


def _complete(folder: JobFolder) -> JobView:
    receipt = folder.document(Receipt, RECEIPT, remedy="Remove it")
    summary = folder.document(Summary, SUMMARY, remedy=f"Remove {RECEIPT}")
    return _view(
        folder,
        folder.epochs(),
        state=JobState.DONE_WITH_ERRORS if receipt.failed else JobState.DONE,
        images=receipt.listed,
        ok=receipt.ok,
        failed=receipt.failed,
        skipped=receipt.skipped,
        kinds=summary.failures,
        ignored=summary.ignored,
        finished_at=receipt.finished_at,
    )


def _incomplete(folder: JobFolder) -> JobView:
    counts, epochs = committed_counts(folder, 0), folder.epochs()
    listed = sum(epoch.images for epoch in epochs)
    return _view(
        folder,
        epochs,
        state=JobState.FAILED,
        images=max(listed, counts["ok"] + counts["failed"]),
        ok=counts["ok"],
        failed=counts["failed"],
        kinds=dict(counts["kinds"]),
        message=f"{INCOMPLETE} {folder.uri}",
        is_known=False,
    )


def _view(
    folder: JobFolder,
    epochs: list[PlanEpoch],
    *,
    state: JobState,
    images: int,
    ok: int,
    failed: int,
    kinds: dict[str, int],
    skipped: int = 0,
    ignored: dict[str, int] | None = None,
    message: str = "",
    finished_at: float | None = None,
    is_known: bool = True,
) -> JobView:
    shards_done = len(folder.committed_shards())
    return JobView(
        spec=folder.spec(),
        state=state,
        message=message,
        epoch=epochs[-1].epoch if epochs else 0,
        reason=epochs[-1].reason if epochs else "submit",
        planned=bool(epochs),
        images=images,
        ok=ok,
        failed=failed,
        skipped=skipped,
        ignored=ignored or {},
        shards=max(sum(epoch.shards for epoch in epochs), shards_done),
        shards_done=shards_done,
        live_done=0,
        live_failed=0,
        started_at=None,
        finished_at=finished_at,
        kinds=kinds,
        is_known=is_known,
    )
