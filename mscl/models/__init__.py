"""Networks, losses and methods of pretraining; `mscl.models.methods.mscl` is the algorithm on one page."""
