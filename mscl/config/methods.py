"""The switches of a pretraining method, and the tables of families and of built-in methods (docs/method.md, docs/rivals.md).

docs/extending.md explains how to add a family or a method.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mscl.config.module_path import refuse_unknown
from mscl.config.validation import Strict, number


@dataclass(frozen=True)
class Family:
    """The inputs and switches of a family of methods, so that a configuration can be checked without importing the network."""

    network: str  # module path of its class; `mscl.models.method.Method` lists what it must have
    flow: Literal["no", "optional", "needed"] = "no"  # whether it uses optical flow
    parts: tuple[str, ...] = ()  # its switches, in addition to `flow`
    clips: int | None = 2  # clips per video in a step; None: any number of at least 2
    ordered: bool = False  # whether its loss uses the order of the clips


FAMILIES: dict[str, Family] = {
    "mscl": Family("mscl.models.methods.mscl:MSCL", flow="optional", parts=("flow_contrast", "rotated", "lmcl", "fra", "mds")),
    "rho-moco": Family("mscl.models.methods.rho_moco:RhoMoCo", clips=None),
    "modist": Family("mscl.models.methods.modist:MoDist", flow="needed", parts=("flow_contrast",)),
    "corp-m": Family("mscl.models.methods.corp:CorpM", clips=None, ordered=True),
    "corp-f": Family("mscl.models.methods.corp:CorpF", ordered=True),
    "simsiam": Family("mscl.models.methods.simsiam:SimSiam"),
}


def family_of(name: str) -> Family:
    """The row of a family. A family given by module path may use all inputs and switches."""
    own = ("flow_contrast", "rotated", "lmcl", "fra", "mds")
    return FAMILIES.get(name) or Family(name, flow="optional", parts=own, clips=None, ordered=True)


def _known(name: str) -> str:
    refuse_unknown("family", name, list(FAMILIES))
    return name


class Switches(Strict):
    """The family of a method, and which parts of it are on."""

    family: Annotated[str, AfterValidator(_known)] = "mscl"
    clips: Annotated[int, Field(ge=2)] = 2  # clips per video in a step
    pretrain: bool = True
    flow: bool = False  # the contrast within flow and the cross-modal terms
    flow_contrast: bool = True  # with flow: the contrast within flow, in addition to the cross-modal terms
    rotated: bool = False  # rotated flow at clip level
    lmcl: bool = False
    fra: Literal["none", "paper", "released"] = "none"
    mds: bool = False
    options: dict[
        str, Annotated[bool | int | float | str, BeforeValidator(number)]
    ] = {}  # for a family of your own: the settings of its class

    @model_validator(mode="after")
    def possible(self) -> Switches:
        if not self.pretrain and self.model_dump(exclude={"pretrain"}) != Switches().model_dump(exclude={"pretrain"}):
            raise ValueError("without pretraining nothing else can be switched on: set pretrain: true")
        if self.mds and not self.flow:
            raise ValueError("mds needs the optical flow: set flow: true")
        if (self.rotated or self.lmcl or self.fra != "none") and not self.flow:
            raise ValueError("rotated, lmcl and fra need the flow network: set flow: true")
        if self.fra != "none" and not self.lmcl:
            raise ValueError("fra adds negatives to LMCL: set lmcl: true, or fra: none")
        if not self.flow_contrast and not self.flow:
            raise ValueError("flow_contrast is a term of the flow network: set flow: true, or remove it")
        self._suit_the_family()
        return self

    def _suit_the_family(self) -> None:
        """Raise ValueError for a switch or a number of clips that the family does not support."""
        family = family_of(self.family)
        if family.flow == "needed" and self.pretrain and not self.flow:
            raise ValueError(f"family {self.family} needs the optical flow: set flow: true")
        unknown = {"flow_contrast", "rotated", "lmcl", "fra", "mds"} - set(family.parts)
        unknown |= {"flow"} if family.flow == "no" else set()
        for name in (n for n in Switches.model_fields if n in unknown):
            if getattr(self, name) != Switches.model_fields[name].default:
                raise ValueError(f"family {self.family} has no switch {name}: remove it, or set family: mscl")
        if family.clips and self.clips != family.clips:
            others = " or ".join(name for name, row in FAMILIES.items() if row.clips is None)
            raise ValueError(f"family {self.family} uses {family.clips} clips per video: remove clips, or set family: {others}")

    @property
    def ordered(self) -> bool:
        """Whether the loss of the method uses the order of the clips."""
        return family_of(self.family).ordered

    @property
    def network(self) -> str:
        """The module path of the network's class."""
        return family_of(self.family).network


@dataclass(frozen=True)
class Method:
    """A built-in method: its switches, its title in tables and figures, and its changes of `augment`."""

    switches: Switches
    title: str = ""  # the name in its paper; empty: its own name
    augment: dict[str, str] = field(default_factory=dict)  # keys of `augment` that differ for it


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
