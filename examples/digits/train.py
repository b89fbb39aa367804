"""Train the digit detector on a CPU and write its Darknet weights.

    pip install torch scikit-learn numpy opencv-python-headless
    python examples/digits/train.py --out digits.weights

Scenes are made as they are needed and never repeat. The loss is YOLO's: complete IoU for the boxes, logistic losses for
objectness and classes. The weights that are written are a moving average over the last steps. Seeds fix the scenes and
the first weights; the sums inside PyTorch still depend on the processor, so another machine ends with slightly other
weights.
"""

import argparse
import copy
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from backgrounds import Look
from network import DarknetNetwork, Head, decode_boxes, save_weights, stretch
from numpy.typing import NDArray
from scenes import load_glyphs, make_scene
from torch import Tensor
from torch.nn import functional

HERE = Path(__file__).resolve().parent
BATCH = 32
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 5e-4
AVERAGE_DECAY = 0.998
ANCHOR_RATIO = 2.2  # an anchor answers for a box that is at most so much larger or smaller, each way
IGNORE_IOU = 0.6  # a prediction so good that it was not asked for is not punished
BOX_WEIGHT = 3.0
FIRST_OBJECTNESS = 0.005  # about one cell in two hundred holds a digit

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


def make_batch(seed: int, index: int, input_hw: tuple[int, int]) -> Batch:
    """Return images [N, H, W, 3] and truths [M, 6]: image number, class, cx, cy, w, h (pixels of the network input)."""
    cv2.setNumThreads(1)
    glyphs = load_glyphs(held_out=False)
    rng = np.random.default_rng([seed, index])
    images, truths = [], []
    for number in range(BATCH):
        scene = make_scene(rng, glyphs, rng.choice(list(Look)))
        images.append(stretch(scene.image, input_hw))
        scale = np.array(input_hw[::-1]) / scene.image.shape[1::-1]
        for truth in scene.truths:
            xy1, xy2 = np.array(truth.box[:2]) * scale, np.array(truth.box[2:]) * scale
            truths.append([number, int(truth.label), *(xy1 + xy2) / 2, *(xy2 - xy1)])
    return np.stack(images), np.array(truths, dtype=np.float32)


def batches(seed: int, steps: int, input_hw: tuple[int, int], workers: int) -> Iterator[Batch]:
    """Yield the batches in order, a few made ahead in other processes."""
    with ProcessPoolExecutor(workers) as pool:
        ahead: deque[Future[Batch]] = deque()
        for index in range(steps):
            ahead.append(pool.submit(make_batch, seed, index, input_hw))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def detection_loss(raw_maps: list[Tensor], heads: list[Head], truths: Tensor) -> dict[str, Tensor]:
    """Return the parts of the loss, each for one assigned prediction on average."""
    all_anchors = torch.cat([head.anchors for head in heads])
    best_anchor = _shape_iou(truths[:, 4:6], all_anchors).argmax(dim=1)
    boxes, classes, objectness, assigned = [], [], [], 0
    first = 0
    for raw, head in zip(raw_maps, heads, strict=True):
        truth_index, anchor = _assign(truths, head, best_anchor - first)
        first += len(head.anchors)
        mine = truths[truth_index]
        column, row = (mine[:, 2:4] / head.stride).long().unbind(1)
        place = (mine[:, 0].long(), anchor, row, column)

        predicted = decode_boxes(raw.float().clamp(-12, 8), head)
        logits = raw.float().permute(0, 1, 3, 4, 2)[..., 4:]
        boxes.append(1 - _complete_iou(predicted[place], _xyxy(mine[:, 2:6])))
        wanted = functional.one_hot(mine[:, 1].long(), head.classes).float()
        classes.append(functional.binary_cross_entropy_with_logits(logits[place][:, 1:], wanted, reduction="none"))

        target = torch.zeros_like(logits[..., 0])
        target[place] = 1
        counts = (target == 1) | ~_is_good_enough(predicted.detach(), truths)
        loss = functional.binary_cross_entropy_with_logits(logits[..., 0], target, reduction="none")
        objectness.append((loss * counts).sum())
        assigned += len(truth_index)
    return {
        "box": BOX_WEIGHT * torch.cat(boxes).sum() / assigned,
        "class": torch.cat(classes).sum() / assigned,
        "object": torch.stack(objectness).sum() / assigned,
    }


def _assign(truths: Tensor, head: Head, best_anchor: Tensor) -> tuple[Tensor, Tensor]:
    """Return pairs of truth and anchor: those that fit in shape, and each truth's best one where it is this head's."""
    ratio = truths[:, None, 4:6] / head.anchors
    fits = torch.maximum(ratio, 1 / ratio).amax(dim=2) < ANCHOR_RATIO
    fits |= best_anchor[:, None] == torch.arange(len(head.anchors))
    truth_index, anchor = fits.nonzero().unbind(1)
    return truth_index, anchor


def _shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return [N, M]: the IoU of widths and heights [N, 2] and [M, 2] as if the boxes were concentric."""
    inter = torch.minimum(a[:, None], b).prod(dim=2)
    return inter / (a.prod(dim=1)[:, None] + b.prod(dim=1) - inter)


def _xyxy(cxcywh: Tensor) -> Tensor:
    half = cxcywh[:, 2:] / 2
    return torch.cat([cxcywh[:, :2] - half, cxcywh[:, :2] + half], dim=1)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of boxes that are broadcast against each other, [..., 4]."""
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(dim=-1) for box in (a, b))
    return inter / (area_a + area_b - inter + 1e-7)


def _complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return CIoU of pairs (Zheng et al., "Distance-IoU Loss", AAAI 2020, equations 7 and 9-11)."""
    iou = _iou(a, b)
    diagonal = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).square().sum(dim=1)
    distance = ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2).square().sum(dim=1)
    angle_a, angle_b = (torch.atan2(*(box[:, 2:] - box[:, :2]).unbind(1)) for box in (a, b))
    aspect = (4 / math.pi**2) * (angle_a - angle_b).square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + 1e-7)
    return iou - distance / (diagonal + 1e-7) - weight * aspect


@torch.no_grad()
def _is_good_enough(predicted: Tensor, truths: Tensor) -> Tensor:
    """Return [N, A, rows, columns]: whether a prediction overlaps any truth of its image by more than IGNORE_IOU."""
    good = torch.zeros(predicted.shape[:-1], dtype=torch.bool)
    for number in range(len(predicted)):
        mine = _xyxy(truths[truths[:, 0] == number, 2:6])
        if len(mine):
            good[number] = (_iou(predicted[number].unsqueeze(-2), mine) > IGNORE_IOU).any(dim=-1)
    return good


def _start_with_empty_cells(net: DarknetNetwork) -> None:
    """Let every cell say "nothing here" at first: else the many empty ones drown the few that matter."""
    for index, section in enumerate(net.sections):
        if section.kind == "yolo":
            bias = net.layers[index - 1][0].bias.data.view(-1, 15)  # type: ignore[index]
            bias[:, 4] = math.log(FIRST_OBJECTNESS)


@torch.no_grad()
def _update_average(average: DarknetNetwork, net: DarknetNetwork, step: int) -> None:
    decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
    for kept, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)


def _has_bfloat16() -> bool:
    """Tell whether the processor computes in bfloat16; where PyTorch emulates it, float32 is five times faster."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def train(steps: int, seed: int, workers: int, checkpoint: Path) -> DarknetNetwork:
    """Train and return the averaged network; it is also written to `checkpoint` now and then."""
    torch.manual_seed(seed)
    net = DarknetNetwork(HERE / "digits.cfg")
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in PyTorch's annotations
    _start_with_empty_cells(net)
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.1, final_div_factor=100
    )
    use_bfloat16 = _has_bfloat16()
    started = time.monotonic()
    for step, (images, truths) in enumerate(batches(seed, steps, net.input_hw, workers), start=1):
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=use_bfloat16):
            raw_maps = net(inputs.contiguous(memory_format=torch.channels_last))
        losses = detection_loss(raw_maps, net.heads, torch.from_numpy(truths))
        optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10)
        optimizer.step()
        schedule.step()
        _update_average(average, net, step)
        if step % 50 == 0 or step == steps:
            parts = "  ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(f"step {step}/{steps}  {parts}  {time.monotonic() - started:.0f} s", flush=True)
            save_weights(average, checkpoint, seen=step * BATCH)
    average.eval()
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the digit detector and write Darknet weights.")
    parser.add_argument("--out", type=Path, default=Path("digits.weights"), help="weights file to write")
    parser.add_argument("--steps", type=int, default=2000, help=f"steps of {BATCH} scenes (default: 2000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="processes that make scenes (default: 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.steps, arguments.seed, arguments.workers, arguments.out)


if __name__ == "__main__":
    main()
