"""What is found without torch is what torch finds: shapes, types, layouts in memory."""

import pytest
import torch

from potstill.thinning.running.fast_meta import ONE, RESIZE, TWO, execute

aten = torch.ops.aten
CASES = [
    ((2, 4, 9), (6, 4, 3), [1], [0], [1], False, [0], 1),
    ((2, 4, 9, 8), (6, 4, 3, 2), [2, 1], [1, 0], [1, 2], False, [0, 0], 1),
    ((2, 4, 9, 8), (8, 1, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 4),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 3), [1, 2, 3], [1, 1, 1], [1, 1, 1], False, [0, 0, 0], 1),
    ((2, 4, 5, 5), (4, 3, 3, 3), [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
]
LAYOUTS = {
    "contiguous": lambda t: t,
    "channels last": lambda t: t.to(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(1, 2),
    "turned": lambda t: t.permute(3, 0, 2, 1),
    "every other": lambda t: t[:, ::2],
    "with gaps": lambda t: t.to(memory_format=torch.channels_last).flatten(2)[..., 6:].unflatten(2, (4, 6)),
    "a part": lambda t: t[..., :3],
    "repeated": lambda t: t[:, :1].expand(-1, 5, -1, -1),
    "one": lambda t: t[:1, :1].transpose(0, 3),
}
SCALARS = {"leaky_relu": (0.1,), "clamp": (-0.5, 0.5), "clamp_min": (0.1,), "clamp_max": (0.1,)}


def assert_same(func, *args, strides=True):
    """Carry an operation out without memory and compare with torch's own results."""

    def bare(value):
        if not isinstance(value, torch.Tensor):
            return value
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")

    found, expected = execute(func, tuple(bare(arg) for arg in args), {}), func(*args)
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    for a, b in pairs:
        assert a.is_meta
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert not strides or laid(a) == laid(b)


def laid(tensor):
    """The strides that matter."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution(case, layout):
    (size, kernel, *rest) = case
    x, weight = torch.randn(size), torch.randn(kernel)
    x = x.to(memory_format=layout) if x.ndim == 4 else x
    assert_same(aten.convolution.default, x, weight, None, *rest, strides=False)  # torch's differ by device


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ONE.split())
def test_operations_on_one_tensor(name, layout):
    x = LAYOUTS[layout](torch.rand(2, 4, 5, 6))
    assert_same(getattr(aten, name).default, x, *SCALARS.get(name, ()))
    if hasattr(aten, name + "_") and layout != "repeated":
        assert_same(getattr(aten, name + "_").default, x.clone(), *SCALARS.get(name, ()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TWO.split())
def test_operations_on_two_tensors(name, layout):
    x = LAYOUTS[layout](torch.rand(2, 4, 5, 6))
    func = getattr(aten, name)
    for other in (x, x.contiguous(), torch.rand(x.shape[1], 1, 1), torch.rand(()), x.double(), x[:1]):
        assert_same(func.Tensor, x, other)
        assert_same(func.Tensor, other, x)
    assert_same(func.Scalar, x, 2)
    assert_same(func.Scalar, x, 2j)
    assert_same(func.Scalar, x.to(torch.int32), 0.5)


def test_layers():
    x, weight, bias = torch.rand(6, 4), torch.rand(4, 3), torch.rand(3)
    assert_same(aten.addmm.default, bias, x, weight)
    assert_same(aten.addmm.default, torch.rand(1), x, weight)
    x = torch.rand(2, 5, 4, 3)
    for shape in ([3], [4, 3]):
        assert_same(aten.native_layer_norm.default, x, shape, torch.rand(shape), None, 1e-5)
        assert_same(aten.native_layer_norm.default, x, shape, None, torch.rand(shape), 1e-5)
    assert_same(aten.native_layer_norm.default, x.transpose(1, 2), [3], None, None, 1e-5)
    assert_same(aten._softmax.default, x, 2, False)
    assert_same(aten._softmax.default, x.transpose(1, 2), -1, False)
    if hasattr(aten, "_safe_softmax"):  # since torch 2.5
        assert_same(aten._safe_softmax.default, x.transpose(1, 2), -1)


def test_factors_and_results_of_its_own():
    x, y, weight, bias = (torch.empty(size, device="meta") for size in ((6, 4), (6, 4), (4, 3), (3,)))
    assert execute(aten.addmm.default, (bias, x, weight), {"beta": 0.5, "alpha": 2}).shape == (6, 3)
    assert execute(aten.add.out, (x, x), {"out": y}) is y
    assert execute(aten._softmax.out, (x, 1, False), {"out": y}) is y


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RESIZE.split())
def test_resizing(name, layout):
    func, x = getattr(aten, name), LAYOUTS[layout](torch.rand(2, 4, 5, 6))
    assert_same(func.default, x, [7, 3], False, None, None)
    assert_same(func.vec, x, [7, 3], True, None)
    assert_same(func.vec, x, None, False, [2.0, 1.5])


@pytest.mark.parametrize("image", [(5, 6), (4, 5, 6)])
def test_sampling_at_points(image):
    func = aten.grid_sampler_2d.default if len(image) == 2 else aten.grid_sampler_3d.default
    x, points = torch.rand(2, 3, *image), torch.rand(2, 7, *image[1:], len(image))
    assert_same(func, x, points, 0, 0, False)
    assert_same(func, x, points.flip(1), 0, 0, False)
    assert_same(func, x[:, ::2], points, 0, 0, False, strides=False)  # torch's differ by device


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training):
    vectors = [torch.rand(5) for _ in range(4)]
    assert_same(aten.native_batch_norm.default, torch.rand(2, 5, 4, 4), *vectors, training, 0.1, 1e-5)


@pytest.mark.parametrize(
    ("func", "args", "message"),
    [
        (aten.convolution.default, ((1, 4, 5, 5), (6, 3, 3, 3), None, *CASES[1][2:]), "channel"),
        (aten.addmm.default, ((3,), (2, 5), (4, 3)), "same reduction dim"),
        (aten.add.Tensor, ((2, 3), (2, 4)), "size|broadcast"),
        (aten.add_.Tensor, ((1, 3), (2, 3)), "shape|broadcast"),
        (aten.native_layer_norm.default, ((2, 3), [4], (4,), None, 1e-5), "shape"),
        (aten.grid_sampler_2d.default, ((2, 3, 4, 4), (1, 5, 5, 2), 0, 0, False), "batch|invalid"),
        (
            aten.native_batch_norm.default,
            ((2, 3, 4), (4,), (4,), (3,), (3,), True, 0.1, 1e-5),
            "4 elements",
        ),
    ],
)
def test_what_does_not_fit_is_left_to_torch(func, args, message):
    made = tuple(torch.empty(arg, device="meta") if isinstance(arg, tuple) else arg for arg in args)
    with pytest.raises((RuntimeError, ValueError), match=message):
        execute(func, made, {})
