"""Networks and losses of MSCL; `mscl.models.mscl` is the algorithm on one page."""
