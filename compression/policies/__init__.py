"""Policies: what a scheduler runs at its hooks, one kind a file."""

from .base import LossComponent, Moment, NotYet, PolicyLoss, ScheduledTrainingPolicy
from .distillation import KnowledgeDistillationPolicy, TeacherBuilder
from .learning_rate import LRPolicy
from .pruner_args import PrunerArgs
from .pruning import PruningPolicy
from .regularization import RegularizationPolicy, RegularizerArgs
from .rewinding import Rewinder
from .thinning import Thinner
from .warm_up import WarmUp
from .weight_average import WeightAverage

__all__ = [
    "KnowledgeDistillationPolicy",
    "LRPolicy",
    "LossComponent",
    "Moment",
    "NotYet",
    "PolicyLoss",
    "PrunerArgs",
    "PruningPolicy",
    "RegularizationPolicy",
    "RegularizerArgs",
    "Rewinder",
    "ScheduledTrainingPolicy",
    "TeacherBuilder",
    "Thinner",
    "WarmUp",
    "WeightAverage",
]
