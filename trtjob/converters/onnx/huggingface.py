"""What Hugging Face's `config.json` and `preprocessor_config.json` beside a model say of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtjob.converters.own_files import expect_own
from trtjob.converters.pixels import Pixels
from trtjob.engines.spec import ResizeMode, Sampling
from trtjob.errors import ConversionError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
_TELLING = frozenset({"id2label", "pretrained_cfg"})  # of transformers and of timm
_MOST_BYTES = 4 << 20
_AWAY = "Mend it, or move it away and use --labels and --preprocess"
_BYTE = 255.0
_SAME = 1e-6
_LEAST_SHARE = 0.01  # of an image's side that a crop keeps: with less nobody has trained a network
_LARGE = 384  # from here on ConvNeXt's processor stretches (image_processing_convnext.py)
_PIL_BILINEAR, _PIL_BICUBIC = 2, 3  # Image.Resampling; both average when they shrink


def documents_beside(model: Path) -> list[Path]:
    """Return the documents beside a model; a `config.json` alone may be another program's, unless its keys tell."""
    config, preprocessor = model.with_name(CONFIG), model.with_name(PREPROCESSOR)
    if preprocessor.is_file():
        return [path for path in (config, preprocessor) if path.is_file()]
    return [config] if config.is_file() and _is_its_own(config) else []


def _is_its_own(path: Path) -> bool:
    try:
        return path.stat().st_size <= _MOST_BYTES and bool(_TELLING & json.loads(path.read_bytes()).keys())
    except (OSError, ValueError, RecursionError, AttributeError):
        return False


def preprocessor_beside(model: Path) -> Mapping[str, Any]:
    """Return the preprocessor beside a model, made of what timm's `config.json` says where that is all there is.

    Raises ConversionError where a document is no JSON.
    """
    return document(model, PREPROCESSOR) or _of_timm(document(model, CONFIG).get("pretrained_cfg"))


def _of_timm(said: Any) -> Mapping[str, Any]:
    """Return the same in transformers' words (timm/data/transforms_factory.py); empty where it is not understood."""
    match said:
        case {
            "input_size": [int(_), int(height), int(width)],
            "crop_pct": float() | int() as share,
            "mean": list(mean),
            "std": list(std),
        } if share >= _LEAST_SHARE:
            is_cropped = said.get("crop_mode", "center") != "squash"
            whole = {"shortest_edge": int(min(height, width) / share)} if is_cropped else None
            size = {"height": height, "width": width}
            return {
                "do_center_crop": is_cropped,
                "size": whole or size,
                "crop_size": size,
                "image_mean": mean,
                "image_std": std,
                "resample": _PIL_BILINEAR if said.get("interpolation") == "bilinear" else _PIL_BICUBIC,
            }
    return {}


def document(model: Path, name: str) -> Mapping[str, Any]:
    """Return a document beside a model; empty where there is none. Raises ConversionError where it is no JSON."""
    path = model.with_name(name)
    if path not in documents_beside(model):
        return {}
    expect_own(path, model, option="")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConversionError(f"'{path}' is larger than {_MOST_BYTES:,} bytes: it is no {name}. {_AWAY}")
        found = json.loads(path.read_bytes())
    except OSError as err:
        raise ConversionError(f"'{path}' cannot be read: {err.strerror}. {_AWAY}") from err
    except (ValueError, RecursionError) as err:
        raise ConversionError(f"'{path}' is no JSON. {_AWAY}") from err
    return found if isinstance(found, dict) else {}


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels by number; none where it names none."""
    if isinstance(names := config.get("label_names"), list):  # timm's
        return tuple(" ".join(str(name).split()) or f"class_{number}" for number, name in enumerate(names))
    table = config.get("id2label")
    if not isinstance(table, dict) or not table:
        return ()
    try:
        by_number = {int(number): " ".join(str(name).split()) for number, name in table.items()}
    except ValueError:
        return ()
    if sorted(by_number) != list(range(len(by_number))):
        return ()
    return tuple(by_number[number] or f"class_{number}" for number in range(len(by_number)))


def hw_of(preprocessor: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the input's height and width, None where it keeps to an image's own shape, or says nothing."""
    named = preprocessor.get("crop_size") if preprocessor.get("do_center_crop") else preprocessor.get("size")
    match named:
        case {"height": int(height), "width": int(width)}:
            return height, width
        case int(side):
            return side, side
        case {"shortest_edge": int(side)} if _crop_share(preprocessor):
            return side, side
    return None


def pixels_of(preprocessor: Mapping[str, Any], channels: int) -> Pixels | None:
    """Return what is done to a pixel (transformers' BaseImageProcessor: rescale, then normalize); None: not said.

    Raises ConversionError where what is said cannot be.
    """
    if not preprocessor:
        return None
    try:
        factor = float(preprocessor.get("rescale_factor") or 1 / _BYTE) if preprocessor.get("do_rescale", True) else 1.0
        mean, std = (0.0,) * channels, (1.0,) * channels
        if preprocessor.get("do_normalize", True) and "image_mean" in preprocessor:
            mean, std = (tuple(map(float, preprocessor[key])) for key in ("image_mean", "image_std"))
    except (KeyError, TypeError, ValueError) as err:
        raise _not_understood() from err
    if len(mean) != channels or len(std) != channels or not all((factor, *std)):
        raise _not_understood()
    scale = _BYTE if abs(factor * _BYTE - 1) < _SAME else 1 / factor
    return Pixels(tuple(value * scale for value in mean), tuple(value * scale for value in std), "rgb")


def _not_understood() -> ConversionError:
    return ConversionError(
        f"what {PREPROCESSOR} says of pixels is not understood. Mend it, or say it with --preprocess, or with --mean "
        "and --std"
    )


def resize_of(preprocessor: Mapping[str, Any]) -> ResizeMode:
    """Return how images are brought to the input: cut where the preprocessor cuts them, else stretched."""
    is_cropped = preprocessor.get("do_center_crop") or _crop_share(preprocessor)
    return ResizeMode.CROP if is_cropped else ResizeMode.STRETCH


def crop_ratio_of(preprocessor: Mapping[str, Any]) -> float:
    """Return how much of what an image is resized to is kept: 224 of 256, for example."""
    if share := _crop_share(preprocessor):
        return share
    whole, kept = (_shorter_side(preprocessor.get(name)) for name in ("size", "crop_size"))
    return kept / whole if 0 < kept < whole else 1.0


def _crop_share(preprocessor: Mapping[str, Any]) -> float:
    """Return what ConvNeXt's processor says instead, 0 where it says nothing: of large inputs it means nothing."""
    share, side = preprocessor.get("crop_pct"), _shorter_side(preprocessor.get("size"))
    return share if isinstance(share, float) and 0 < share <= 1 and 0 < side < _LARGE else 0.0


def _shorter_side(size: object) -> int:
    """Return a size's side, 0 where none is said."""
    match size:
        case {"shortest_edge": int(side)} | int(side):
            return side
        case {"height": int(height), "width": int(width)}:
            return min(height, width)
    return 0


def sampling_of(preprocessor: Mapping[str, Any]) -> Sampling:
    """Return how pixels are resampled: bilinear, as Pillow does, where nothing is said; as OpenCV for other kinds."""
    resample = preprocessor.get("resample", _PIL_BILINEAR)
    if resample == _PIL_BILINEAR:
        return Sampling.ANTIALIAS
    return Sampling.BICUBIC if resample == _PIL_BICUBIC else Sampling.HALF_PIXEL
