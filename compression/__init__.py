"""Compression by schedule: masks, pruners, regularizers, gates, policies and the scheduler that runs them.

Python 3.14 has a package of this name in its standard library, which `gzip` and others import. When Python runs from
the root of a checkout, that import finds this folder instead, under the name `compression` (ours is
`potstill.compression`); it then stands aside.
"""

from __future__ import annotations

if __name__ == "compression":
    import sysconfig
    from pathlib import Path

    __path__ = [str(Path(sysconfig.get_path("stdlib"), "compression"))]
else:
    from .declare.registry import register, registered
    from .distillation import DistillationError, DistillationLossWeights, distillation_loss
    from .files.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
    from .masks import Masks
    from .one_shot import prune_channels
    from .policies import (
        KnowledgeDistillationPolicy,
        LRPolicy,
        PolicyLoss,
        PrunerArgs,
        PruningPolicy,
        RegularizationPolicy,
        RegularizerArgs,
        Rewinder,
        ScheduledTrainingPolicy,
        Thinner,
        WarmUp,
        WeightAverage,
    )
    from .processes.digests import RanksDiffer
    from .pruners import Pruner, View
    from .regularizers import Regularizer
    from .schedule import ScheduleError, build, dict_config, file_config, load_schedule
    from .scheduler import CompressionScheduler
    from .sharded_state import load_distributed
    from .sparsity_tables import (
        format_table,
        masks_table,
        masks_text,
        sparsity,
        sparsity_table,
        sparsity_text,
    )
    from .steps import Step, Window
    from .timeline import dry_run
    from .torch_pruning import adopt_torch_pruning

    __all__ = [
        "CheckpointError",
        "CompressionScheduler",
        "DistillationError",
        "DistillationLossWeights",
        "KnowledgeDistillationPolicy",
        "LRPolicy",
        "Masks",
        "PolicyLoss",
        "Pruner",
        "PrunerArgs",
        "PruningPolicy",
        "RanksDiffer",
        "RegularizationPolicy",
        "Regularizer",
        "RegularizerArgs",
        "Rewinder",
        "ScheduleError",
        "ScheduledTrainingPolicy",
        "Step",
        "Thinner",
        "View",
        "WarmUp",
        "WeightAverage",
        "Window",
        "adopt_torch_pruning",
        "build",
        "dict_config",
        "distillation_loss",
        "dry_run",
        "file_config",
        "format_table",
        "load_checkpoint",
        "load_distributed",
        "load_schedule",
        "masks_table",
        "masks_text",
        "prune_channels",
        "register",
        "registered",
        "save_checkpoint",
        "sparsity",
        "sparsity_table",
        "sparsity_text",
    ]
