"""What `trtjob doctor` looks at: each check says what it found, and how to get what is missing."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trtjob.cli.nvidia import Cards, find_cards
from trtjob.engines.onnxruntime.extras import cuda_major_of_package, extra_for
from trtjob.errors import ConfigError, TrtjobError

if TYPE_CHECKING:
    from trtjob.config import Settings
    from trtjob.engines.onnxruntime.package import Package
    from trtjob.queue.job_store import JobStore
    from trtjob.queue.views import DaemonView

LITTLE_SPACE_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    state: `note` is for what trtjob can do without; fix: the command that brings what is missing, or mends it.
    """

    name: str
    state: Literal["ok", "note", "missing", "broken"]
    found: str
    fix: str = ""


def all_checks(settings: "Settings") -> Iterator[Check]:
    """Yield every finding; a check never raises."""
    cards = find_cards()
    yield check_python()
    yield check_cpu(settings)
    yield check_gpu(cards)
    yield check_runtime(settings, cards)
    yield check_engine(settings)
    if cards.has_gpu and settings.engine != "cpu":
        yield check_decoder(cards)
    yield check_images()
    yield check_videos()
    yield check_pictures()
    more: tuple[Callable[[Settings], Check], ...]
    more = (check_server, check_storage, check_models, check_workers, check_jobs)
    for check in more:
        yield check(settings)


def check_python() -> Check:
    from trtjob import __version__

    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}, trtjob {__version__}")


def check_cpu(settings: "Settings") -> Check:
    from trtjob.cpus import usable_cpus

    usable = usable_cpus()
    threads = f"{settings.threads} threads (TRTJOB_THREADS)" if settings.threads else f"{usable} threads"
    return Check("cpu", "ok", f"{os.cpu_count()} cores, {usable} for this process; a worker uses {threads}")


def check_gpu(cards: Cards) -> Check:
    if cards.cards:
        named = "; ".join(map(str, cards.cards))
        if cards.problem:
            return Check("gpu", "note", f"{named}: so says CUDA's driver, but {cards.problem}")
        return Check("gpu", "ok", named)
    if cards.problem:
        mend = (
            "restart after an update of NVIDIA's driver, or install it"
            if cards.is_silent
            else "install NVIDIA's driver"
        )
        return Check("gpu", "note", cards.problem, f"{mend}, or go on without a GPU")
    return Check("gpu", "note", "none found; trtjob works on the CPU")


def check_runtime(settings: "Settings", cards: Cards) -> Check:
    """Say which ONNX Runtime is installed, and whether it is whole and fits this machine."""
    from trtjob.engines.onnxruntime.package import find, installing

    package = find()
    extra = cards.fitting_extra()
    if package is None:
        # Not the Python package alone: the extra brings what belongs to it.
        return Check("runtime", "missing", "ONNX Runtime is not installed", installing(f"trtjob[{extra}]"))
    if package.is_mixed or package.is_damaged:
        return check_package(package, cards)
    found = f"{package.name} {package.version}" + (f" for CUDA {package.cuda}" if package.cuda else "")
    if settings.engine == "cpu" or not (cards.has_gpu or package.cuda):
        return Check("runtime", "ok", found)
    return _fit(package, found, cards)


def check_package(package: "Package", cards: Cards) -> Check:
    """Say what two packages in one folder have left of it, and how to get one that is whole."""
    from trtjob.engines.onnxruntime.package import CPU_NAME, GPU_NAME, changing

    all_installed = " and ".join(f"{name} {version}" for name, version in sorted(package.installed.items()))
    extra = cards.fitting_extra()
    wanted = CPU_NAME if extra == "cpu" else GPU_NAME
    keep = wanted if wanted in package.installed else next(iter(package.installed), "")
    # What is kept must be what the next look at this machine does not reject.
    is_fit = keep == CPU_NAME or (
        keep == GPU_NAME and cards.has_gpu and _all_can_use(cards, cuda_major_of_package(package.installed[GPU_NAME]))
    )
    if package.is_mixed:
        whose = f"the files are those of {package.name} {package.version}" if package.name else "files are missing"
        found = f"{all_installed} are both installed into one folder, which only one can have; {whose}"
    else:
        found = f"{all_installed or 'ONNX Runtime'} lacks files: another package with the same folder was removed"
    return Check("runtime", "broken", found, package.mending_command(keep) if is_fit else changing(extra))


def _all_can_use(cards: Cards, cuda_major: int) -> bool:
    """Tell whether every card here can use ONNX Runtime for a version of CUDA."""
    return all(card.can_use(extra_for(cuda_major)) for card in cards.cards)


def _fit(package: "Package", found: str, cards: Cards) -> Check:
    """Compare a package that is whole with the cards. One of both is there."""
    from trtjob.engines.onnxruntime.package import changing

    extra = cards.fitting_extra()
    if not cards.has_gpu:
        return Check("runtime", "note", f"{found}, but there is no GPU here: it works on the CPU", changing(extra))
    if package.cuda:
        return _fit_of_cuda(package, found, cards)
    if _are_tensorrts(cards):
        return Check("runtime", "ok", f"{found}; the GPU is TensorRT's")
    if extra == "cpu":
        return Check("runtime", "ok", f"{found}; the GPU here is too old for ONNX Runtime's CUDA, or its driver is")
    return Check("runtime", "note", f"{found} uses no GPU, and there is one", changing(extra))


def _are_tensorrts(cards: Cards) -> bool:
    """Tell whether a TensorRT is installed that serves every card here."""
    from trtjob.engines.tensorrt.flavour import flavour

    try:
        found = flavour()
        for card in cards.cards:
            found.expect_gpu(card.name, card.compute_capability)
    except TrtjobError:
        return False
    return True


def _fit_of_cuda(package: "Package", found: str, cards: Cards) -> Check:
    """Compare ONNX Runtime for GPUs with the cards, and look for what it needs."""
    from trtjob.engines.onnxruntime.package import (
        changing,
        installed_cudnn,
        installing,
        mending_cudnn,
        missing_libraries,
    )

    if not _all_can_use(cards, package.cuda_major):
        unfit = f"{found}, which not every GPU or driver here can use"
        return Check("runtime", "note", unfit, changing(cards.fitting_extra()))
    if len(cudnn := installed_cudnn()) > 1:
        twice = f"{found}, but {' and '.join(sorted(cudnn))} are both installed into one folder"
        return Check("runtime", "broken", twice, mending_cudnn(package.cuda_major))
    if missing := missing_libraries(package):
        libraries = installing(f"{package.name}[cuda,cudnn]=={package.version}")
        return Check("runtime", "note", f"{found}, but libraries of CUDA are missing: {', '.join(missing)}", libraries)
    return Check("runtime", "ok", found)


def check_engine(settings: "Settings") -> Check:
    """Say which engine a worker takes here, and why."""
    from trtjob.cpus import usable_cpus
    from trtjob.engines.choice import choose

    try:
        choice = choose(settings.engine, settings.gpus)
    except ConfigError as err:
        return Check("engine", "missing", str(err), "set TRTJOB_GPUS=all")
    except TrtjobError as err:
        return Check("engine", "missing", str(err), "set TRTJOB_ENGINE=auto, or see docs/gpu.md")
    if choice.is_wanting:
        return Check("engine", "note", choice.reason, "see docs/gpu.md")
    if (gpus := len(choice.gpus)) > 1:
        cores = max(1, usable_cpus() // gpus)
        return Check("engine", "ok", f"{choice.reason}: a worker process on each, which uses {cores} of the cores")
    return Check("engine", "ok", choice.reason)


def check_decoder(cards: Cards) -> Check:
    """Say whether images can be decoded on the GPU."""
    from trtjob.engines.onnxruntime.package import installing
    from trtjob.imaging.gpu.nvjpeg import installed_package

    if package := installed_package():
        return Check("decode", "ok", f"{package} decodes JPEG files on the GPU (--decode gpu)")
    extra = "nvjpeg12" if cards.fitting_extra() == "cuda12" else "nvjpeg"
    return Check("decode", "note", "nvJPEG is not installed: no --decode gpu", installing(f"trtjob[{extra}]"))


def check_images() -> Check:
    from trtjob.imaging.pillow_kinds import PILLOW_KINDS

    missing = {kind: known.extra for kind, known in PILLOW_KINDS.items() if known.is_missing}
    if not missing:
        return Check("images", "ok", "HEIC and JPEG XL are read, beside what needs no extra")
    kinds, extras = " and ".join(missing), ",".join(missing.values())
    return Check("images", "note", f"{kinds} images cannot be read here", f"pip install 'trtjob[{extras}]'")


def check_videos() -> Check:
    from trtjob.imaging.video_package import missing_video_package

    if missing_video_package() is None:
        return Check("videos", "ok", "PyAV reads them")
    return Check("videos", "note", "PyAV is not installed: videos are passed over", "pip install 'trtjob[video]'")


def check_pictures() -> Check:
    from trtjob.imaging.scripts import can_shape, unwritten_scripts

    if not can_shape():
        found = "Pillow finds no FriBiDi: labels in Thai, Arabic and other scripts, and emoji, show a class's number"
        return Check("pictures", "note", found, "apt install libfribidi0")
    if missing := unwritten_scripts():
        found = f"no font for {', '.join(missing)}: such labels show a class's number"
        return Check("pictures", "note", found, "apt install fonts-noto-core fonts-noto-color-emoji")
    return Check("pictures", "ok", "labels can be in any script")


def check_server(settings: "Settings") -> Check:
    from trtjob.queue.connection import Connection
    from trtjob.queue.embedded_server import EmbeddedServer, find_server_binary, installing_server

    try:
        # Connecting would start an embedded server, which a look at the machine should not.
        if settings.redis_url is None and not EmbeddedServer(settings.server_dir).answers():
            return Check("server", "ok", f"embedded, not running; starts when needed: {find_server_binary()}")
        with Connection(settings) as connection:
            return Check("server", "ok", connection.describe())
    except TrtjobError as err:
        return Check("server", "missing", str(err), "" if settings.redis_url else installing_server())


@contextmanager
def _store(settings: "Settings") -> "Iterator[JobStore | None]":
    """Yield the jobs of the queue's server; none of an embedded one that does not run, for a look must not start it."""
    from trtjob.queue.connection import Connection
    from trtjob.queue.embedded_server import EmbeddedServer
    from trtjob.queue.job_store import JobStore

    if settings.redis_url is None and not EmbeddedServer(settings.server_dir).answers():
        yield None
        return
    with Connection(settings) as connection:
        yield JobStore(connection.redis)


def _daemons_here(store: "JobStore") -> "list[DaemonView]":
    return [daemon for daemon in store.daemons() if daemon.host == socket.gethostname()]


def check_workers(settings: "Settings") -> Check:
    """Say what the daemons of this machine have trouble with."""
    try:
        with _store(settings) as store:
            daemons = _daemons_here(store) if store else []
    except TrtjobError:  # of which the check of the server tells
        daemons = []
    if troubles := [daemon.trouble for daemon in daemons if daemon.trouble]:
        return Check("workers", "note", "; ".join(troubles), "the log of the worker says why; it tries again by itself")
    return Check("workers", "ok", f"{sum(daemon.processes for daemon in daemons)} worker processes on this machine")


def check_jobs(settings: "Settings") -> Check:
    """Say from which jobs the daemons of this machine stand aside."""
    from trtjob.queue.exclusions import exclusions_of
    from trtjob.queue.views import node_of

    found: list[str] = []
    try:
        with _store(settings) as store:
            if store is not None:
                here = {daemon.name for daemon in _daemons_here(store)}
                for job_id, exclusions in exclusions_of(store, store.active_ids(settings.queue)).items():
                    reasons = [exclusion.reason for worker, exclusion in exclusions.items() if node_of(worker) in here]
                    found += [f"{job_id}: {reason}" for reason in dict.fromkeys(reasons)]
    except TrtjobError as err:
        return Check("jobs", "note", str(err))
    if found:
        return Check(
            "jobs", "note", f"this machine leaves to others: {'; '.join(found)}", "mend that; it looks again by itself"
        )
    return Check("jobs", "ok", "this machine stands aside from none")


def check_storage(settings: "Settings") -> Check:
    home = settings.home.absolute()
    # What is not there yet is made when it is needed, below the nearest folder that is.
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Check("storage", "missing", f"{home}: '{nearest}' cannot be written", "set TRTJOB_HOME to your folder")
    free_bytes = shutil.disk_usage(nearest).free
    found = f"{home}, {free_bytes / 2**30:.1f} GiB free"
    if free_bytes < LITTLE_SPACE_BYTES:
        return Check("storage", "note", found, "free some space, or set TRTJOB_HOME to another disk")
    return Check("storage", "ok", found)


def check_models(settings: "Settings") -> Check:
    from trtjob.converters.registry import ModelRegistry

    registry = ModelRegistry(settings.models_dir)
    if damaged := registry.damaged():
        return Check("models", "note", "; ".join(map(str, damaged)))
    names = [model.name for model in registry.list()]
    if not names:
        return Check("models", "note", "none converted yet", "trtjob convert MODEL.weights --local")
    return Check("models", "ok", f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")
