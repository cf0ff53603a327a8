"""Run by `test_transformers_processes.py` under torchrun: trains at one go, and in two parts; ranks store weights.

The Trainer wraps the model in `DistributedDataParallel`.
"""

import sys
import warnings
from pathlib import Path

import torch
import transformers

from . import test_transformers as one_process

warnings.filterwarnings("ignore")
transformers.utils.logging.set_verbosity_error()
OPTIONS = {"ddp_backend": "gloo", "per_device_train_batch_size": 4}
KINDS = ("agp", "splicing", "gates", "thinned at the end")
FILTERS = one_process.thinned_in_training([one_process.UNITS])
FILTERS = {"pruners": FILTERS["pruners"], "policies": FILTERS["policies"][:1]}  # which `thin=True` removes
SCHEDULES = {**one_process.CASES, "thinned at the end": FILTERS}


def ends_of(kind: str, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights after training at one go, and after training that was killed and went on."""
    whole, _, _ = one_process.train(SCHEDULES[kind], folder / "whole", **OPTIONS)
    one_process.train(SCHEDULES[kind], folder / "again", kill=7, **OPTIONS)
    again, _, _ = one_process.train(SCHEDULES[kind], folder / "again", resume=True, **OPTIONS)
    return {"whole": whole.state_dict(), "again": again.state_dict()}


def refusal_of(kind: str, folder: Path) -> str:
    """Return the error that training raises."""
    try:
        one_process.train(SCHEDULES[kind], folder, **OPTIONS)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    """Train each kind."""
    folder = Path(sys.argv[1])
    found = {kind: ends_of(kind, folder / kind) for kind in KINDS}
    found["thinning"] = refusal_of("thinning", folder / "thinning")
    torch.save(found, folder / f"rank{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
