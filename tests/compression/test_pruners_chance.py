"""Pruners by chance, with regrowth, N:M, and over the whole network."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from potstill.compression import Window
from potstill.compression.parts.kth_smallest import _count, _count_by_numpy, kth_smallest
from potstill.compression.pruners import (
    BernoulliFilterPruner,
    BernoulliFilterPruner_AGP,
    GlobalMagnitudePruner,
    GlobalMagnitudePruner_AGP,
    L1RankedStructureParameterPruner,
    NMPruner,
    RandomLevelStructureParameterPruner,
    RandomRankedFilterPruner,
    RandomRankedFilterPruner_AGP,
    RigLPruner,
    SETPruner,
)
from potstill.compression.pruners.global_magnitude import masks_of_smallest, zero_smallest

FIRST, NAME = "0.weight", "3.weight"
DROPS = {
    "mask_on_forward_only": True,
    "use_double_copies": True,
    "mask_gradients": True,
    "discard_masks_at_minibatch_end": True,
    "mini_batch_pruning_frequency": 2,
}


def dead(weight):
    return (~(weight != 0).flatten(1).any(1)).nonzero().flatten().tolist()


def test_random_draws_are_functions_of_seed_owner_and_step(make_view):
    model = nn.Linear(3, 40)

    def draw(seed=0, epoch=0, owner="p"):
        pruner = RandomRankedFilterPruner(0.5, ["weight"], seed=seed)
        pruner.bind(model)
        return tuple(dead(pruner.masks(make_view(model, epoch, owner=owner))["weight"]))

    assert draw() == draw()
    assert len({draw(), draw(seed=1), draw(epoch=1), draw(owner="q")}) == 4
    assert len(draw()) == 20


def test_random_agp_keeps_what_it_has_pruned(make_run):
    run = make_run().prune(RandomRankedFilterPruner_AGP(0.1, 0.75, [NAME]), Window.between(0, 4), "p")
    gone = [set(dead(run.train([epoch]).weight(NAME))) for epoch in range(4)]
    assert all(a <= b for a, b in pairwise(gone))
    assert len(gone[-1]) == 6


def test_bernoulli_scales_what_it_keeps(make_view):
    model = nn.Linear(3, 400, bias=False)
    pruner = BernoulliFilterPruner(0.3, ["weight"])
    pruner.bind(model)
    mask = pruner.masks(make_view(model, mode="copy"))["weight"]
    kept = (mask[:, 0] != 0).double().mean()
    assert 0.6 < kept < 0.8
    assert torch.allclose(mask[mask != 0].double(), 1 / kept)
    again = pruner.masks(make_view(model, 1, mode="copy"))["weight"]
    assert not torch.equal(mask, again)


def test_bernoulli_scales_nothing_where_no_dense_copy_is_kept(make_view):
    """Factors on the weights themselves would multiply, draw by draw."""
    model = nn.Linear(3, 400, bias=False)
    pruner = BernoulliFilterPruner(0.3, ["weight"])
    pruner.bind(model)
    masks = [pruner.masks(make_view(model, epoch, mode="forward"))["weight"] for epoch in range(2)]
    assert all(mask.unique().tolist() == [0, 1] for mask in masks)
    assert not torch.equal(*masks)


def test_bernoulli_in_hard_mode_rises_without_return(make_run):
    run = make_run().prune(BernoulliFilterPruner_AGP(0.1, 0.9, [NAME]), Window.between(0, 5), "p")
    gone = [set(dead(run.train([epoch]).weight(NAME))) for epoch in range(5)]
    assert all(a <= b for a, b in pairwise(gone))
    assert len(gone[-1]) > len(gone[0])
    assert set(run.scheduler.masks.of("p")[NAME].unique().tolist()) == {0, 1}


def test_dropped_filters_leave_dense_weights_alone(make_run):
    """Drop-filter training as Distiller's schedules do it: nothing is lost at the end."""
    run = make_run(minibatches=6).prune(BernoulliFilterPruner(0.5, [FIRST]), Window.between(0, 2), "p", **DROPS)
    counts = []
    run.train([0], lambda step: counts.append(len(dead(run.weight(FIRST)))))
    assert all(counts[i] > 0 for i in (0, 4, 8))
    assert not any(counts[i] for i in (1, 2, 3, 5, 6, 7))
    assert run.zeros(FIRST) == 0


RANDOM = [
    (lambda: RandomRankedFilterPruner_AGP(0.1, 0.7, [NAME]), {}),
    (lambda: BernoulliFilterPruner(0.4, [NAME]), DROPS),
    (lambda: BernoulliFilterPruner_AGP(0.1, 0.6, [NAME]), {"mask_on_forward_only": True}),
    (lambda: RandomLevelStructureParameterPruner((0.2, 0.6), [NAME]), DROPS),
    (lambda: L1RankedStructureParameterPruner(0.5, [NAME], noise=0.5), {"mini_batch_pruning_frequency": 2}),
    (lambda: SETPruner([NAME], 0.6), {"mini_batch_pruning_frequency": 2}),
    (lambda: RigLPruner([NAME], 0.6), {"mini_batch_pruning_frequency": 2}),
    (lambda: GlobalMagnitudePruner(0.2, ["*"], of="alive"), {}),
    (lambda: NMPruner([NAME]), {}),
]


@pytest.mark.parametrize(("make", "args"), RANDOM)
def test_a_resumed_run_is_the_uninterrupted_one(make_run, make, args):
    def start():
        return make_run().prune(make(), Window.between(1, 4), "p", **args)

    whole = start()
    saved = [whole.train([epoch]).save() for epoch in range(5)]
    for epoch in range(4):
        resumed = start().load(saved[epoch]).train(range(epoch + 1, 5))
        assert all(torch.equal(p, whole.weight(n)) for n, p in resumed.model.named_parameters()), epoch


@pytest.mark.parametrize("kind", [SETPruner, RigLPruner])
def test_regrowth_keeps_the_count_and_brings_weights_to_life_at_zero(make_run, kind):
    run = make_run(minibatches=4).prune(kind([NAME], 0.75, 0.4), Window.between(0, 6), "p")
    run.train([0])
    before, weight = run.scheduler.masks.of("p")[NAME].clone(), run.weight(NAME).detach().clone()
    gradient = run.weight(NAME).grad.clone()
    run.scheduler.on_epoch_begin(1, run.optimizer, 4)
    after = run.scheduler.masks.of("p")[NAME]
    share = 0.2 * (1 + torch.cos(torch.tensor(torch.pi / 5)))
    leave = int(share * 144)
    assert before.sum() == after.sum() == 144
    born = (after > before).flatten()
    assert 0 < int(born.sum()) <= leave
    assert not run.weight(NAME).flatten()[born].any()
    left = (before > after) & (before != 0)
    order = weight.abs()[before != 0].sort().values
    assert weight.abs()[left].max() <= order[leave - 1]
    assert gradient[before == 0].eq(0).all()  # hard masks stop it; growth has seen it before
    run.train([1, 2, 3, 4, 5])
    assert run.zeros(NAME) >= 576 - 144


def test_rigl_grows_where_the_gradient_is_largest(make_view, net):
    pruner = RigLPruner([NAME], 0.5, 0.2)
    pruner.bind(net)
    first = pruner.masks(make_view(net))[NAME]
    assert torch.equal(pruner.masks(make_view(net, 1, masks={NAME: first.float()}))[NAME], first)  # no gradient yet
    nn.functional.cross_entropy(net(torch.randn(4, 3, 8, 8)), torch.tensor([0, 1, 2, 3])).backward()
    net[3].weight.data *= first
    second = pruner.masks(make_view(net, 0, masks={NAME: first.float()}))[NAME]
    born = second & ~first
    candidates = ~first | (first & ~second)
    size = net[3].weight.grad.abs()
    assert size[born].min() >= size[candidates & ~second].max()


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 3, 3), (2, 4, 2)])
def test_n_of_m(make_view, n, shape):
    torch.manual_seed(n)
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(torch.randn(shape))
    pruner = NMPruner(["weight"], n, 4)
    pruner.bind(layer)
    mask = pruner.masks(make_view(layer))["weight"]
    runs = mask.movedim(1, -1).reshape(-1, 4)
    assert (runs.sum(1) == n).all()
    sizes = layer.weight.detach().abs().movedim(1, -1).reshape(-1, 4)
    lowest_kept = sizes.masked_fill(~runs, torch.inf).amin(1)
    assert (lowest_kept >= sizes.masked_fill(runs, -1).amax(1)).all()


def test_n_of_m_refuses_what_does_not_divide(net):
    with pytest.raises(ValueError, match=r"4 does not divide the inputs of 0.weight of shape \(8, 3, 3, 3\)"):
        NMPruner([FIRST]).bind(net)
    assert dict(NMPruner.problems({"weights": [], "n": 5, "m": 4}, {})) == {"n": "cannot keep 5 of 4"}


floats = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, 3.0, 1e-30, -1e30, 2.0000002])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(floats, min_size=1, max_size=20), min_size=1, max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.data(),
)
def test_kth_smallest_is_exact(lists, kind, data):
    tensors = [torch.tensor(values).to(kind).clamp(-6e4, 6e4) for values in lists]
    every = torch.cat(tensors).abs().sort().values
    k = data.draw(st.integers(1, len(every)))
    cut = kth_smallest(tensors, k)
    assert cut.value == float(every[k - 1])
    assert cut.ties == int((every[:k] == every[k - 1]).sum())


def test_kth_smallest_on_large_and_mixed_tensors():
    torch.manual_seed(0)
    tensors = [torch.randn(3, 200_000), torch.randn(500_001).double(), torch.randn(4, 8, 5, 5).bfloat16()]
    every = torch.cat([tensor.flatten().double() for tensor in tensors]).abs()
    assert kth_smallest(tensors, 700_000).value == float(every.kthvalue(700_000).values)
    assert torch.equal(
        _count(tensors[0].flatten().view(torch.int16).view(-1, 2), [16300]),
        torch.from_numpy(_count_by_numpy(tensors[0].flatten().view(torch.int16).view(-1, 2), [16300])),
    )


def test_kth_smallest_refuses():
    with pytest.raises(ValueError, match="there is no 4th smallest of 3 values"):
        kth_smallest([torch.ones(3)], 4)
    with pytest.raises(ValueError, match="not numbers"):
        kth_smallest([torch.tensor([1.0, torch.nan])], 1)
    with pytest.raises(ValueError, match=r"only floating-point numbers are ranked, not torch.int64"):
        kth_smallest([torch.tensor([1])], 1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(floats, min_size=1, max_size=12), min_size=1, max_size=3), st.data())
def test_global_masks_are_exact_and_never_resurrect(lists, data):
    weights = {str(i): torch.tensor(values) for i, values in enumerate(lists)}
    alive = {}
    for name, weight in weights.items():
        if data.draw(st.booleans()):
            alive[name] = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(weight), max_size=len(weight))))
            weight *= alive[name]
    total = sum(len(weight) for weight in weights.values())
    dead_before = sum(int((~mask).sum()) for mask in alive.values())
    number = data.draw(st.integers(0, total))
    masks = masks_of_smallest(weights, alive, number) if number else {}
    if number > dead_before:
        hidden = torch.cat([~masks[name] for name in weights])
        assert int(hidden.sum()) == number
        every = torch.cat(list(weights.values())).abs()
        assert every[hidden].max() <= every[~hidden].min() if number < total else True
    assert not any((masks[name] & ~alive[name]).any() for name in masks if name in alive)


def test_one_threshold_over_the_network_leaves_norms_out(make_run):
    run = make_run().prune(GlobalMagnitudePruner(0.5, ["*"]), Window.at([0]), "p").train([0])
    masks = run.scheduler.masks.of("p")
    assert not {"1.weight", "1.bias"} & set(masks)
    names = [name for name, _ in run.model.named_parameters() if not name.startswith("1.")]
    total = sum(run.weight(name).numel() for name in names)
    assert sum(int((mask == 0).sum()) for mask in masks.values()) == total // 2
    named = make_run().prune(GlobalMagnitudePruner(0.5, ["1.weight", NAME]), Window.at([0]), "p")
    assert set(named.scheduler.policies[0].pruner.targets()) == {"1.weight", NAME}
    with pytest.raises(ValueError, match=r"1.\* fit parameters of norms only, which have to be named in full"):
        make_run().prune(GlobalMagnitudePruner(0.5, ["1.*"]), Window.at([0]))


def test_iterative_pruning_takes_a_share_of_what_lives(make_run):
    run = make_run().prune(GlobalMagnitudePruner(0.2, [NAME], of="alive"), Window.between(0, 3), "p")
    living = [576 - run.train([epoch]).zeros(NAME) for epoch in range(3)]
    assert living == [461, 369, 296]  # 576 - floor(115.2), and so on


def test_global_agp(make_run):
    run = make_run().prune(GlobalMagnitudePruner_AGP(0, 0.9, [NAME, FIRST]), Window.between(0, 4), "p").train(range(4))
    assert run.zeros(NAME) + run.zeros(FIRST) == int(0.9 * (576 + 216))


@pytest.mark.parametrize("number", [0, 1, 500, 792])
def test_zero_smallest_works_in_place(net, number):
    net[3].to(memory_format=torch.channels_last)
    weights = [net[0].weight, net[3].weight]
    before = torch.cat([weight.detach().flatten() for weight in weights]).abs()
    storage = [weight.data_ptr() for weight in weights]
    zero_smallest(weights, number)
    after = torch.cat([weight.detach().flatten() for weight in weights])
    assert int((after == 0).sum()) == number
    assert [weight.data_ptr() for weight in weights] == storage
    if 0 < number < 792:
        assert before[after == 0].max() <= before[after != 0].min()


def test_zero_smallest_refuses_views_with_gaps():
    with pytest.raises(ValueError, match="skips or shares memory: make it contiguous"):
        zero_smallest([torch.randn(4, 4)[:, :2]], 2)
