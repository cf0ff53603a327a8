"""Folders of finished runs, written by hand: nothing is trained."""

import json

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m'\"&{{ 7 * 7 }}"
SHOWN = "<img src=x onerror=alert(1)>\\u202e\\x1b[31m'\"&{{ 7 * 7 }}"
"""What stands in the page for it."""


def network(parameters, top1, latency=1.5, val_top1=None):
    return {
        "parameters": parameters, "macs": 10 * parameters, "bytes": 4 * parameters, "top1": top1,
        "val_top1": val_top1, "packed_bytes": 3 * parameters, "latency_ms": {"1": latency, "64": 20 * latency},
    }  # fmt: skip


def summary(parameters=600, top1=91.5, name="gates", **more):
    return {
        "dense": network(1000, 93.0, 3.0), "masked": network(1000, top1, 2.9),
        "thinned": network(parameters, top1, 1.0 + parameters / 1000, 90.0),
        "max_relative_difference": 1.5e-7, "network": "epoch 2, the last", "zeros": 1.25, "gone": 40.0,
        "arch": "tiny", "dataset": "digits", "seed": 3, "epochs": 3, "num_classes": 10, "input_shape": [1, 28, 28],
        "account": [
            {"policy": name, "parameter": "conv1.weight", "asked": 5, "hidden": 4, "why": "", "first": "epoch 1"},
            {"policy": name, "parameter": "fc.weight", "asked": None, "hidden": 7, "why": "", "first": "epoch 1"},
        ],
        "policies": [
            {"name": name, "acts": "L0Regularizer", "compresses": True, "when": "epochs 1-2", "first": 1, "last": 2},
            {"name": "step", "acts": "StepLR", "compresses": False, "when": "epochs 0-2", "first": 0, "last": 2},
        ],
        "layers": [
            {"layer": layer, "before": before, "after": after,
             "parameters_before": 9 * before, "parameters_after": 9 * after, "zeros": 0}
            for layer, before, after in (("conv1", 20, 12), ("conv2", 50, 49), (f"fc{name}", 10, 10), ("last", 8, 3))
        ],
        "refused": [{"channels": 2, "use": f"{name}.weight dim 0", "reason": "a constant meets padding"}],
        "exports": {"onnx": {"file": "thinned.onnx", "bytes": 4321, "difference": 2e-7, "top1": 91.5},
                    name: {"file": "x", "failed": "no such thing"}},
        "notes": ["a note"],
        **more,
    }  # fmt: skip


METRICS = "epoch,train_loss,val_loss,lr,extra\n0,2.5,2.0,0.1,\n1,1.5,,0.1,7\n2,0.5,1.0,0.1,8\n"


def write_run(folder, **more):
    folder.mkdir(parents=True, exist_ok=True)
    name = more.get("name", "gates")
    (folder / "summary.json").write_text(json.dumps(summary(**more)))
    (folder / "metrics.csv").write_text(METRICS)
    (folder / "schedule.yaml").write_text(f"# {name}\npolicies:\n  - {{}}\n")
    (folder / "environment.json").write_text(json.dumps({"command": ["x.py", name], "threads": 2, "cuda": None}))
    return folder
