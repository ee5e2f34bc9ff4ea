"""For torch.hub: `torch.hub.load("path/of/a/clone", "backbone", weights, source="local")`. See docs/weights.md."""

dependencies = ["torch", "torchvision", "numpy", "pydantic", "yaml", "safetensors"]


def backbone(weights):
    """The RGB backbone of `weights`, in eval mode: clips (B, 3, T, H, W) -> features (B, feature_dim).

    `weights` is a file of mscl, torchvision, MMAction2 or PySlowFast, a folder of `mscl publish`, or hf://user/name@revision.
    """
    from mscl import load_backbone

    return load_backbone(weights)
