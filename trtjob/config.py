"""The settings: `TRTJOB_*` in the environment, over a TOML file, over the defaults.

No other module reads a variable of ours.
"""

import os
import re
from collections.abc import Container
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from trtjob.documents import in_words
from trtjob.errors import ConfigError
from trtjob.near import near
from trtjob.tilde import expand_tilde

_LIKELY = 0.8  # how near a variable must be: other programs make some, such as TRTJOB_REDIS_PORT
_PREFIX = "TRTJOB_"  # of each setting in the environment
MOST_AT_ONCE = 1024  # images in a batch
MOST_THREADS = 256  # of a worker process
DEFAULT_QUEUE = "trtjob"


def default_home() -> Path:
    """Return where trtjob keeps its models and the embedded server's data: `$XDG_DATA_HOME/trtjob`."""
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "trtjob"


def config_file() -> Path:
    """Return where the optional TOML file lies: `$TRTJOB_CONFIG`, else `$XDG_CONFIG_HOME/trtjob/config.toml`."""
    if named := os.environ.get("TRTJOB_CONFIG"):
        return Path(named)
    config_home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config_home) / "trtjob" / "config.toml"


def visible_gpus() -> tuple[str, ...]:
    """Return what CUDA_VISIBLE_DEVICES names: numbers, GPU-... or MIG-...; nothing where it is not set."""
    return tuple(filter(None, map(str.strip, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(","))))


def wants_color() -> bool:
    """Return whether the user has not forbidden colours (no-color.org); a terminal must be there, too."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("expected a folder")
    return value


def _listed(value: object) -> object:
    """Read `a,b` as the environment has it."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _absolute(roots: tuple[str, ...]) -> tuple[str, ...]:
    for root in roots:
        if not root.startswith(("/", "s3://", "gs://", "az://", "http://", "https://")):
            raise ValueError(f"expected absolute folders, prefixes of buckets and web addresses, not '{root}'")
    return roots


def _utf8(folder: Path) -> Path:
    """Let only those folders through whose names can be told to other processes as JSON."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise ValueError("expected a folder whose name is valid UTF-8") from None
    return folder


def check_plan_batches(text: str) -> str:
    """Return the batch sizes of a plan as they are. Raises ValueError for sizes that no plan can have."""
    sizes = [int(size) for size in text.split(":")] if re.fullmatch(r"[0-9]{1,9}(:[0-9]{1,9}){0,2}", text) else []
    if len(sizes) not in (1, 3) or not 1 <= sizes[0] <= sizes[len(sizes) // 2] <= sizes[-1] <= MOST_AT_ONCE:
        raise ValueError(
            f"expected 1 <= smallest <= best <= largest <= {MOST_AT_ONCE}, such as 1:8:32, or the largest alone"
        )
    return text


def _shared_place(place: str) -> str:
    """Let only those places through that are the same wherever a process stands."""
    if place and not place.startswith("/") and not re.match("s3://[^/]", place, re.IGNORECASE):
        raise ValueError("expected an absolute folder or s3://bucket/prefix")
    return place


class Settings(BaseModel):
    """Everything that can be set; each field is `TRTJOB_<NAME>` in the environment and `<name>` in the TOML file.

    `load_settings` reads them there; Settings() are those of nobody's choice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    home: Annotated[
        Path,
        BeforeValidator(_not_empty),
        AfterValidator(expand_tilde),
        AfterValidator(Path.absolute),
        AfterValidator(_utf8),
    ] = Field(default_factory=default_home, validate_default=True, description="models and the embedded server's data")
    redis_url: SecretStr | None = Field(
        default=None, description="redis://..., rediss://... or unix://...; none: embedded server"
    )
    queue: str = Field(
        default=DEFAULT_QUEUE,
        pattern=r"^[a-z0-9-]{1,40}$",
        description="whose jobs this command submits or does: those of another queue are left alone",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"

    roots: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_absolute)] = Field(
        default=(),
        description="folders, s3:// prefixes and web addresses, separated by commas, that jobs may read and write; "
        "none: all that the worker's user may",
    )

    threads: int = Field(
        default=0, ge=0, le=MOST_THREADS, description="CPU cores that a worker process uses; 0: its share of all"
    )
    pin_cores: bool = Field(
        default=False, description="keep each worker process, with its image processes, on its own share of the cores"
    )
    image_processes: int = Field(
        default=0,
        ge=0,
        le=MOST_THREADS,
        description="processes of a worker that decode, draw and encode; 0: one for each core of its share",
    )
    image_memory_mib: int = Field(
        default=128,
        ge=16,
        description="memory for files and pixels in each; images that need more share an eighth of the machine's",
    )
    batch: int = Field(default=0, ge=0, le=MOST_AT_ONCE, description="largest batch; 0: what the engine likes best")
    engine: Literal["auto", "tensorrt", "cuda", "cpu"] = Field(
        default="auto",
        description="auto: where there is a GPU, TensorRT, else ONNX Runtime on CUDA; else ONNX Runtime on the CPU",
    )
    gpus: str = Field(
        default="all", description="which GPUs: all, numbers such as 0,2, or names such as GPU-1a2b3c4d and MIG-..."
    )
    gpu_memory_mib: int = Field(default=0, ge=0, description="memory of the GPU that a model may take on CUDA; 0: all")
    gpu_file_kib: int = Field(
        default=8192,
        ge=64,
        le=1 << 20,
        description="the largest file that --decode gpu leaves to the GPU; each image in hand takes so much memory, in "
        "which the pixels of 1920x1080 find room behind their file",
    )
    tf32: bool | None = Field(
        default=None,
        description="float32 models multiply with ten bits of mantissa on GPUs that can: faster; unset: with TensorRT, "
        "and not on CUDA, where an image's last digits would depend on its place in the batch",
    )
    plan_batches: Annotated[str, AfterValidator(check_plan_batches)] = Field(
        default="1:32:32", description="batch sizes of a TensorRT plan: smallest:best:largest"
    )
    plan_workspace_mib: int = Field(default=0, ge=0, description="GPU memory that a layer may borrow; 0: all")
    plan_level: int = Field(default=3, ge=0, le=5, description="how long TensorRT looks for faster kernels")
    plan_store: Annotated[str, AfterValidator(_shared_place)] = Field(
        default="",
        description="a folder or s3:// prefix where machines share TensorRT plans; a plan is code, so who can write "
        "there can run code on them",
    )
    plan_cache_gib: int = Field(default=20, ge=1, description="TensorRT plans kept on this machine")
    convert_limit_s: float = Field(default=3600.0, ge=1, description="how long a worker lets a conversion last")
    plan_limit_s: float = Field(default=7200.0, ge=1, description="how long the build of a TensorRT plan may last")
    convert_memory_mib: int = Field(
        default=0,
        ge=0,
        description="memory of its own for a conversion, and for the build of a plan; 0: three quarters of what the "
        "machine, or the container, has",
    )
    window: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="images in a worker's pipeline at once; 0: what keeps the engine and the image processes busy",
    )
    requests: int = Field(default=32, ge=1, le=1024, description="requests to S3 at once, for reading and for writing")
    max_pixels: int = Field(default=200_000_000, ge=1, description="an image of more pixels is refused as too_large")
    jpeg_quality: int = Field(default=90, ge=1, le=100)

    http: str = Field(
        default="", description="host:port where a daemon answers /metrics, /livez and /readyz; empty: nowhere"
    )
    lease_s: float = Field(default=10.0, ge=2, le=300, description="a worker silent for so long has lost its shard")
    stall_s: float = Field(
        default=120.0,
        ge=2,
        description="without a step for so long an image process, after twice that a worker or a batch, ends",
    )
    grace_s: float = Field(default=20.0, ge=1, description="time to reach a batch edge after SIGTERM")
    keep_jobs: float = Field(
        default=30 * 86_400.0,
        ge=60,
        description="seconds that the queue's server keeps what it knows of a job that has ended; its folder stays",
    )
    notify_secret: SecretStr | None = Field(default=None, description="signs what --notify addresses are told")
    notify_allow_local: bool = Field(
        default=False, description="let --notify reach addresses of this machine and its network"
    )
    fetch_allow_local: bool = Field(
        default=False, description="let images be fetched by http:// and https:// from this machine and its network"
    )
    place_wait_s: float = Field(
        default=60.0,
        ge=0,
        description="how long a job waits for a folder that no worker finds, before it fails",
    )
    outage_s: float = Field(
        default=60.0,
        ge=1,
        description="a worker that storage fails for so long leaves its shard to others, if they can",
    )
    max_missing: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of a shard's images that may be missing or unreadable; more: the folder is taken to be away",
    )
    max_crashes: int = Field(default=5, ge=1, description="crashes of a shard before its job fails")

    @cached_property
    def models_dir(self) -> Path:
        return self.home / "models"

    @cached_property
    def plans_dir(self) -> Path:
        return self.home / "plans"

    @cached_property
    def cache_dir(self) -> Path:
        return self.home / "cache"

    @cached_property
    def server_dir(self) -> Path:
        return self.home / "server"


def _in_file() -> dict[str, Any]:
    if not config_file().exists():
        return {}
    import tomllib  # few have a file

    with config_file().open("rb") as file:
        return tomllib.load(file)


def _in_environment() -> dict[str, Any]:
    """Return the settings among the variables, whatever the case of their names; capitals come first."""
    given = {name.lower(): value for name, value in sorted(os.environ.items(), reverse=True)}
    wanted = ((name, given.get(f"{_PREFIX}{name}".lower())) for name in Settings.model_fields)
    return {name: value for name, value in wanted if value is not None}


def load_settings(**given: object) -> Settings:
    """Read the settings; given: what goes over them, of a caller who has an option for each.

    Raises ConfigError that names each wrong one, its value and what was expected.
    """
    if os.environ.get("RQ_KEY_PREFIX", "rq") != "rq":
        raise ConfigError("RQ_KEY_PREFIX is set, but trtjob's scripts know RQ's keys by their usual names: unset it")
    try:
        _expect_named_file()
        in_file, in_environment = _in_file(), _in_environment()
        return Settings(**{**in_file, **in_environment, **given})
    except ValidationError as err:
        if options := [problem for problem in err.errors() if problem["loc"][0] in given]:
            raise ConfigError("; ".join(map(_of_option, options))) from err
        problems = "; ".join(
            f"{_place(problem, in_file, in_environment)}{_shown(problem)}: {_said(problem)}" for problem in err.errors()
        )
        end = "" if problems.endswith("?") else "."
        raise ConfigError(f"wrong setting: {problems}{end} Look at the environment and at {config_file()}") from err
    except OSError as err:
        raise ConfigError(f"{config_file()} cannot be read: {err.strerror}") from err
    except RuntimeError as err:  # of `Path.home`
        raise ConfigError("this user has no home: set HOME to a folder for models and the server's data") from err
    except ValueError as err:  # the TOML file itself
        raise ConfigError(f"{config_file()}: {err}") from err


def _of_option(problem: ErrorDetails) -> str:
    """Return what is wrong with the value of an option, by the option's name."""
    return f"--{str(problem['loc'][0]).replace('_', '-')}{_shown(problem, ' ')}: {in_words(problem)}"


def _place(problem: ErrorDetails, in_file: Container[str], in_environment: Container[str]) -> str:
    """Return a setting by the name that it has where it was found."""
    name = str(problem["loc"][0])
    return name if name in in_file and name not in in_environment else f"{_PREFIX}{name.upper()}"


def strange_variables() -> list[str]:
    """Return a sentence for each variable that is no setting, and likely was meant to be one."""
    known = {*map(str.upper, Settings.model_fields), "CONFIG"}
    given = sorted(name.removeprefix(_PREFIX) for name in os.environ if name.startswith(_PREFIX))
    meant = ((name, near(name, known, _LIKELY)) for name in given if name not in known)
    return [f"{_PREFIX}{name} is no setting, and is not heeded. Is it {_PREFIX}{it[0]}?" for name, it in meant if it]


def _expect_named_file() -> None:
    if os.environ.get("TRTJOB_CONFIG") and not config_file().exists():
        raise ConfigError(f"TRTJOB_CONFIG = '{config_file()}': no such file. Create it, or unset TRTJOB_CONFIG")


def _shown(problem: ErrorDetails, before: str = " = ") -> str:
    """Return the wrong value for a message; not where it may hold a password, as what has no known name may."""
    field = Settings.model_fields.get(str(problem["loc"][0]))
    is_open = field is not None and "SecretStr" not in repr(field.annotation)
    return f"{before}{problem['input']!r}" if is_open else ""


def _said(problem: ErrorDetails) -> str:
    """Return what is wrong; of a name that no setting has, which one it may stand for."""
    if problem["type"] != "extra_forbidden":
        return in_words(problem)
    meant = near(str(problem["loc"][0]), Settings.model_fields)
    return f"there is no such setting{f'; is it {meant[0]}?' if meant else ''}"
