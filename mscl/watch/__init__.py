"""Progress display of a run: progress bars, curves and FLOPs. None of it is part of the results."""
