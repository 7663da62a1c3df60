"""Training images made on the training device: worker processes only cut out the pixels that will be visible.

A plan's matrices are inverted: every pixel of a sample is interpolated once, from the one image that is
visible there. Boxes are those of the plan, as in data/augment/render.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.augment.plan import Layer, Plan
from data.augment.warp import averaged, corners, shift, transform
from data.batch import Batch, concatenated, numbered
from data.letterbox import GRAY, Letterbox, fit, resize

CHUNK = 16  # samples drawn at once: bounds the memory for coordinates
_SLOTS = 4  # images in a layer


class Pieces(NamedTuple):
    """What a sample is drawn from: the visible piece of each image, and patches that are pasted on top.

    Attributes:
        pixels: (N, 3) uint8 BGR: all pieces and patches, one after the other, row by row.
        inverse: (L, 4, 3, 3) float32: pixels of the sample -> pixels of a layer's piece.
        place: (L, 4, 3) int64: the piece's first index in `pixels`, height and width; 0, 0, 0: there is none.
        patches: (P, 6) int64: layer, x, y on the sample, first index in `pixels`, height, width.
        opacity: (M, 1) float32: of the patches' pixels, one patch after the other.
        weight: share of the first of two layers.
        colors: (3,) float32 factors of hue, saturation and brightness.
    """

    pixels: Tensor
    inverse: Tensor
    place: Tensor
    patches: Tensor
    opacity: Tensor
    weight: float
    colors: Tensor


@dataclass(frozen=True)
class PlannedSample:
    """A sample without its image: `pieces` to draw it from, and the rest as in `Sample`."""

    pieces: Pieces
    labels: Tensor
    ignores: Tensor
    index: int
    letterbox: Letterbox
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedBatch:
    """Samples to be drawn by `render`.

    Attributes:
        pixels: (N, 3) uint8 BGR of all samples.
        inverse: (B, 2, 4, 3, 3) float32; see Pieces.
        place: (B, 2, 4, 3) int64.
        patches: (P, 7) int64: sample, then as in Pieces.
        opacity: (M, 1) float32.
        weights: (B,) float32 share of the first layer.
        colors: (B, 3) float32.
        mixed: indices of the samples that have two layers.
        shape: height and width of the samples.
        targets, ignores, indices, letterboxes: as in Batch.
    """

    pixels: Tensor
    inverse: Tensor
    place: Tensor
    patches: Tensor
    opacity: Tensor
    weights: Tensor
    colors: Tensor
    mixed: list[int]
    shape: tuple[int, int]
    targets: Tensor
    ignores: Tensor
    indices: list[int]
    letterboxes: list[Letterbox]

    def _tensors(self) -> dict[str, Tensor]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def pin_memory(self) -> PlannedBatch:
        """Return the batch in page-locked memory; the DataLoader calls it."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self._tensors().items()})  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> PlannedBatch:
        """Return the batch on a device, without waiting for the copy."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]


def pieces_of(plan: Plan) -> Pieces:
    """Cut out what a plan's sample shows of its images."""
    pixels: list[np.ndarray] = []
    layers = len(plan.layers)
    inverse, place = np.zeros((layers, _SLOTS, 3, 3), np.float32), np.zeros((layers, _SLOTS, 3), np.int64)
    patches, opacity, count = [], [np.zeros((0, 1), np.float32)], 0
    turn = plan.turn_matrix()
    for number, layer in enumerate(plan.layers):
        for slot, (image, matrix) in enumerate(_images_of(layer, plan.shape)):
            piece, back = _visible(*averaged(image, matrix), plan.shape, turn)
            inverse[number, slot], place[number, slot] = back, (count, *piece.shape[:2])
            pixels.append(piece.reshape(-1, 3))
            count += len(pixels[-1])
        for patch in layer.patches:
            height, width = patch.pixels.shape[:2]
            box = np.array([[patch.x, patch.y, patch.x + width, patch.y + height]], np.float64)
            turned, mask = plan.turned_pixels(patch.pixels), plan.turned_pixels(patch.opacity)
            x, y = plan.turned(box)[0, :2].astype(int)
            patches.append([number, x, y, count, *turned.shape[:2]])
            opacity.append(mask.reshape(-1, 1))
            pixels.append(turned.reshape(-1, 3))
            count += len(pixels[-1])
    colors = np.ones(3) if plan.colors is None else plan.colors
    return Pieces(
        torch.from_numpy(np.concatenate(pixels)),
        torch.from_numpy(inverse),
        torch.from_numpy(place),
        torch.tensor(patches, dtype=torch.int64).view(-1, 6),
        torch.from_numpy(np.concatenate(opacity)),
        plan.weight,
        torch.from_numpy(colors.astype(np.float32)),
    )


def _images_of(layer: Layer, shape: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images of a layer with their matrices; one that is only letterboxed is resized here."""
    if not layer.letterboxed:
        return [(image.pixels, matrix) for image, matrix in zip(layer.images, layer.matrices, strict=True)]
    image = layer.images[0].pixels
    placed, width, height = fit(image.shape[1], image.shape[0], shape)
    return [(resize(image, width, height), shift(placed.pad_x, placed.pad_y))]


def _visible(
    image: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], turn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The piece of an image that is visible, and the 3x3 from pixels of the sample to pixels of the piece."""
    back = np.linalg.inv(matrix)
    outline = transform(corners(np.array([[0, 0, shape[1], shape[0]]])), back)[0]
    limit = np.array(image.shape[1::-1])
    x0, y0 = np.clip(np.floor(outline.min(axis=0)) - 1, 0, limit).astype(int)
    x1, y1 = np.clip(np.ceil(outline.max(axis=0)) + 1, 0, limit).astype(int)
    return image[y0:y1, x0:x1], shift(-x0, -y0) @ back @ np.linalg.inv(turn)


def collate_planned(results: Sequence[PlannedSample | str]) -> tuple[PlannedBatch | None, list[str]]:
    """Return the batch of the samples (None if there are none) and what was wrong with the others."""
    samples = [result for result in results if isinstance(result, PlannedSample)]
    problems = [result for result in results if isinstance(result, str)]
    problems += [problem for sample in samples for problem in sample.problems]
    if not samples:
        return None, problems
    pieces = [sample.pieces for sample in samples]
    inverse = torch.zeros(len(samples), 2, _SLOTS, 3, 3)
    place = torch.zeros(len(samples), 2, _SLOTS, 3, dtype=torch.int64)
    patches, start = [], 0
    for number, piece in enumerate(pieces):
        layers = len(piece.inverse)
        inverse[number, :layers], place[number, :layers] = piece.inverse, piece.place
        place[number, :, :, 0] += start
        moved = piece.patches + torch.tensor([0, 0, 0, start, 0, 0])
        patches.append(torch.cat([torch.full((len(moved), 1), number), moved], dim=1))
        start += len(piece.pixels)
    box = samples[0].letterbox
    batch = PlannedBatch(
        concatenated([piece.pixels for piece in pieces]),
        inverse,
        place,
        torch.cat(patches),
        torch.cat([piece.opacity for piece in pieces]),
        torch.tensor([piece.weight for piece in pieces]),
        torch.stack([piece.colors for piece in pieces]),
        [number for number, piece in enumerate(pieces) if len(piece.inverse) == 2],
        (box.height, box.width),
        numbered([sample.labels for sample in samples]),
        numbered([sample.ignores for sample in samples]),
        [sample.index for sample in samples],
        [sample.letterbox for sample in samples],
    )
    return batch, problems


def render(planned: PlannedBatch, device: torch.device | str) -> Batch:
    """Draw the samples of a batch on a device; nothing waits for the device.

    Returns:
        The batch with images (B, 3, H, W) uint8 RGB, and all tensors on the device.
    """
    patches = planned.patches.tolist()  # read before the copy, so that nothing waits for it
    batch = planned.to(device)
    images = torch.cat(
        [
            _drawn(batch, patches, list(range(start, min(start + CHUNK, len(batch.indices)))))
            for start in range(0, len(batch.indices), CHUNK)
        ]
    )
    return Batch(images, batch.targets, batch.ignores, batch.indices, batch.letterboxes)


def _drawn(batch: PlannedBatch, patches: list[list[int]], members: list[int]) -> Tensor:
    """(b, 3, H, W) uint8 RGB: the samples with the indices `members`."""
    image = _layer(batch, patches, members, 0)  # (b, H, W, 3)
    mixed = [place for place, member in enumerate(members) if member in set(batch.mixed)]
    if mixed:
        chosen = [members[place] for place in mixed]
        second = _layer(batch, patches, chosen, 1)
        weight = batch.weights[chosen].view(-1, 1, 1, 1)
        image[mixed] = image[mixed] * weight + second * (1 - weight)
    image = change_colors(image, batch.colors[members[0] : members[-1] + 1])
    return image.round_().to(torch.uint8).flip(-1).permute(0, 3, 1, 2).contiguous()


def _layer(batch: PlannedBatch, patches: list[list[int]], members: list[int], layer: int) -> Tensor:
    """(b, H, W, 3) float32 BGR: one layer of the samples with the indices `members`."""
    height, width = batch.shape
    device = batch.pixels.device
    x = torch.arange(width, device=device) + 0.5
    y = (torch.arange(height, device=device) + 0.5)[:, None]
    shape = (len(members), height, width)
    covered = torch.zeros(shape, dtype=torch.bool, device=device)
    first = torch.zeros(shape, dtype=torch.int64, device=device)
    column, row = torch.zeros(2, *shape, device=device)
    size = torch.ones(2, *shape, dtype=torch.int64, device=device)  # height and width of the piece
    chosen = torch.tensor(members).to(device, non_blocking=True)
    for slot in range(_SLOTS):
        # sums instead of matrix products, which reduced precision (TF32) would move by whole pixels
        m = batch.inverse[chosen, layer, slot].view(-1, 9, 1, 1)
        start, high, wide = batch.place[chosen, layer, slot].T[..., None, None]  # each (b, 1, 1)
        depth = m[:, 6] * x + m[:, 7] * y + m[:, 8]
        u = (m[:, 0] * x + m[:, 1] * y + m[:, 2]) / depth  # (b, H, W)
        v = (m[:, 3] * x + m[:, 4] * y + m[:, 5]) / depth
        inside = (u >= 0) & (v >= 0) & (u <= wide) & (v <= high) & (wide * high > 0)
        covered |= inside
        first = torch.where(inside, start, first)
        column, row = torch.where(inside, u, column), torch.where(inside, v, row)
        size = torch.where(inside, torch.stack([high, wide]).expand_as(size), size)
    image = _interpolated(batch.pixels, first, column, row, size)
    image = torch.where(covered[..., None], image, float(GRAY))
    _paste(image, batch, patches, members, layer)
    return image


def _interpolated(pixels: Tensor, first: Tensor, column: Tensor, row: Tensor, size: Tensor) -> Tensor:
    """Pixels (N, 3) at places (b, H, W) inside pieces that begin at `first` -> (b, H, W, 3) float32."""
    high, wide = size
    column = torch.minimum((column - 0.5).clamp(min=0), wide - 1.0)
    row = torch.minimum((row - 0.5).clamp(min=0), high - 1.0)
    left, top = column.long(), row.long()
    across, down = (column - left)[..., None], (row - top)[..., None]
    right, bottom = torch.minimum(left + 1, wide - 1), torch.minimum(top + 1, high - 1)
    upper, lower = first + top * wide, first + bottom * wide
    above = torch.lerp(pixels[upper + left].float(), pixels[upper + right].float(), across)
    below = torch.lerp(pixels[lower + left].float(), pixels[lower + right].float(), across)
    return torch.lerp(above, below, down)


def _paste(
    image: Tensor, batch: PlannedBatch, patches: list[list[int]], members: list[int], layer: int
) -> None:
    """Draw the patches of a layer onto its samples (b, H, W, 3), in place."""
    positions = {member: place for place, member in enumerate(members)}
    start = 0
    for member, number, x, y, first, height, width in patches:
        area = height * width
        if number == layer and member in positions:
            region = image[positions[member], y : y + height, x : x + width]
            pixels = batch.pixels[first : first + area].view(height, width, 3).float()
            region.lerp_(pixels, batch.opacity[start : start + area].view(height, width, 1))
        start += area


def change_colors(image: Tensor, factors: Tensor) -> Tensor:
    """Multiply hue, saturation and brightness of BGR images (b, H, W, 3), 0..255, by factors (b, 3)."""
    hue_gain, saturation_gain, value_gain = factors.T[..., None, None]  # each (b, 1, 1)
    high, low = image.amax(-1), image.amin(-1)
    blue, green, red = image.unbind(-1)
    span = high - low
    divisor = span.clamp(min=1e-6)
    sector = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = (sector % 6 * hue_gain) % 6  # sixths of the circle
    saturation = (span / high.clamp(min=1e-6) * saturation_gain).clamp(max=1)
    value = (high * value_gain).clamp(max=255)
    # of each channel: how far it stays under the value, by the distance of its own hue
    offsets = torch.tensor([1.0, 3.0, 5.0]).to(image.device, non_blocking=True)
    place = (hue[..., None] + offsets) % 6
    depth = torch.minimum(place, 4 - place).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * depth)
