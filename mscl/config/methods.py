"""What a pretraining method is made of, and the methods that have a name (docs/method.md §7, docs/rivals.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mscl.config.validation import Strict

Family = Literal["mscl", "rho-moco", "modist", "corp-m", "corp-f"]
MSCL_ONLY = ("rotated", "lmcl", "fra", "mds")


class Switches(Strict):
    """The family of a method, and which of its parts are switched on."""

    family: Family = "mscl"
    clips: Annotated[int, Field(ge=2)] = 2  # of each video in a step
    pretrain: bool = True
    flow: bool = False  # flow MoCo and the cross-modal terms
    flow_contrast: bool = True  # with flow: flow's own contrast, beside the cross-modal terms
    rotated: bool = False  # rotated flow at clip level
    lmcl: bool = False
    fra: Literal["none", "paper", "released"] = "none"
    mds: bool = False

    @model_validator(mode="after")
    def possible(self) -> Switches:
        if not self.pretrain and self.model_dump(exclude={"pretrain"}) != Switches().model_dump(exclude={"pretrain"}):
            raise ValueError("without pretraining nothing else can be switched on: set pretrain: true")
        if self.mds and not self.flow:
            raise ValueError("mds chooses clips by their flow: set flow: true")
        if (self.rotated or self.lmcl or self.fra != "none") and not self.flow:
            raise ValueError("rotated, lmcl and fra need the flow network: set flow: true")
        if self.fra != "none" and not self.lmcl:
            raise ValueError("fra gives LMCL its extra negatives: set lmcl: true, or fra: none")
        if not self.flow_contrast and not self.flow:
            raise ValueError("flow_contrast is a term of the flow network: set flow: true, or remove it")
        self._of_the_family()
        return self

    def _of_the_family(self) -> None:
        """Refuse what the family would not look at."""
        defaults = Switches.model_fields
        foreign = {"mscl": (), "modist": MSCL_ONLY}.get(self.family, ("flow", *MSCL_ONLY))
        if self.family == "modist" and self.pretrain and not self.flow:
            raise ValueError("family modist looks at flow: set flow: true")
        for name in foreign:
            if getattr(self, name) != defaults[name].default:
                raise ValueError(f"{name} is no part of family {self.family}: remove it, or set family: mscl")
        if self.clips != 2 and self.family not in ("rho-moco", "corp-m"):
            raise ValueError(f"family {self.family} looks at 2 clips of a video: remove clips, or set family: rho-moco or corp-m")

    @property
    def ordered(self) -> bool:
        """Whether the method asks which of two clips comes first."""
        return self.family in ("corp-m", "corp-f")


METHODS: dict[str, Switches] = {
    "scratch": Switches(pretrain=False),
    "moco": Switches(),
    "baseline": Switches(flow=True, rotated=True),
    "lmcl": Switches(flow=True, rotated=True, lmcl=True),
    "lmcl+fra": Switches(flow=True, rotated=True, lmcl=True, fra="paper"),
    "lmcl+mds": Switches(flow=True, rotated=True, lmcl=True, mds=True),
    "mscl": Switches(flow=True, rotated=True, lmcl=True, fra="paper", mds=True),
    "mscl-released": Switches(flow=True, rotated=True, lmcl=True, fra="released", mds=True),
    "rho-moco-2": Switches(family="rho-moco", clips=2),
    "rho-moco-3": Switches(family="rho-moco", clips=3),
    "rho-moco-4": Switches(family="rho-moco", clips=4),
    "modist": Switches(family="modist", flow=True, flow_contrast=False),
    "modist+flow": Switches(family="modist", flow=True),
    "corp-m": Switches(family="corp-m"),
    "corp-f": Switches(family="corp-f"),
}
# A family's own module: an edit of it reruns that family's methods only. All share mscl.models.methods.mscl.
OWN_MODULES: dict[Family, str] = {
    "rho-moco": "mscl.models.methods.rho_moco",
    "modist": "mscl.models.methods.modist",
    "corp-m": "mscl.models.methods.corp",
    "corp-f": "mscl.models.methods.corp",
}


def modules_of_others(family: Family) -> frozenset[str]:
    """Modules that belong to other families alone: an edit of one changes nothing for this one."""
    return frozenset(OWN_MODULES.values()) - {OWN_MODULES.get(family)}


TITLES = {f"rho-moco-{clips}": f"ρMoCo (ρ = {clips})" for clips in (2, 3, 4)}
TITLES |= {"modist": "MoDist", "modist+flow": "MoDist + flow→flow", "corp-m": "CORP_m", "corp-f": "CORP_f"}


def title(method: str) -> str:
    """The name of a method in tables and figures: that of its paper where it has one, else the configuration's."""
    return TITLES.get(method, method)
