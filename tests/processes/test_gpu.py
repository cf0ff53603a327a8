"""The same with CUDA tensors: by gloo on one GPU, by nccl where each rank has one of its own. Skipped without a GPU."""

import pytest
import torch

from .pool import Pool
from .test_every_class import CLASSES, GATES, RIGL, check_same, class_schedule, plus
from .test_sharded import PLANS, check_as_one

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
pytestmark = pytest.mark.skipif(not GPUS, reason="needs a GPU")


@pytest.fixture(scope="module", params=["gloo", "nccl"])
def on_gpus(request, starter):
    if request.param == "nccl" and GPUS < 2:
        pytest.skip("nccl needs a GPU for each process")
    pool = Pool(starter, 2, request.param)
    yield pool
    pool.stop()


@pytest.mark.parametrize(("section", "name"), CLASSES)
def test_all_ranks_end_alike(on_gpus, section, name):
    plan = class_schedule(section, name)
    check_same(on_gpus.do("training", "train", schedule=plan, how={"given": "wrapper", "device": "cuda"}))


@pytest.mark.parametrize("how", [{"amp": True}, {"scaler": True}, {"parts": 2, "hooks": True}])
def test_loops(on_gpus, how):
    check_same(on_gpus.do("training", "train", schedule=plus(GATES, RIGL), how={**how, "device": "cuda"}))


@pytest.mark.parametrize("name", ["AGP", "filters", "group lasso", "gates"])
def test_sharded_parameters(on_gpus, alone, name):
    if on_gpus.backend == "gloo":
        pytest.skip("gloo cannot scatter CUDA tensors, as fully_shard does")
    one = alone.do("sharding", "train", schedule=PLANS[name], device="cuda")
    check_as_one(on_gpus.do("sharding", "train", schedule=PLANS[name], device="cuda"), one, name)
