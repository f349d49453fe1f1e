"""Blueprints: small networks as typed data, what they cost, the modules and the files that they become.

A blueprint is validated, content-addressed and builds a plain torch module. An artifact is a blueprint with weights in one
safetensors file. `propose` ranks blueprints for a site. Nothing here knows of the log; nothing but `build`, the
artifacts and the measurements needs torch.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .aot import compile_package, load_package
    from .artifact import Artifact, load, pack, save, unpack, verify
    from .blueprint import Blueprint, address, decode, encode
    from .building import build
    from .cache import Cache, CacheStats
    from .costs import flops, params
    from .errors import (
        ArtifactRefused,
        BadInit,
        BlueprintError,
        InvalidBlueprint,
        KeyRefused,
        MissingExtra,
        OverBudget,
        PackageRefused,
        UnfitBlueprint,
    )
    from .gain import GainModel
    from .latency import LatencyModel, calibrate
    from .measure import counted_flops, measure_latency, measured
    from .menus import menu
    from .ops import (
        Activation,
        Attention,
        Average,
        Conv,
        DepthwiseConv,
        Gate,
        Linear,
        LowRankLinear,
        Mlp,
        Node,
        Norm,
        Reshape,
        Residual,
        Resize,
        Shape,
    )
    from .proposals import TROUBLES, Proposal, Request, propose, proposed
    from .shape_rules import shape_of, shapes
    from .signing import new_key, public_key
    from .validation import Budget, validate

_HOMES = {
    # The graph
    "Blueprint": "blueprint", "encode": "blueprint", "decode": "blueprint", "address": "blueprint",
    "shape_of": "shape_rules", "shapes": "shape_rules", "params": "costs", "flops": "costs",
    "Budget": "validation", "validate": "validation",
    # Its operations
    "Shape": "ops", "Node": "ops", "Linear": "ops", "LowRankLinear": "ops", "Conv": "ops", "DepthwiseConv": "ops",
    "Norm": "ops", "Attention": "ops", "Mlp": "ops", "Activation": "ops", "Gate": "ops", "Residual": "ops",
    "Resize": "ops", "Average": "ops", "Reshape": "ops",
    # What it becomes
    "build": "building", "menu": "menus",
    "Artifact": "artifact", "save": "artifact", "load": "artifact", "verify": "artifact",
    "pack": "artifact", "unpack": "artifact", "new_key": "signing", "public_key": "signing",
    "compile_package": "aot", "load_package": "aot",
    "Cache": "cache", "CacheStats": "cache",
    # What to try, and what it will cost
    "Request": "proposals", "Proposal": "proposals", "propose": "proposals", "proposed": "proposals", "TROUBLES": "proposals",
    "GainModel": "gain", "LatencyModel": "latency", "calibrate": "latency",
    "measure_latency": "measure", "counted_flops": "measure", "measured": "measure",
    # What can be wrong
    "BlueprintError": "errors", "InvalidBlueprint": "errors", "OverBudget": "errors", "UnfitBlueprint": "errors",
    "BadInit": "errors", "ArtifactRefused": "errors", "PackageRefused": "errors", "KeyRefused": "errors",
    "MissingExtra": "errors",
}  # fmt: skip

__all__ = [
    "TROUBLES",
    "Activation",
    "Artifact",
    "ArtifactRefused",
    "Attention",
    "Average",
    "BadInit",
    "Blueprint",
    "BlueprintError",
    "Budget",
    "Cache",
    "CacheStats",
    "Conv",
    "DepthwiseConv",
    "GainModel",
    "Gate",
    "InvalidBlueprint",
    "KeyRefused",
    "LatencyModel",
    "Linear",
    "LowRankLinear",
    "MissingExtra",
    "Mlp",
    "Node",
    "Norm",
    "OverBudget",
    "PackageRefused",
    "Proposal",
    "Request",
    "Reshape",
    "Residual",
    "Resize",
    "Shape",
    "UnfitBlueprint",
    "address",
    "build",
    "calibrate",
    "compile_package",
    "counted_flops",
    "decode",
    "encode",
    "flops",
    "load",
    "load_package",
    "measure_latency",
    "measured",
    "menu",
    "new_key",
    "pack",
    "params",
    "propose",
    "proposed",
    "public_key",
    "save",
    "shape_of",
    "shapes",
    "unpack",
    "validate",
    "verify",
]

__getattr__ = lazily(__name__, _HOMES)
