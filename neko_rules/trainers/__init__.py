"""Training: the trainer, what it records, and the callbacks that accompany it."""

from neko_rules.trainers.callbacks import Callback, EarlyStopping
from neko_rules.trainers.checkpoint import Checkpoint
from neko_rules.trainers.comparison import GradientComparison
from neko_rules.trainers.comparison_result import Comparison
from neko_rules.trainers.history import History
from neko_rules.trainers.progress import ProgressBar
from neko_rules.trainers.recorders import GradientRecorder, SpikeRecorder, StateRecorder, WeightRecorder
from neko_rules.trainers.trainer import Trainer

__all__ = [
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
]
