"""Mean and standard deviation of the colours that a network wants its clips normalised by."""

from __future__ import annotations

from typing import Any, NamedTuple

RGB = tuple[float, float, float]


class Colours(NamedTuple):
    """Of red, green and blue in [0, 1]: a network gets (clip - mean) / std."""

    mean: RGB
    std: RGB

    def note(self) -> dict[str, list[float]]:
        """For the metadata of a file of weights; nothing for ImageNet's, which a file without a note means."""
        return {} if self == IMAGENET else {"mean": list(self.mean), "std": list(self.std)}


IMAGENET = Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def noted(metadata: dict[str, Any]) -> Colours:
    """The colours in the metadata of a file of weights. Raises ValueError for what are not three numbers each."""
    if not {"mean", "std"} & metadata.keys():
        return IMAGENET
    try:
        mean, std = (tuple(float(v) for v in metadata[key]) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        mean = std = ()
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError("its mean and std are not three numbers each")
    return Colours(mean, std)
