"""MSCL once more: slow, obvious, in float64, written from method.md's formulas and not from the package.

`test_reference.py` holds the package against it. Formulas are loops over plain numbers or over single
vectors. Only the networks (backbones, flow network, neck, 1x1 convolution before LMCL) are the package's
modules, in double precision: they are architecture. Pooling, heads, losses, queues, momentum copies and
the optimiser are written out. Where method.md leaves a choice open, a comment says what is taken here.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

# --- flow: normalisation, FRA, colour (§1, §5) -----------------------------------------------------


def normalise(field_2HW: np.ndarray) -> np.ndarray:
    """(u, v) / (largest radius of the field + 1e-5)."""
    largest = max(math.sqrt(u * u + v * v) for u, v in zip(field_2HW[0].flat, field_2HW[1].flat))
    return field_2HW / (largest + 1e-5)


ANGLES = [(0.2 + 0.2 * c) * math.pi for c in range(8)]  # FRA's: 36 to 288 degrees


def rotate(field_2HW: np.ndarray, angle: float) -> np.ndarray:
    """Every vector turned by `angle` as a complex number is by a factor exp(i angle); pixels stay where they are."""
    turned = (field_2HW[0] + 1j * field_2HW[1]) * complex(math.cos(angle), math.sin(angle))
    return np.stack([turned.real, turned.imag])


def mirror(field_2HW: np.ndarray) -> np.ndarray:
    """What a camera sees of a mirrored scene: columns in reverse, and u negated."""
    out = np.empty_like(field_2HW)
    width = field_2HW.shape[2]
    for x in range(width):
        out[0, :, x] = -field_2HW[0, :, width - 1 - x]
        out[1, :, x] = field_2HW[1, :, width - 1 - x]
    return out


def wheel() -> list[tuple[float, float, float]]:
    """Middlebury's 55 hues (R, G, B), 0..255: 15 from red to yellow, 6 to green, 4 to cyan, 11 to blue, 13 to magenta, 6 to red."""
    hues = [(255, math.floor(255 * i / 15), 0) for i in range(15)]
    hues += [(255 - math.floor(255 * i / 6), 255, 0) for i in range(6)]
    hues += [(0, 255, math.floor(255 * i / 4)) for i in range(4)]
    hues += [(0, 255 - math.floor(255 * i / 11), 255) for i in range(11)]
    hues += [(math.floor(255 * i / 13), 0, 255) for i in range(13)]
    hues += [(255, 0, 255 - math.floor(255 * i / 6)) for i in range(6)]
    return hues


WHEEL = wheel()


def colour(u: float, v: float) -> tuple[float, float, float]:
    """Colour of one vector of radius at most 1, in [0, 1]: between two hues by direction, towards white by lack of radius."""
    radius = math.sqrt(u * u + v * v)
    position = (math.atan2(-v, -u) / math.pi + 1) / 2 * (len(WHEEL) - 1)
    low = math.floor(position)
    high = (low + 1) % len(WHEEL)
    part = position - low
    hue = [((1 - part) * a + part * b) / 255 for a, b in zip(WHEEL[low], WHEEL[high])]
    return tuple(1 - radius * (1 - c) for c in hue)


def image(field_2HW: np.ndarray) -> np.ndarray:
    """Colour-wheel image (3, H, W) of a normalised field."""
    _, height, width = field_2HW.shape
    out = np.empty((3, height, width))
    for y in range(height):
        for x in range(width):
            out[:, y, x] = colour(field_2HW[0, y, x], field_2HW[1, y, x])
    return out


def clip_images(flow_B2THW: np.ndarray, angle_B=None) -> Tensor:
    """What the flow network sees of raw fields: rotated (FRA; one angle per clip), normalised, coloured. (B, 3, T, H, W)."""
    batch, _, times, height, width = flow_B2THW.shape
    out = torch.empty(batch, 3, times, height, width, dtype=torch.float64)
    for b in range(batch):
        for t in range(times):
            one = flow_B2THW[b, :, t].astype(np.float64)
            one = one if angle_B is None else rotate(one, float(angle_B[b]))
            out[b, :, t] = torch.from_numpy(image(normalise(one)))
    return out


# --- MDS (§6) --------------------------------------------------------------------------------------


def sobel(plane_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """3x3 Sobel responses in x and y. The border is taken as mirrored about its last pixel (method.md leaves it open)."""
    kernel = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))
    height, width = plane_HW.shape
    inside = lambda i, n: -i if i < 0 else 2 * (n - 1) - i if i >= n else i
    dx, dy = np.zeros((height, width)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    value = plane_HW[inside(y + i, height), inside(x + j, width)]
                    dx[y, x] += kernel[i + 1][j + 1] * value
                    dy[y, x] += kernel[j + 1][i + 1] * value
    return dx, dy


def motion(field_2HW: np.ndarray) -> np.ndarray:
    """m: root of the summed squared Sobel responses, in x and y, of u and v."""
    return np.sqrt(sum(d**2 for plane in field_2HW for d in sobel(plane)))


def pooled(plane_HW: np.ndarray, pool: int) -> np.ndarray:
    """Means by a kernel of pool x pool pixels, stride pool, of a field of 384 x 640; the rest is dropped.

    On a field of another size the kernel scales with it: as many cells, which cover the same share of it. Cell i covers rows
    floor(i R / n) to ceil((i + 1) R / n) - 1 of the R rows that n cells cover.
    """
    height, width = plane_HW.shape
    rows, columns = min(384 // pool, height), min(640 // pool, width)
    covered = round(height * (384 // pool) * pool / 384), round(width * (640 // pool) * pool / 640)
    edges = lambda i, n, size: (i * size // n, -(-(i + 1) * size // n))
    out = np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            (top, bottom), (left, right) = edges(i, rows, covered[0]), edges(j, columns, covered[1])
            out[i, j] = plane_HW[top:bottom, left:right].mean()
    return out


def upsampled(cells_NM: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear: pixel y lies at (y + 1/2) N / H - 1/2 among the cells' centres, clamped to the outermost centres."""
    n, m = cells_NM.shape
    at = lambda i, size, cells: min(max((i + 0.5) * cells / size - 0.5, 0.0), cells - 1.0)
    out = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            r, c = at(y, height, n), at(x, width, m)
            r0, c0 = math.floor(r), math.floor(c)
            r1, c1 = min(r0 + 1, n - 1), min(c0 + 1, m - 1)
            above = (1 - (c - c0)) * cells_NM[r0, c0] + (c - c0) * cells_NM[r0, c1]
            below = (1 - (c - c0)) * cells_NM[r1, c0] + (c - c0) * cells_NM[r1, c1]
            out[y, x] = (1 - (r - r0)) * above + (r - r0) * below
    return out


def guided(field_2HW: np.ndarray, pool: int = 28) -> np.ndarray:
    """G = A * colour wheel image (0..255), with A = m pooled, upsampled back and divided by its largest value."""
    m = motion(field_2HW)
    attention = upsampled(pooled(m, pool), *m.shape)
    return attention / attention.max() * 255 * image(normalise(field_2HW))


def differences(fields_T2HW: np.ndarray, pool: int = 28) -> list[float]:
    """d_t: spatial mean of |G_t - G_t+1| (Euclidean over the channels); 0 for the last."""
    g = [guided(f.astype(np.float64), pool) for f in fields_T2HW]
    d = []
    for now, then in zip(g[:-1], g[1:]):
        _, height, width = now.shape
        lengths = [math.dist(now[:, y, x], then[:, y, x]) for y in range(height) for x in range(width)]
        d.append(sum(lengths) / len(lengths))
    return [*d, 0.0]


def scores(d_T: list[float], stride: int = 4, fields: int = 8) -> list[float]:
    """Score of start i: the sum of d at i, i + stride, ...; terms past the end are dropped, the divisor stays."""
    return [sum(d_T[i + stride * j] for j in range(fields) if i + stride * j < len(d_T)) / fields for i in range(len(d_T))]


def allowed(scores_T: list[float]) -> list[bool]:
    """A start is allowed where its score is above the median."""
    ranked, n = sorted(scores_T), len(scores_T)
    median = ranked[n // 2] if n % 2 else (ranked[n // 2 - 1] + ranked[n // 2]) / 2
    return [score > median for score in scores_T]


# --- contrast (§4, §5) -----------------------------------------------------------------------------


@dataclass
class Queue:
    """Keys with their ages in enqueue steps."""

    keys: list[Tensor]
    ages: list[int]
    pointer: int = 0

    def enqueue(self, fresh: list[Tensor]) -> None:
        """All grow older by one step; then the fresh keys, of age 0, take the places from the pointer on."""
        self.ages = [age + 1 for age in self.ages]
        for key in fresh:
            self.keys[self.pointer], self.ages[self.pointer] = key, 0
            self.pointer = (self.pointer + 1) % len(self.keys)


def unit(x_D: Tensor) -> Tensor:
    return x_D / (x_D * x_D).sum().sqrt()


def dot(a_D: Tensor, b_D: Tensor) -> Tensor:
    return (a_D * b_D).sum()


def info_nce(queries: list[Tensor], keys: list[Tensor], queue: Queue, temperature: float, decay: float) -> Tensor:
    """Mean over the clips of -log(e^(q k/tau) / (e^(q k/tau) + sum over the queue of e^(decay^age q n/tau)))."""
    losses = []
    for q, k in zip(queries, keys):
        positive = torch.exp(dot(q, k) / temperature)
        negatives = [torch.exp(decay**age * dot(q, n) / temperature) for n, age in zip(queue.keys, queue.ages)]
        losses.append(-torch.log(positive / (positive + sum(negatives))))
    return sum(losses) / len(losses)


def lmcl(u: list, v: list, extra: list | None, temperature: float) -> Tensor:
    """Mean over clips b and times i; u[b][i], v[b][j], extra[b][j] are unit vectors of RGB, flow and rotated flow."""
    losses = []
    for b in range(len(u)):
        for i in range(len(u[b])):
            others = v[b] + (extra[b] if extra else [])
            total = sum(torch.exp(dot(u[b][i], w) / temperature) for w in others)
            losses.append(-torch.log(torch.exp(dot(u[b][i], v[b][i]) / temperature) / total))
    return sum(losses) / len(losses)


def key_momentum(progress: float, base: float = 0.994) -> float:
    """From `base` to 1 by half a cosine."""
    return 1 - (1 - base) * (1 + math.cos(math.pi * progress)) / 2


# --- optimiser (§8) --------------------------------------------------------------------------------


def cosine_rate(rate: float, step: int, total: int) -> float:
    """From `rate` to 0 over `total` steps, without warm-up."""
    return rate * (1 + math.cos(math.pi * step / total)) / 2


@dataclass
class SGD:
    """Gradients clipped together to an L2 norm, then weight decay, then momentum. A parameter without gradient stays."""

    momentum: float
    weight_decay: float
    clip: float
    velocity: dict[str, Tensor] = field(default_factory=dict)

    def clipped(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
        return {name: g * min(1.0, self.clip / norm) for name, g in gradients.items()}

    def step(self, weights: dict[str, Tensor], gradients: dict[str, Tensor], rate: float) -> None:
        for name, g in self.clipped(gradients).items():
            slope = g + self.weight_decay * weights[name].detach()
            self.velocity[name] = self.momentum * self.velocity.get(name, 0.0) + slope
            weights[name].data = weights[name].detach() - rate * self.velocity[name]


# --- the method (§3-§5, §7) ------------------------------------------------------------------------

METHODS = {  # method.md §7; MDS chooses clips and is no part of a step
    "moco": set(),
    "baseline": {"flow", "rotated"},
    "lmcl": {"flow", "rotated", "lmcl"},
    "lmcl+fra": {"flow", "rotated", "lmcl", "fra"},
    "mscl": {"flow", "rotated", "lmcl", "fra"},
    "mscl-released": {"flow", "rotated", "lmcl", "fra", "released"},
}


@dataclass
class Clip:
    """One view of B videos: normalised RGB (B, 3, T, H, W), colour-wheel images of its flow and of its rotated flow.

    `crossed` and `crossed_rotated`: the same, with the crop and flip of the other view.
    """

    rgb: Tensor
    flow: Tensor | None = None
    rotated: Tensor | None = None
    crossed: Tensor | None = None
    crossed_rotated: Tensor | None = None


def pooled_clip(map_CTHW: Tensor) -> Tensor:
    """Global average pool, (C,)."""
    return torch.stack([channel.sum() / channel.numel() for channel in map_CTHW])


def time_vectors(map_CTHW: Tensor) -> list[Tensor]:
    """Unit spatial mean at each time."""
    times, pixels = map_CTHW.shape[1], map_CTHW.shape[2] * map_CTHW.shape[3]
    return [unit(torch.stack([channel[t].sum() / pixels for channel in map_CTHW])) for t in range(times)]


def embed(head, x_C: Tensor) -> Tensor:
    """Linear, ReLU, linear, unit length; `head` is read for its weights only."""
    hidden = torch.stack([torch.clamp(dot(w, x_C) + b, min=0) for w, b in zip(head[0].weight, head[0].bias)])
    return unit(torch.stack([dot(w, hidden) + b for w, b in zip(head[2].weight, head[2].bias)]))


def encode(encoder, x_B: Tensor, groups: int) -> tuple[list[tuple], list[Tensor]]:
    """Stage maps and embedding of every clip; batch norm sees one group of the batch at a time."""
    maps, z, size = [], [], len(x_B) // groups
    for start in range(0, len(x_B), size):
        levels = encoder.backbone.maps(x_B[start : start + size])
        maps += [tuple(level[b] for level in levels) for b in range(size)]
        z += [embed(encoder.head, pooled_clip(levels[-1][b])) for b in range(size)]
    return maps, z


class Reference:
    """A training of one method, from the same weights and queues as `model` (an `mscl.models.methods.mscl.MSCL` at its start)."""

    def __init__(self, model, method: str, contrast, optimiser: SGD):
        self.parts, self.contrast, self.optimiser = METHODS[method], contrast, optimiser
        self.net = copy.deepcopy(model).double()
        modalities = ["rgb", "flow"] if "flow" in self.parts else ["rgb"]
        self.mocos = {name: getattr(self.net, name) for name in modalities}
        for moco in self.mocos.values():
            moco.key = copy.deepcopy(moco.query)
        self.queues = {name: Queue(list(m.queue.keys_KD), [0] * len(m.queue.keys_KD)) for name, m in self.mocos.items()}
        self.weights = {name: p for name, p in self.net.named_parameters() if ".key." not in name}

    def encode_keys(self, modality: str, x_B: Tensor, orders: list[list[int]]) -> list[Tensor]:
        """Keys have no gradient. With several groups they are encoded in the next of `orders` and put back (shuffle-BN)."""
        groups = self.contrast.bn_groups
        order = orders.pop(0) if groups > 1 else list(range(len(x_B)))
        _, z = encode(self.mocos[modality].key, x_B[order], groups)
        back = dict(zip(order, z))
        return [back[b].detach() for b in range(len(x_B))]

    def losses(self, query: Clip, key: Clip, orders: list[list[int]]) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
        """(terms, keys by the queue that they are to enter)."""
        tau, groups = self.contrast.temperature, self.contrast.bn_groups
        nce = lambda q, k, modality: info_nce(q, k, self.queues[modality], tau, self.contrast.decay)
        rgb_maps, q = encode(self.mocos["rgb"].query, query.rgb, groups)
        k = self.encode_keys("rgb", key.rgb, orders)
        terms, fresh = {"rgb": nce(q, k, "rgb")}, {"rgb": k}
        if "flow" not in self.parts:
            return terms, fresh
        rotated_query, flow_key = query.rotated, key.flow
        if "released" in self.parts:  # the key's unrotated flow is cropped as the query, the query's rotated flow as the key
            rotated_query, flow_key = key.crossed, query.crossed_rotated
        maps, f = encode(self.mocos["flow"].query, query.flow, groups)
        g = self.encode_keys("flow", flow_key, orders)
        terms["flow"] = nce(f, g, "flow")
        if "released" in self.parts:  # this step's keys are in the queue when the other terms look at it
            self.queues["flow"].enqueue(g)
        else:
            fresh["flow"] = g  # rotated keys are never enqueued
        terms |= {"rgb_to_flow": nce(q, g, "flow"), "flow_to_rgb": nce(f, k, "rgb")}
        rotated_maps, r = encode(self.mocos["flow"].query, rotated_query, groups)
        s = self.encode_keys("flow", key.rotated, orders)
        terms |= {"rotated": nce(r, s, "flow"), "rgb_to_rotated": nce(q, s, "flow"), "rotated_to_rgb": nce(r, k, "rgb")}
        if "lmcl" in self.parts:
            extra = self.flow_vectors(rotated_maps) if "fra" in self.parts else None
            terms["lmcl"] = lmcl(self.rgb_vectors(rgb_maps), self.flow_vectors(maps), extra, tau)
        return terms, fresh

    def rgb_vectors(self, maps: list[tuple]) -> list[list[Tensor]]:
        """u: from level 0 of the neck, which has no batch norm and so takes clip by clip."""
        return [time_vectors(self.net.neck(tuple(level[None] for level in levels))[0]) for levels in maps]

    def flow_vectors(self, maps: list[tuple]) -> list[list[Tensor]]:
        """v: from the flow network's last stage (R50: through its 1x1 convolution)."""
        return [time_vectors(self.net.to_neck(levels[-1][None])[0]) for levels in maps]

    def gradients(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the sum of the terms, each of weight 1, for every weight that it depends on."""
        found = torch.autograd.grad(sum(terms.values()), list(self.weights.values()), allow_unused=True)
        return {name: g for name, g in zip(self.weights, found) if g is not None}

    @torch.no_grad()
    def move_keys(self, number: int, total: int) -> None:
        """Before the keys of a step are encoded: key <- m key + (1 - m) query. Batch-norm statistics are the key's own.

        Released: the flow encoder moves twice a step, and each time counts the samples of a step, so that m reaches 1 half-way.
        """
        for name, moco in self.mocos.items():
            twice = "released" in self.parts and name == "flow"
            for count in (2 * number, 2 * number + 1) if twice else (number,):
                m = key_momentum(min(1.0, count / total), self.contrast.momentum)
                for k, q in zip(moco.key.parameters(), moco.query.parameters()):
                    k.copy_(m * k + (1 - m) * q)

    def step(self, query: Clip, key: Clip, orders: list[list[int]], number: int, total: int, rate: float) -> dict[str, dict]:
        """One whole step. Returns what there is to compare: terms, clipped gradients."""
        self.move_keys(number, total)
        terms, fresh = self.losses(query, key, orders)
        gradients = self.gradients(terms)
        self.optimiser.step(self.weights, gradients, cosine_rate(rate, number, total))
        for name, keys in fresh.items():
            self.queues[name].enqueue(keys)
        return {"terms": {name: t.item() for name, t in terms.items()}, "gradients": self.optimiser.clipped(gradients)}
