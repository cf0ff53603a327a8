"""`--within`: the smallest network whose validation accuracy is near enough; test images are looked at once."""

import json
import sys
import textwrap

import pytest

import compress_classifier
from potstill.command.run import epochs, finish
from potstill.command.sweep import sweep
from potstill.command.sweep.run_folders import Runner


@pytest.fixture
def tests_made(monkeypatch):
    """How often a network was tested on test images during training and at the end of runs."""
    made = []
    for module in (epochs, finish):
        original = module.test
        monkeypatch.setattr(module, "test", lambda *args, original=original: (made.append(1), original(*args))[1])
    return made


def test_the_smallest_within_is_chosen_by_validation_and_tested_once(command, tmp_path, capsys, tests_made):
    search = ("--sweep", "gates.target_sparsity=0.2,0.6", "--within", "4", "--sweep-runs", "4")
    assert command(*search) == 0
    folder = tmp_path / "out" / "latest"
    told = capsys.readouterr().out
    assert not tests_made and told.count("test Top1") == 1 and "test ==>" not in told
    summaries = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/summary.json")}
    assert len(summaries) <= 5 and all(summary["thinned"]["top1"] is None for summary in summaries.values())
    least = summaries.pop("dense")["thinned"]["val_top1"] - 4
    good = {name: run["thinned"] for name, run in summaries.items() if run["thinned"]["val_top1"] >= least}
    chosen = json.loads((folder / "chosen.json").read_text())
    assert chosen["run"] == min(good, key=lambda name: good[name]["parameters"])
    assert chosen["runs"] == len(summaries)
    assert f"{100 * good[chosen['run']]['parameters'] / 14290:.1f} % of the parameters" in told
    assert compress_classifier.main(["-e", "--resume-from", str(folder / chosen["run"] / "thinned.pt"),
                                     "-a", "mlp_bn_drop", "--limit-test", "30", "-o", str(tmp_path)]) == 0  # fmt: skip
    assert f"Top1: {chosen['test_top1']:.3f}" in capsys.readouterr().out


def test_where_none_is_near_enough_it_is_said(command, capsys, monkeypatch, tmp_path):
    """A dense network that compression can only make worse: its accuracy is said to be 100 %, of others at most 90."""
    original = finish.evaluate_together

    def scores(run, split):
        found = original(run, split)
        found.top1 = found.images if run.folder.path.name == "dense" else min(found.top1, int(0.9 * found.images))
        return found

    monkeypatch.setattr(finish, "evaluate_together", scores)
    assert command("--sweep", "gates.target_sparsity=0.2,0.6", "--within", "1") == 0
    assert "no network is within 1 points of the dense one's" in capsys.readouterr().out
    assert not (tmp_path / "out" / "latest" / "chosen.json").exists()


def test_from_python(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "pruners:\n  one: {class: SparsityLevelParameterPruner, levels: {layers.1.weight: 0.5}}\n"
        "policies:\n  - {pruner: {instance_name: one}, epochs: [0]}\n"
    )
    net = ["-a", "symmetry", "--dataset", "symmetry", "--epochs", "1", "-o", str(tmp_path)]
    (tmp_path / "s.yaml").write_text((tmp_path / "s.yaml").read_text().replace("layers.1.weight", "hidden.weight"))
    result = sweep([*net, "--compress", str(tmp_path / "s.yaml")], {"one.levels.hidden.weight": [0.25, 0.5]})
    assert [run.values for run in result.runs] == [{}, *({"one.levels.hidden.weight": v} for v in (0.25, 0.5))]
    assert result.failures == {} and result.chosen is None
    zeros = [run.summary["zeros"].number() for run in result.runs]
    assert zeros[0] == 0 < zeros[1] < zeros[2]


PROGRAM = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--resume-from") + 1])
(folder / "given").write_text(" ".join(sys.argv[3:]) + " " + os.environ["OMP_NUM_THREADS"])
others = [other for other in folder.parent.iterdir() if other != folder]
end = time.monotonic() + 20
while not any((other / "given").exists() for other in others) and time.monotonic() < end:
    time.sleep(0.01)  # until another runs beside
if folder.name == "bad":
    sys.exit("first line\\nthe network has values that are not finite")
(folder / "summary.json").write_text("{}")
"""


def test_several_at_a_time_in_processes_of_their_own(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    folders = [tmp_path / "runs" / name for name in ("one", "bad", "done")]
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[2] / "summary.json").write_text("{}")
    runner = Runner(lambda arguments: sys.exit("in this process"), str(script), ["--plugin", "p.py"], jobs=2)
    runner.run(folders)
    assert (folders[0] / "given").read_text() == f"--plugin p.py {runner.threads}"
    assert (folders[0] / "summary.json").exists() and not (folders[2] / "given").exists()
    assert runner.failures == {folders[1]: "the network has values that are not finite"}


@pytest.mark.slow
def test_real_processes_end_as_one_after_the_other(command, tmp_path):
    assert command("--sweep", "gates.target_sparsity=0.3,0.5", out="one") == 0
    assert command("--sweep", "gates.target_sparsity=0.3,0.5", "--sweep-jobs", "2", out="two") == 0
    for path in (tmp_path / "one" / "latest").glob("*/metrics.csv"):
        assert path.read_text() == (tmp_path / "two" / "latest" / path.parent.name / "metrics.csv").read_text()
