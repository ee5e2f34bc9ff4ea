"""One training step of MSCL on random clips, from a batch to its loss terms. It needs no data and writes no file.

After `make install` and `. .venv/bin/activate`, in seconds on a CPU:

    python examples/train_step.py
"""

import torch

from mscl.config.methods import METHODS
from mscl.config.recipes import Optim
from mscl.config.settings import Augment, ClipConfig, Contrast
from mscl.models.build import build_method
from mscl.stages.jobs import Net, PretrainJob
from mscl.training.clips import random_batch
from mscl.training.pretrain import PretrainStep
from mscl.training.recipe import make_optimizer
from mscl.training.step import train_step

# A job holds every setting that pretraining uses and nothing else. The workflow makes it from a configuration; here it is
# written out. `sources` are the prepared data sets: none, since the clips of this example are random numbers.
job = PretrainJob(
    method="mscl",
    seed=0,
    switches=METHODS["mscl"].switches,  # flow, rotated flow, LMCL and FRA are on (MDS acts in the loader, so not here)
    net=Net(backbone="r3d_18", width=4, size=32, flow_width=4, neck=16, neck_blocks=2),  # thin: the paper's R18 has width 64
    optim=Optim(lr=0.02, batch=8, epochs=1),
    sources=(),
    split="train",
    clip=ClipConfig(frames=8),  # LMCL pairs the 4 times of an 8-frame clip with the 4 fields that the flow network keeps
    augment=Augment(),
    contrast=Contrast(dim=16, queue=64, bn_groups=2),  # shuffled batch norm in 2 groups, as 2 GPUs would have it
    device="cpu",
    threads=1,
)

torch.manual_seed(job.seed)
method = build_method(job.net, job.contrast, job.switches)  # both query encoders, their key copies, queues, and the neck
method.train()
optimizer = make_optimizer(method, job.optim)  # over the query encoders and the neck: key encoders have no gradient

# What the loader gives: uint8 frames and flow planes of a query and a key clip of each video, not yet augmented.
batch = random_batch(job.switches, job.clip, job.net.size, job.optim.batch)
for name, tensor in batch.items():
    print(f"{name:13} {tuple(tensor.shape)} {tensor.dtype}")

# One step: move the key encoders, augment, compute the terms, backward, move the optimiser, enqueue the keys.
terms = train_step(PretrainStep(method, job), batch, optimizer, job.optim, seed=job.seed, number=0, total=1)
for name, value in terms.items():  # `loss` is the sum of the loss_… terms, all of weight 1; acc_… are top-1 accuracies
    print(f"{name:20} {value:.3f}")
