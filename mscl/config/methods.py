"""What a pretraining method is made of, the families of methods, and the methods that have a name (docs/method.md, docs/rivals.md).

How to add a family or a method: docs/extending.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mscl.config.module_path import refuse_unknown
from mscl.config.validation import Strict


@dataclass(frozen=True)
class Family:
    """What a family of methods looks at, so that a configuration can be checked without loading its network."""

    network: str  # module path of its class (`mscl.models.method.Method` says what it must have)
    flow: Literal["no", "optional", "needed"] = "no"
    parts: tuple[str, ...] = ()  # the switches that it knows, beside `flow`
    clips: int | None = 2  # of a video in a step; None: any number from 2
    ordered: bool = False  # whether it asks which clip comes first


FAMILIES: dict[str, Family] = {
    "mscl": Family("mscl.models.methods.mscl:MSCL", flow="optional", parts=("flow_contrast", "rotated", "lmcl", "fra", "mds")),
    "rho-moco": Family("mscl.models.methods.rho_moco:RhoMoCo", clips=None),
    "modist": Family("mscl.models.methods.modist:MoDist", flow="needed", parts=("flow_contrast",)),
    "corp-m": Family("mscl.models.methods.corp:CorpM", clips=None, ordered=True),
    "corp-f": Family("mscl.models.methods.corp:CorpF", ordered=True),
    "simsiam": Family("mscl.models.methods.simsiam:SimSiam"),
}


def family_of(name: str) -> Family:
    """The row of a family; one given by module path may look at anything."""
    own = ("flow_contrast", "rotated", "lmcl", "fra", "mds")
    return FAMILIES.get(name) or Family(name, flow="optional", parts=own, clips=None, ordered=True)


def _known(name: str) -> str:
    refuse_unknown("family", name, list(FAMILIES))
    return name


class Switches(Strict):
    """The family of a method, and which of its parts are switched on."""

    family: Annotated[str, AfterValidator(_known)] = "mscl"
    clips: Annotated[int, Field(ge=2)] = 2  # of each video in a step
    pretrain: bool = True
    flow: bool = False  # flow MoCo and the cross-modal terms
    flow_contrast: bool = True  # with flow: flow's own contrast, beside the cross-modal terms
    rotated: bool = False  # rotated flow at clip level
    lmcl: bool = False
    fra: Literal["none", "paper", "released"] = "none"
    mds: bool = False
    options: dict[str, bool | int | float | str] = {}  # of a family of your own: whatever its class reads

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
        self._suit_the_family()
        return self

    def _suit_the_family(self) -> None:
        """Refuse what the family does not look at."""
        family = family_of(self.family)
        if family.flow == "needed" and self.pretrain and not self.flow:
            raise ValueError(f"family {self.family} looks at flow: set flow: true")
        unknown = {"flow_contrast", "rotated", "lmcl", "fra", "mds"} - set(family.parts)
        unknown |= {"flow"} if family.flow == "no" else set()
        for name in (n for n in Switches.model_fields if n in unknown):
            if getattr(self, name) != Switches.model_fields[name].default:
                raise ValueError(f"{name} is no part of family {self.family}: remove it, or set family: mscl")
        if family.clips and self.clips != family.clips:
            others = " or ".join(name for name, row in FAMILIES.items() if row.clips is None)
            raise ValueError(
                f"family {self.family} looks at {family.clips} clips of a video: remove clips, or set family: {others}"
            )

    @property
    def ordered(self) -> bool:
        """Whether the method asks which of two clips comes first."""
        return family_of(self.family).ordered

    @property
    def network(self) -> str:
        """Module path of the class of its network."""
        return family_of(self.family).network


@dataclass(frozen=True)
class Method:
    """A method that has a name: its switches, its title in tables and figures, and what it changes of `augment`."""

    switches: Switches
    title: str = ""  # that of its paper where it has one
    augment: dict[str, str] = field(default_factory=dict)


METHODS: dict[str, Method] = {
    "scratch": Method(Switches(pretrain=False)),
    "moco": Method(Switches()),
    "baseline": Method(Switches(flow=True, rotated=True)),
    "lmcl": Method(Switches(flow=True, rotated=True, lmcl=True)),
    "lmcl+fra": Method(Switches(flow=True, rotated=True, lmcl=True, fra="paper")),
    "lmcl+mds": Method(Switches(flow=True, rotated=True, lmcl=True, mds=True)),
    "mscl": Method(Switches(flow=True, rotated=True, lmcl=True, fra="paper", mds=True)),
    "mscl-released": Method(Switches(flow=True, rotated=True, lmcl=True, fra="released", mds=True), augment={"colours": "frame"}),
    "rho-moco-2": Method(Switches(family="rho-moco", clips=2), "ρMoCo (ρ = 2)"),
    "rho-moco-3": Method(Switches(family="rho-moco", clips=3), "ρMoCo (ρ = 3)"),
    "rho-moco-4": Method(Switches(family="rho-moco", clips=4), "ρMoCo (ρ = 4)"),
    "modist": Method(Switches(family="modist", flow=True, flow_contrast=False), "MoDist"),
    "modist+flow": Method(Switches(family="modist", flow=True), "MoDist + flow→flow"),
    "corp-m": Method(Switches(family="corp-m"), "CORP_m"),
    "corp-f": Method(Switches(family="corp-f"), "CORP_f"),
    "simsiam": Method(Switches(family="simsiam"), "SimSiam"),
}
