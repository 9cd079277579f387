"""Data sets: every one is a small frozen value whose ``load()`` gives training and test arrays.

Example:
    >>> from neko_rules.datasets import DATASETS
    >>> sorted(DATASETS)
    ['arrays', 'evidence_accumulation', 'mnist', 'mnist1d', 'pattern_generation']
"""

from neko_rules.datasets.arrays import Arrays
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.datasets.evidence_accumulation import EvidenceAccumulation
from neko_rules.datasets.mnist import MNIST
from neko_rules.datasets.mnist1d import MNIST1D
from neko_rules.datasets.pattern_generation import PatternGeneration

__all__ = [
    "DATASETS",
    "MNIST",
    "MNIST1D",
    "Arrays",
    "Dataset",
    "EvidenceAccumulation",
    "PatternGeneration",
    "Split",
]
