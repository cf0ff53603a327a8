"""`--checkpoint-every`: minibatches or minutes."""

import pytest

import compress_classifier
from potstill.command.monitors.checkpoint_interval import Interval
from potstill.compression import load_checkpoint

SMALL = ["-a", "simplenet_cifar", "--limit-train", "128", "--limit-test", "20", "-b", "16", "--epochs", "1"]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_minibatches_count_within_the_epoch():
    every = Interval("3")
    assert [n for n in range(1, 10) if every.is_over(n)] == [3, 6, 9]
    assert not any(Interval().is_over(n) for n in range(1, 10))


def test_minutes_count_from_the_last_checkpoint():
    clock = Clock()
    every = Interval("1.5m", clock)
    clock.now += 89
    assert not every.is_over(200)
    clock.now += 1
    assert every.is_over(1)
    every.restart()
    assert not every.is_over(2)


@pytest.mark.parametrize("text", ["1", "200", "10m", "0.5m"])
def test_what_can_be_read(text):
    assert Interval(text).is_over(200) == text.isdigit()


@pytest.mark.parametrize("text", ["", "0", "0m", "m", "-1", "1.5", "10s", "1e3", "1..5m", ".5m", "nanm", "10 m"])
def test_what_cannot(text):
    with pytest.raises(ValueError, match="is neither a number of minibatches"):
        Interval(text)


def written_at(tmp_path, monkeypatch, *more):
    """Minibatches (1 and up) after which a checkpoint was written; 0 is before training, 8 the epoch's end."""
    moments = []
    save = compress_classifier.Session.save

    def counted(run, path=None):
        save(run, path)
        if path is None:
            moments.append(run.minibatch + 8 * run.epoch)

    monkeypatch.setattr(compress_classifier.Session, "save", counted)
    assert compress_classifier.main([*SMALL, *more, "-o", str(tmp_path)]) == 0
    return moments


def test_a_run_writes_them_then(tmp_path, monkeypatch):
    assert written_at(tmp_path, monkeypatch, "--checkpoint-every", "3") == [0, 3, 6, 8]


def test_a_run_writes_them_by_the_clock(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(Interval.__init__, "__defaults__", (None, clock))
    stepped = compress_classifier.Session.stepped

    def slow(run):
        clock.now += 25
        stepped(run)

    monkeypatch.setattr(compress_classifier.Session, "stepped", slow)
    assert written_at(tmp_path, monkeypatch, "--checkpoint-every", "1m") == [0, 3, 6, 8]


def test_the_first_is_the_network_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(compress_classifier, "train_epoch", lambda run, epoch: setattr(run, "stop", True))
    monkeypatch.setattr(compress_classifier, "interrupted", lambda run: 130)
    assert compress_classifier.main([*SMALL, "-o", str(tmp_path)]) == 130
    first = load_checkpoint(tmp_path / "latest" / "checkpoint.pt")
    assert (first["epoch"], first["minibatch"], first["rows"]) == (0, 0, [])
    assert not first["optimizer"]["state"]
