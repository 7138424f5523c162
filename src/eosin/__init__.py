"""eosin: score foundation models for H&E tissue, and distil new ones.

This page is the whole public face: what a plugin imports from `eosin`. Names load when first used, so that
`bench --help` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import metrics, probes
    from .benchmark import Benchmark, Embeddings, Need, Protocol, Scores
    from .cards import BenchmarkCard, DatasetCard, ModelCard, Option, ProtocolCard, RecipeCard
    from .dataset import Dataset
    from .extractor import FeatureExtractor
    from .folders import Array, ImageFolder
    from .hookspecs import hookimpl
    from .manifest import Manifest
    from .recipe import DistillationRecipe
    from .table import Table

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Benchmark",
    "BenchmarkCard",
    "Dataset",
    "DatasetCard",
    "DistillationRecipe",
    "Embeddings",
    "FeatureExtractor",
    "ImageFolder",
    "Manifest",
    "ModelCard",
    "Need",
    "Option",
    "Protocol",
    "ProtocolCard",
    "RecipeCard",
    "Scores",
    "Table",
    "hookimpl",
    "metrics",
    "probes",
]

_HOMES = {
    "benchmark": ("Benchmark", "Embeddings", "Need", "Protocol", "Scores"),
    "cards": ("BenchmarkCard", "DatasetCard", "ModelCard", "Option", "ProtocolCard", "RecipeCard"),
    "dataset": ("Dataset",),
    "folders": ("Array", "ImageFolder"),
    "manifest": ("Manifest",),
    "extractor": ("FeatureExtractor",),
    "hookspecs": ("hookimpl",),
    "recipe": ("DistillationRecipe",),
    "table": ("Table",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'eosin' has no attribute {name!r}; it offers {', '.join(__all__)}")
