"""Data sets: every one is a small frozen value whose ``load()`` gives training and test arrays.

Example:
    >>> from neko_rules.datasets import DATASETS
    >>> sorted(DATASETS)
    ['arrays', 'delayed_xor', 'evidence_accumulation', 'mnist', 'mnist1d', 'pattern_generation', 'randman',
     'spoken_digits']
"""

from neko_rules.datasets.arrays import Arrays
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.datasets.delayed_xor import DelayedXOR
from neko_rules.datasets.event_frames import event_frames
from neko_rules.datasets.evidence_accumulation import EvidenceAccumulation
from neko_rules.datasets.mnist import MNIST
from neko_rules.datasets.mnist1d import MNIST1D
from neko_rules.datasets.pattern_generation import PatternGeneration
from neko_rules.datasets.randman import Randman
from neko_rules.datasets.spoken_digits import SpokenDigits

__all__ = [
    "DATASETS",
    "MNIST",
    "MNIST1D",
    "Arrays",
    "Dataset",
    "DelayedXOR",
    "EvidenceAccumulation",
    "PatternGeneration",
    "Randman",
    "Split",
    "SpokenDigits",
    "event_frames",
]
