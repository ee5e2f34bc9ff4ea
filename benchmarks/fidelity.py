"""One step of the whole method at the paper's sizes in float32, compared with the float64 reference of the tests.

    python -m benchmarks.fidelity

R18 with 8 clips of 8 x 112 x 112, R50 with 4 clips of 8 x 224 x 224, full width, on a CPU. The queue has only 64 keys, since the
reference loops over it in Python. Prints the largest difference of a loss term (relative for terms above 1), and the relative
difference of all gradients together.
"""

from __future__ import annotations

import torch

from benchmarks.common import machine, versions
from tests.models.test_reference import PAPER_R18, PAPER_R50, gaps


def main() -> None:
    print(f"{machine()}; {versions('torch', 'torchvision')}; {torch.get_num_threads()} thread(s)")
    for name, net, batch in (("R18", PAPER_R18, 8), ("R50", PAPER_R50, 4)):
        terms, gradients = gaps(net, batch)
        print(
            f"{name}, {batch} clips of 8 x {net.size} x {net.size}: loss terms {terms:.1e}, gradients {gradients:.1e}", flush=True
        )


if __name__ == "__main__":
    main()
