import numpy as np
import pytest
import torch
from torch import nn

from mscl.evaluation.gradcam import draw_rows, gradcam, stage_grid

TIME, ROW, COLUMN = 5, 12, 4


class Brightness(nn.Module):
    """The score of class 1 is the mean red, that of class 0 the mean green: only red pixels are evidence for class 1."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv3d(3, 2, 1, bias=False)
        conv.weight.data = torch.tensor([[0.0, 1, 0], [1, 0, 0]]).reshape(2, 3, 1, 1, 1)
        self.backbone = nn.Module()
        self.backbone.layer4 = nn.Sequential(nn.AvgPool3d((1, 2, 2)), nn.Sequential(conv, nn.ReLU(inplace=True)))
        self.backbone.gradcam_layer = self.backbone.layer4[-1]
        self.fc = nn.Linear(2, 2, bias=False)
        self.fc.weight.data = torch.eye(2)

    def forward(self, x_BCTHW):
        return self.fc(self.backbone.layer4(x_BCTHW).mean(dim=(2, 3, 4)))


def clip():
    clip_BCTHW = torch.zeros(2, 3, 8, 16, 16)
    clip_BCTHW[:, 0, TIME, ROW : ROW + 2, COLUMN : COLUMN + 2] = 1
    clip_BCTHW[:, 1] = 0.5
    return clip_BCTHW


def test_heat_is_at_the_place_and_time_of_the_class():
    model = Brightness().train()
    heat = gradcam(model, clip(), 1)
    assert heat.shape == (2, 8, 16, 16) and heat.dtype == np.float32
    time, row, column = np.unravel_index(heat[0].argmax(), heat[0].shape)
    assert time == TIME and row in (ROW, ROW + 1) and column in (COLUMN, COLUMN + 1)
    assert heat.min() == 0 and heat.max() == 1 and heat[0, :TIME].max() == 0
    assert stage_grid(model, clip()) == (8, 8, 8)
    assert model.training and all(p.grad is None for p in model.parameters())


def test_without_positive_evidence_the_heat_is_zero():
    assert not gradcam(Brightness(), torch.zeros(1, 3, 8, 16, 16), torch.tensor([1])).any()


def test_the_same_input_gives_the_same_figure(tmp_path):
    frames = (np.random.default_rng(0).random((16, 24, 32, 3)) * 255).astype(np.uint8)
    heat = np.linspace(0, 1, 16 * 24 * 32, dtype=np.float32).reshape(16, 24, 32)
    for name in ("a.png", "b.png"):
        draw_rows(
            frames, {"mscl": heat, "baseline": heat[::-1]}, "Pushing $5 or $6_^ left", tmp_path / name, {"mscl": "left\np = 0.81"}
        )
    first, second = (tmp_path / "a.png").read_bytes(), (tmp_path / "b.png").read_bytes()
    assert first == second and first.startswith(b"\x89PNG") and b"tEXt" not in first


def test_heat_of_another_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="heat of 'mscl' has shape"):
        draw_rows(np.zeros((8, 4, 4, 3), np.uint8), {"mscl": np.zeros((8, 5, 5))}, "t", tmp_path / "x.png")
