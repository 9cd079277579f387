"""neko_rules: learning rules for spiking and other recurrent networks, with the same numbers on every array library."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neko_rules.backend import get_backend as get_backend
    from neko_rules.devices import Crossbar as Crossbar
    from neko_rules.evaluator import Evaluator as Evaluator
    from neko_rules.kernels.host import by_library as by_library
    from neko_rules.layers.adaptors import JaxModel as JaxModel
    from neko_rules.layers.adaptors import KerasModel as KerasModel
    from neko_rules.layers.adaptors import TorchModel as TorchModel
    from neko_rules.layers.analog import on_crossbar as on_crossbar
    from neko_rules.layers.convolution import Convolution as Convolution
    from neko_rules.layers.convolution import PooledDense as PooledDense
    from neko_rules.layers.graph import Connection as Connection
    from neko_rules.layers.graph import Population as Population
    from neko_rules.layers.models import ALIF as ALIF
    from neko_rules.layers.models import LIF as LIF
    from neko_rules.layers.models import RNN as RNN
    from neko_rules.layers.models import Layer as Layer
    from neko_rules.layers.models import Stack as Stack
    from neko_rules.layers.network import Network as Network
    from neko_rules.layers.quantized import quantize as quantize
    from neko_rules.probabilistic import HMC as HMC
    from neko_rules.probabilistic import MALA as MALA
    from neko_rules.probabilistic import NUTS as NUTS
    from neko_rules.probabilistic import SGHMC as SGHMC
    from neko_rules.probabilistic import SGLD as SGLD
    from neko_rules.probabilistic import Posterior as Posterior
    from neko_rules.probabilistic import RandomWalk as RandomWalk
    from neko_rules.probabilistic import Samples as Samples
    from neko_rules.regularizers import FiringRate as FiringRate
    from neko_rules.regularizers import FiringRateLowerBound as FiringRateLowerBound
    from neko_rules.regularizers import FiringRateUpperBound as FiringRateUpperBound
    from neko_rules.regularizers import MembraneBounds as MembraneBounds
    from neko_rules.regularizers import SpikeL1 as SpikeL1
    from neko_rules.rules import BPTT as BPTT
    from neko_rules.rules import DECOLLE as DECOLLE
    from neko_rules.rules import DFA as DFA
    from neko_rules.rules import DRTP as DRTP
    from neko_rules.rules import ETLP as ETLP
    from neko_rules.rules import FPTT as FPTT
    from neko_rules.rules import OSTL as OSTL
    from neko_rules.rules import OSTTP as OSTTP
    from neko_rules.rules import OTPE as OTPE
    from neko_rules.rules import OTTT as OTTT
    from neko_rules.rules import RFLO as RFLO
    from neko_rules.rules import RTRL as RTRL
    from neko_rules.rules import SPSA as SPSA
    from neko_rules.rules import STDP as STDP
    from neko_rules.rules import UORO as UORO
    from neko_rules.rules import ApproximateOTPE as ApproximateOTPE
    from neko_rules.rules import Backprop as Backprop
    from neko_rules.rules import EProp as EProp
    from neko_rules.rules import Eprop as Eprop
    from neko_rules.rules import EventProp as EventProp
    from neko_rules.rules import FeedbackAlignment as FeedbackAlignment
    from neko_rules.rules import KolenPollack as KolenPollack
    from neko_rules.rules import LearningRule as LearningRule
    from neko_rules.rules import Manhattan as Manhattan
    from neko_rules.rules import NodePerturbation as NodePerturbation
    from neko_rules.rules import PPProp as PPProp
    from neko_rules.rules import RewardEProp as RewardEProp
    from neko_rules.rules import RewardSTDP as RewardSTDP
    from neko_rules.rules import Rule as Rule
    from neko_rules.rules import SignSymmetric as SignSymmetric
    from neko_rules.rules import SnAp as SnAp
    from neko_rules.rules import StreamLearner as StreamLearner
    from neko_rules.rules import TikiTaka as TikiTaka
    from neko_rules.rules import TikiTakaV2 as TikiTakaV2
    from neko_rules.rules import TripletSTDP as TripletSTDP
    from neko_rules.rules import TruncatedBPTT as TruncatedBPTT
    from neko_rules.rules import WeightMirror as WeightMirror
    from neko_rules.rules import WeightPerturbation as WeightPerturbation
    from neko_rules.trainers import Callback as Callback
    from neko_rules.trainers import Checkpoint as Checkpoint
    from neko_rules.trainers import Comparison as Comparison
    from neko_rules.trainers import EarlyStopping as EarlyStopping
    from neko_rules.trainers import GradientComparison as GradientComparison
    from neko_rules.trainers import GradientRecorder as GradientRecorder
    from neko_rules.trainers import History as History
    from neko_rules.trainers import ProgressBar as ProgressBar
    from neko_rules.trainers import SpikeRecorder as SpikeRecorder
    from neko_rules.trainers import StateRecorder as StateRecorder
    from neko_rules.trainers import Trainer as Trainer
    from neko_rules.trainers import WeightRecorder as WeightRecorder

__version__ = "0.1.0"

_HOMES = {
    "neko_rules.backend": ["get_backend"],
    "neko_rules.devices": ["Crossbar"],
    "neko_rules.evaluator": ["Evaluator"],
    "neko_rules.kernels.host": ["by_library"],
    "neko_rules.layers.adaptors": ["JaxModel", "KerasModel", "TorchModel"],
    "neko_rules.layers.analog": ["on_crossbar"],
    "neko_rules.layers.graph": ["Connection", "Population"],
    "neko_rules.layers.models": ["ALIF", "LIF", "RNN", "Layer", "Stack"],
    "neko_rules.layers.network": ["Network"],
    "neko_rules.probabilistic": ["HMC", "MALA", "NUTS", "SGHMC", "SGLD", "Posterior", "RandomWalk", "Samples"],
    "neko_rules.layers.quantized": ["quantize"],
    "neko_rules.layers.convolution": ["Convolution", "PooledDense"],
    "neko_rules.regularizers": [
        "FiringRate",
        "FiringRateLowerBound",
        "FiringRateUpperBound",
        "MembraneBounds",
        "SpikeL1",
    ],
    "neko_rules.rules": [
        "BPTT",
        "DECOLLE",
        "DFA",
        "DRTP",
        "ETLP",
        "FPTT",
        "OSTL",
        "OSTTP",
        "OTPE",
        "OTTT",
        "RFLO",
        "RTRL",
        "UORO",
        "ApproximateOTPE",
        "Backprop",
        "EProp",
        "Eprop",
        "EventProp",
        "FeedbackAlignment",
        "KolenPollack",
        "LearningRule",
        "Manhattan",
        "PPProp",
        "Rule",
        "SignSymmetric",
        "SnAp",
        "StreamLearner",
        "TikiTaka",
        "TikiTakaV2",
        "TruncatedBPTT",
        "WeightMirror",
        "SPSA",
        "STDP",
        "NodePerturbation",
        "RewardEProp",
        "RewardSTDP",
        "TripletSTDP",
        "WeightPerturbation",
    ],
    "neko_rules.trainers": [
        "Callback",
        "Checkpoint",
        "Comparison",
        "EarlyStopping",
        "GradientComparison",
        "GradientRecorder",
        "History",
        "ProgressBar",
        "SpikeRecorder",
        "StateRecorder",
        "Trainer",
        "WeightRecorder",
    ],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


class _Beside:
    """Finds ``neko_rules.backends`` in a source tree, where it lies beside this package; installed, it lies within."""

    root = os.path.dirname(os.path.dirname(__file__))

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As Python asks every finder."""
        return PathFinder.find_spec(name, [cls.root]) if name == f"{__name__}.backends" else None


# First, since an editable installation of another source tree would answer with its own.
if not os.path.isdir(os.path.join(os.path.dirname(__file__), "backends")):
    sys.meta_path.insert(0, _Beside)


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import neko_rules` and `neko --help` stay fast.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
