#!/usr/bin/env python3
"""Records what PyTorch says of the ops: values and gradients, float64 on the CPU.

    python3 spec/golden/ops.py > spec/golden/ops.txt

spec/test_golden.c replays the file without Python. A case is
    case <op> field=value ...        attributes as core/attrs.h has them: dims 0-based, -inf and inf allowed
    i <kind> <sizes> values          an input; kind f: float64 that a gradient is wanted for, c: float64 without,
                                     l: int64, b: bool
    o <kind> <sizes> values          a result
    g <n> values                     gradient of sum(w * first result) for input n (1-based); element k (0-based)
                                     of w is (7 k mod 11 - 5) / 4 + 0.1
Index values are 1-based in the file and 0-based for PyTorch: inputs given by `index`, results named in `based`.
"""
import math
import sys

import torch
import torch.nn.functional as F

torch.manual_seed(20)
D = torch.float64
inf, nan = math.inf, math.nan


def f(*sizes, low=-2.0, high=2.0):
    """Distinct uneven values, four decimals, away from kinks at multiples of 0.25."""
    n = math.prod(sizes)
    t = low + (high - low) * (torch.randperm(n) + torch.rand(n)) / max(n, 1)
    t = (t * 1e4).round() / 1e4 + 0.00003
    return t.to(D).reshape(sizes).requires_grad_(True)


def p(*sizes):
    return f(*sizes, low=0.2, high=2.0)


def unit(*sizes):
    return f(*sizes, low=-0.9, high=0.9)


def part(*sizes):
    return f(*sizes, low=0.05, high=0.95)


def c(values):
    return torch.tensor(values, dtype=D)


def v(values):
    return torch.tensor(values, dtype=D).requires_grad_(True)


def integers(values):
    return torch.tensor(values, dtype=torch.int64)


def bools(values):
    return torch.tensor(values, dtype=torch.bool)


class Index:
    """int64 whose values are one larger in the file."""

    def __init__(self, values):
        self.t = torch.tensor(values, dtype=torch.int64)


index = Index


def number(x):
    if x != x:
        return "nan"
    if x in (inf, -inf):
        return "inf" if x > 0 else "-inf"
    if x == 0:
        return "-0" if math.copysign(1, x) < 0 else "0"
    return repr(int(x)) if x == int(x) and abs(x) < 1e15 else "%.13g" % x


def field(x):
    if isinstance(x, str):
        return x
    if isinstance(x, bool):
        return str(int(x))
    if isinstance(x, (list, tuple)):
        return "{" + ",".join(str(i) for i in x) + "}"
    return number(x)


def values(t, add=0):
    return " ".join(number(x + add if add else x) for x in t.detach().reshape(-1).to(D).tolist())


def sizes(t):
    return ",".join(map(str, t.shape)) or "-"


def kind(t):
    if t.dtype == torch.bool:
        return "b"
    if t.dtype == torch.int64:
        return "l"
    assert t.dtype == D, t.dtype
    return "f" if t.requires_grad else "c"


seen = set()


def case(op, fn, *inputs, based=(), grad=True, **attrs):
    seen.add(op)
    raw = [x.t if isinstance(x, Index) else x for x in inputs]
    before = [x.detach().clone() for x in raw]
    out = fn(*raw)
    outs = list(out) if isinstance(out, (tuple, list)) else [out]
    print("case", op, *("%s=%s" % (k, field(x)) for k, x in attrs.items()))
    for x, t, b in zip(inputs, raw, before):
        print("i", kind(t) if grad or kind(t) != "f" else "c", sizes(t), values(b, 1 if isinstance(x, Index) else 0))
    for k, t in enumerate(outs):
        print("o", kind(t).replace("c", "f"), sizes(t), values(t, 1 if k in based else 0))
    first = outs[0]
    if not grad or not first.requires_grad:
        return
    k = torch.arange(first.numel())
    w = ((7 * k % 11 - 5).to(D) / 4 + 0.1).reshape(first.shape)
    wanted = [t for t in raw if t.requires_grad]
    for t, g in zip(wanted, torch.autograd.grad((w * first).sum(), wanted, allow_unused=True)):
        at = [i for i, r in enumerate(raw) if r is t][0]
        print("g", at + 1, values(torch.zeros_like(t) if g is None else g))


def run(fn, *args):
    return lambda *t: fn(*t, *args)


# ---- elementwise ----
for name in ("neg abs sign floor ceil round trunc exp expm1 sin cos tan atan sinh cosh tanh asinh sigmoid erf erfc relu "
             "square frac").split():
    case(name, getattr(torch, name), f(2, 3))
    case(name, getattr(torch, name), v([0.3]))
for name in "log log1p log2 log10 sqrt rsqrt reciprocal".split():
    case(name, getattr(torch, name), p(2, 3))
for name in "asin acos atanh".split():
    case(name, getattr(torch, name), unit(2, 3))
case("acosh", torch.acosh, f(5, low=1.1, high=4))
for name in "expm1 log1p asinh atanh erfc log2 trunc frac sinh".split():
    case(name, getattr(torch, name), v([1e-9, -3e-5, 0.5, 0.0]))
for name in "exp log tanh erf atan sigmoid log1p".split():
    case(name, getattr(torch, name), c([0.0, inf, -inf, nan, 1e300]))
for name in "add sub mul div atan2 fmod remainder maximum minimum logaddexp".split():
    case(name, getattr(torch, name), f(2, 3), f(3))
    case(name, getattr(torch, name), f(2, 1), f(1, 4))
case("pow", torch.pow, p(2, 3), f(3))
case("floor_divide", torch.floor_divide, f(2, 3), f(3), grad=False)
case("fmod", torch.fmod, integers([7, -7, 7, -7]), integers([3, 3, -3, -3]))
case("remainder", torch.remainder, integers([7, -7, 7, -7]), integers([3, 3, -3, -3]))
case("atan2", torch.atan2, c([0.0, -0.0, 0.0, 1, -1]), c([1.0, -1, -1, 0, 0]))
case("logaddexp", torch.logaddexp, c([inf, -inf, 1000, -1000, inf]), c([inf, -inf, 999, -1000, -inf]))
case("lerp", torch.lerp, f(2, 3), f(2, 3), f(2, 3))
for name in "eq ne lt le gt ge".split():
    case(name, getattr(torch, name), c([1.0, 2, nan, 3]), c([1.0, 3, nan, 2]))
for name in "bitwise_and bitwise_or bitwise_xor".split():
    case(name, getattr(torch, name), integers([5, -3, 12]), integers([3, 6, -1]))
case("bitwise_left_shift", torch.bitwise_left_shift, integers([1, -3, 5, 1]), integers([3, 2, 0, 62]))
case("bitwise_right_shift", torch.bitwise_right_shift, integers([64, -3, 5, -1]), integers([3, 1, 0, 62]))
case("bitwise_not", torch.bitwise_not, integers([5, -3]))
for name in "logical_and logical_or logical_xor".split():
    case(name, getattr(torch, name), c([0.0, 2, nan, 0]), c([1.0, 3, 0, 0]))
case("logical_not", torch.logical_not, c([0.0, 2, nan]))
for name in "isnan isinf isfinite".split():
    case(name, getattr(torch, name), c([0.0, inf, -inf, nan, 1e308]))
    case(name, getattr(torch, name), integers([0, 2**53]))
case("clamp", run(torch.clamp, -1, 0.7), f(2, 4), min=-1, max=0.7)
case("where", torch.where, bools([[True], [False]]), f(2, 3), f(3))

# ---- activations ----
for name in "relu6 selu mish softsign hardswish hardsigmoid logsigmoid tanhshrink silu".split():
    case(name, getattr(F, name), f(2, 5, low=-7, high=7))
case("relu6", F.relu6, v([0.0, 6.0, -1.0, 7.0, 3.0]))
case("hardtanh", F.hardtanh, v([-1.0, 1.0, 0.5, 2.0]), min_val=-1, max_val=1)
case("hardtanh", run(F.hardtanh, -2, 0.5), f(2, 3), min_val=-2, max_val=0.5)
for slope in (0.01, 0.3):
    case("leaky_relu", run(F.leaky_relu, slope), f(2, 3), negative_slope=slope)
for name in "elu celu".split():
    case(name, run(getattr(F, name), 1.0), f(2, 5, low=-40, high=800), alpha=1)
    case(name, run(getattr(F, name), 0.7), v([0.0, -1.5, 2.0]), alpha=0.7)
case("gelu", F.gelu, f(2, 3))
case("gelu", lambda x: F.gelu(x, approximate="tanh"), f(2, 3), approximate="tanh")
case("softplus", F.softplus, v([-50.0, -1.3, 0.0, 0.7, 19.0, 21.0, 900.0]))
case("softplus", run(F.softplus, 2.5, 3.0), f(2, 4), beta=2.5, threshold=3)
case("glu", F.glu, f(3, 4))
case("glu", run(F.glu, 0), f(4, 3), dim=0)
case("prelu", F.prelu, f(2, 3, 2), p(3))
case("prelu", F.prelu, f(4), p(1))
case("threshold", run(F.threshold, 0.3, -2.0), f(2, 3), threshold=0.3, value=-2)
for name in "softshrink hardshrink".split():
    case(name, getattr(F, name), f(2, 5))
    case(name, run(getattr(F, name), 1.2), v([-1.2, 1.2, 0.0, 2.0]), lambd=1.2)

# ---- reductions, scans ----
for name in "sum mean amax amin prod logsumexp".split():
    fn = getattr(torch, name)
    case(name, (lambda x, g=fn: g(x, 1, True)), f(2, 3, 2), dim=[1], keepdim=True)
    case(name, (lambda x, g=fn: g(x, -1)), f(2, 3), dim=[-1])
for name in "sum mean prod".split():
    case(name, getattr(torch, name), f(2, 3))
case("logsumexp", run(torch.logsumexp, (0, 1)), f(2, 3), dim=[0, 1])
case("logsumexp", run(torch.logsumexp, 0), c([[inf, -inf, 1000.0, -inf], [1.0, -inf, 1000, 2]]), dim=[0])
for zeros in ([[0.0, 2, 3], [4, 5, 6]], [[0.0, 2, 0], [0, 5, 6]], [[1.5, 2, 3], [0, 0, 0]]):
    case("prod", run(torch.prod, 1), v(zeros), dim=[1])
    case("prod", torch.prod, v(zeros))
    case("cumprod", run(torch.cumprod, 1), v(zeros), dim=1)
case("prod", torch.prod, integers([[2, -3], [4, 5]]))
for name in "cumsum cumprod".split():
    case(name, run(getattr(torch, name), 1), f(2, 3, 2), dim=1)
    case(name, run(getattr(torch, name), -1), f(2, 5), dim=-1)
    case(name, run(getattr(torch, name), 0), integers([3, -1, 4]), dim=0)
case("any", run(torch.any, 1), bools([[True, False], [False, False]]), dim=[1])
case("all", run(torch.all, 0), bools([[True, False], [True, True]]), dim=[0])
case("count_nonzero", torch.count_nonzero, c([[0.0, 1, 2], [0, nan, 0]]))
case("count_nonzero", run(torch.count_nonzero, 1), integers([[0, 1, 2], [0, 3, 0]]), dim=[1])
for name in "argmax argmin".split():
    case(name, getattr(torch, name), f(2, 3), based=[0])
    case(name, run(getattr(torch, name), 1, True), f(2, 3), based=[0], dim=1, keepdim=True)
for name in "var std".split():
    case(name, (lambda x, g=getattr(torch, name): g(x, dim=1)), f(2, 4), dim=[1])
    case(name, (lambda x, g=getattr(torch, name): g(x, dim=0, correction=0, keepdim=True)), f(3, 2), dim=[0], keepdim=True,
         correction=0)
    both = name + "_mean"
    case(both, (lambda x, g=getattr(torch, both): g(x, dim=1)), f(2, 4), dim=[1])
for power in (2, 1, 0, 3, 0.5, inf, -inf):
    case("norm", (lambda x, q=power: torch.linalg.vector_norm(x, q, 1)), f(2, 4), p=power, dim=[1], grad=power != 0)
case("norm", lambda x: torch.norm(x), f(2, 3))
case("norm", lambda x: torch.norm(x, 3), v([0.0, 0.0]), p=3)
for n in (5, 4):
    case("median", run(torch.median, 1), f(2, n), based=[1], dim=1)
    case("median", lambda x: x.reshape(-1).median(0), f(2, n), based=[1])
case("median", run(torch.median, 0, True), c([[1.0, 5], [nan, 4], [2, 3]]), based=[1], dim=0, keepdim=True)
for q in (0, 0.3, 0.5, 1):
    case("quantile", lambda x, p: torch.quantile(x, p, 1), f(2, 5), c(q), dim=1)
case("quantile", torch.quantile, f(2, 4), c(0.4))
case("quantile", lambda x, p: torch.quantile(x, p, 0, keepdim=True), c([[1.0, nan], [2, 3]]), c(0.4), dim=0, keepdim=True)
for name in "softmax log_softmax".split():
    case(name, run(getattr(torch, name), 1), f(2, 3, 2), dim=1)

# ---- shapes ----
case("tile", run(torch.tile, (2, 1, 3)), f(2, 3), repeats=[2, 1, 3])
case("tile", run(torch.tile, (2,)), f(2, 3), repeats=[2])
case("repeat_interleave", run(torch.repeat_interleave, 2), f(2, 3), repeats=2)
case("repeat_interleave", run(torch.repeat_interleave, 3, 1), f(2, 2), repeats=3, dim=1)
case("movedim", run(torch.movedim, (0, 2), (2, 0)), f(2, 3, 4), source=[0, 2], destination=[2, 0])
case("movedim", run(torch.movedim, 1, -1), f(2, 3, 2), source=[1], destination=[-1])
case("roll", run(torch.roll, 2), f(2, 3), shifts=[2])
case("roll", run(torch.roll, (1, -4), (0, 1)), f(2, 3), shifts=[1, -4], dims=[0, 1])
case("flip", run(torch.flip, (0, 2)), f(2, 2, 3), dims=[0, 2])
for k in (0, 1, -1, 5, -5):
    case("tril", run(torch.tril, k), f(2, 3, 4), diagonal=k)
    case("triu", run(torch.triu, k), f(3, 2), diagonal=k)
    case("diag", run(torch.diag, k), f(3), diagonal=k)
for k in (0, 1, -1):
    case("diag", run(torch.diag, k), f(3, 4), diagonal=k)
    case("diagonal", run(torch.diagonal, k, 2, 0), f(3, 2, 4), offset=k, dim1=2, dim2=0)
case("unfold", lambda x: x.unfold(1, 3, 2), f(2, 6), dim=1, size=3, step=2)
case("unfold", lambda x: x.unfold(0, 2, 1), f(3, 2), dim=0, size=2, step=1)
case("constant_pad", lambda x: F.pad(x, (1, 2, 0, 1), value=7), f(2, 3), pad=[1, 2, 0, 1], value=7)
case("pad", lambda x: F.pad(x, (-1, 2)), f(2, 3), pad=[-1, 2])
for mode in ("reflect", "replicate"):
    case("pad", (lambda x, m=mode: F.pad(x, (2, 1, 1, 2), mode=m)), f(1, 3, 4), pad=[2, 1, 1, 2], mode=mode)
case("pixel_shuffle", run(F.pixel_shuffle, 2), f(2, 8, 2, 3), factor=2)
case("pixel_unshuffle", run(F.pixel_unshuffle, 2), f(1, 2, 4, 2), factor=2)
case("flatten", run(torch.flatten, 1), f(2, 3, 2), start_dim=1)
case("transpose", run(torch.transpose, 0, -1), f(2, 3, 2), dim0=0, dim1=-1)
case("permute", run(torch.permute, (2, 0, 1)), f(2, 3, 2), dims=[2, 0, 1])

# ---- index, order ----
case("gather", lambda x, i: torch.gather(x, 1, i), f(2, 4), index([[0, 3, 3], [2, 1, 0]]), dim=1)
case("scatter", lambda x, i, s: torch.scatter(x, 1, i, s), f(2, 4), index([[0, 3], [2, 1]]), f(2, 2), dim=1)
case("scatter_add", lambda x, i, s: torch.scatter_add(x, 0, i, s), f(3, 2), index([[0, 1], [0, 2]]), f(2, 2), dim=0)
case("index_select", lambda x, i: torch.index_select(x, 1, i), f(2, 4), index([3, 0, 3]), dim=1)
case("index_add", lambda x, i, s: torch.index_add(x, 0, i, s), f(3, 2), index([2, 0, 2]), f(3, 2), dim=0)
case("index_copy", lambda x, i, s: torch.index_copy(x, 0, i, s), f(3, 2), index([2, 0]), f(2, 2), dim=0)
case("take_along_dim", lambda x, i: torch.take_along_dim(x, i, 1), f(2, 4), index([[0, 3, 1]]), dim=1)
case("take_along_dim", lambda x, i: torch.take_along_dim(x, i), f(2, 3), index([5, 0, 2]))
case("one_hot", run(F.one_hot, 4), index([[0, 3], [2, 1]]), num_classes=4)
case("one_hot", F.one_hot, index([0, 3]))
case("index_put", lambda x, s, i: torch.index_put(x, (i,), s), f(4, 2), f(2, 2), index([3, 0]))
case("index_put", lambda x, s, i, j: torch.index_put(x, (i, j), s, accumulate=True), f(3, 4), f(2), index([[1, 1], [2, 0]]),
     index([3, 3]), accumulate=True)
case("masked_fill", torch.masked_fill, f(2, 3), bools([True, False, True]), c(9.0))
case("masked_select", torch.masked_select, f(2, 3), bools([[True, False, True], [False, True, True]]))
for down in (False, True):
    case("sort", run(torch.sort, 1, down), f(2, 5), based=[1], dim=1, descending=down)
    case("sort", lambda x, d=down: torch.sort(x, dim=0, descending=d, stable=True), integers([[3, 1], [1, 1], [3, 0], [1, 2]]),
         based=[1], dim=0, descending=down)
    case("sort", run(torch.sort, 0, down), c([1.0, nan, inf, -inf, 0]), based=[1], dim=0, descending=down)
    case("argsort", run(torch.argsort, -1, down), f(2, 4), based=[0], dim=-1, descending=down)
    case("topk", run(torch.topk, 2, 1, down), f(2, 5), based=[1], k=2, dim=1, largest=down)
case("unique", lambda x: torch.unique(x, return_inverse=True, return_counts=True), integers([[3, 1, 3], [2, 1, 1]]), based=[1])
for right in (False, True):
    case("searchsorted", lambda a, x, r=right: torch.searchsorted(a, x, right=r), c([1.0, 2, 2, 5]), c([[0.0, 1, 2], [3, 5, 6]]),
         based=[0], right=right)
    case("searchsorted", lambda a, x, r=right: torch.searchsorted(a, x, right=r), integers([[1, 3, 5], [2, 2, 9]]),
         integers([[3, 0], [2, 10]]), based=[0], right=right)
case("bincount", lambda x: torch.bincount(x, minlength=6), index([0, 2, 2, 4]), minlength=6)
case("bincount", lambda x, w: torch.bincount(x, w), index([0, 2, 2]), c([0.5, 1, 2]))
case("nonzero", torch.nonzero, c([[0.0, 2], [3, 0]]), based=[0])

# ---- products, images ----
case("matmul", torch.matmul, f(2, 1, 2, 3), f(3, 3, 2))
case("mm", torch.mm, f(2, 3), f(3, 2))
case("bmm", torch.bmm, f(2, 2, 3), f(2, 3, 2))
case("mv", torch.mv, f(2, 3), f(3))
case("dot", torch.dot, f(4), f(4))
case("outer", torch.outer, f(3), f(2))
case("addmm", lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=-2), f(2), f(3, 2), f(2, 2), beta=0.5, alpha=-2)
case("linear", F.linear, f(2, 3), f(4, 3), f(4))
case("embedding", lambda w, i: F.embedding(i, w), f(4, 3), index([[0, 3], [3, 1]]))
case("conv1d", lambda x, w, b: F.conv1d(x, w, b, 2, 1, 2), f(2, 2, 7), f(3, 2, 2), f(3), stride=[2], padding=[1], dilation=[2])
case("conv1d", lambda x, w: F.conv1d(x, w, groups=2), f(1, 4, 5), f(2, 2, 3), groups=2)
case("conv2d", lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0), (1, 2), 2), f(1, 4, 5, 6), f(2, 2, 2, 3), f(2), stride=[2, 1],
     padding=[1, 0], dilation=[1, 2], groups=2)
case("conv_transpose1d", lambda x, w, b: F.conv_transpose1d(x, w, b, 3, 1, 2), f(2, 2, 3), f(2, 3, 2), f(3), stride=[3],
     padding=[1], output_padding=[2])
case("conv_transpose2d", lambda x, w, b: F.conv_transpose2d(x, w, b, (2, 3), 1, (1, 0)), f(1, 2, 3, 2), f(2, 3, 3, 2), f(3),
     stride=[2, 3], padding=[1], output_padding=[1, 0])
case("conv_transpose2d", lambda x, w: F.conv_transpose2d(x, w, groups=2, dilation=2), f(1, 2, 2, 2), f(2, 2, 2, 2), groups=2,
     dilation=[2])
case("max_pool2d", lambda x: F.max_pool2d(x, (2, 3), (1, 2), (1, 0)), f(1, 2, 4, 5), kernel_size=[2, 3], stride=[1, 2],
     padding=[1, 0])
case("avg_pool2d", lambda x: F.avg_pool2d(x, (2, 3), (1, 2), (1, 0)), f(1, 2, 4, 5), kernel_size=[2, 3], stride=[1, 2],
     padding=[1, 0])
case("max_pool1d", run(F.max_pool1d, 3, 2, 1), f(1, 2, 6), kernel_size=[3], stride=[2], padding=[1])
case("avg_pool1d", run(F.avg_pool1d, 3, 2, 1), f(1, 2, 6), kernel_size=[3], stride=[2], padding=[1])
case("max_pool2d", lambda x: F.max_pool2d(x, (2, 3), 2, 1, (2, 1), True), f(2, 2, 7, 6), kernel_size=[2, 3], stride=[2], padding=[1],
     dilation=[2, 1], ceil_mode=True)
case("max_pool2d", lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), f(2, 6, 5), kernel_size=[3], stride=[2], padding=[1],
     ceil_mode=True)
for pool in (dict(), dict(ceil_mode=True), dict(ceil_mode=True, count_include_pad=False), dict(count_include_pad=False),
             dict(divisor_override=5, ceil_mode=True)):
    case("avg_pool2d", lambda x, a=pool: F.avg_pool2d(x, 3, 2, 1, **a), f(1, 2, 6, 5), kernel_size=[3], stride=[2], padding=[1], **pool)
    case("avg_pool3d", lambda x, a=pool: F.avg_pool3d(x, (2, 3, 2), 2, (1, 1, 0), **a), f(1, 2, 5, 6, 5), kernel_size=[2, 3, 2],
         stride=[2], padding=[1, 1, 0], **pool)
case("avg_pool1d", lambda x: F.avg_pool1d(x, 3, 2, 1, True, False), f(2, 6), kernel_size=[3], stride=[2], padding=[1], ceil_mode=True,
     count_include_pad=False)
for ceil in (False, True):
    case("max_pool3d", lambda x, a=ceil: F.max_pool3d(x, (2, 3, 2), 2, (1, 1, 0), (1, 1, 2), a), f(1, 2, 5, 6, 7),
         kernel_size=[2, 3, 2], stride=[2], padding=[1, 1, 0], dilation=[1, 1, 2], ceil_mode=ceil)
    case("max_pool3d_with_indices", lambda x, a=ceil: F.max_pool3d(x, (2, 3, 2), 2, (1, 1, 0), (1, 1, 2), a, True), f(2, 5, 6, 7),
         based=[1], kernel_size=[2, 3, 2], stride=[2], padding=[1, 1, 0], dilation=[1, 1, 2], ceil_mode=ceil)
case("max_pool1d_with_indices", lambda x: F.max_pool1d(x, 3, 2, 1, return_indices=True), f(1, 2, 7), based=[1], kernel_size=[3],
     stride=[2], padding=[1])
case("max_pool2d_with_indices", lambda x: F.max_pool2d(x, (2, 3), (1, 2), (1, 0), return_indices=True), f(1, 2, 4, 5), based=[1],
     kernel_size=[2, 3], stride=[1, 2], padding=[1, 0])
case("max_pool2d_with_indices", lambda x: F.max_pool2d(x, 2, return_indices=True), v([[[1.0, 3, 3, 2], [3, 0, 2, 2]]]), based=[1],
     kernel_size=[2])
case("max_unpool1d", lambda x, i: F.max_unpool1d(x, i, 2), f(1, 2, 3), index([[[0, 3, 5], [1, 2, 4]]]), kernel_size=[2])
case("max_unpool2d", lambda x, i: F.max_unpool2d(x, i, 2, 2, 0, (5, 4)), f(1, 1, 2, 2), index([[[[5, 2], [16, 19]]]]), kernel_size=[2],
     stride=[2], output_size=[5, 4])
case("max_unpool2d", lambda x, i: F.max_unpool2d(x, i, 3, 2, 1), f(1, 2, 2), index([[[4, 2], [6, 8]]]), kernel_size=[3], stride=[2],
     padding=[1])
case("max_unpool3d", lambda x, i: F.max_unpool3d(x, i, 2), f(1, 1, 1, 2), index([[[[5, 14]]]]), kernel_size=[2])
for power in (2, 1, 3):
    case("lp_pool1d", lambda x, q=power: F.lp_pool1d(x, q, 2), p(1, 2, 5), norm_type=power, kernel_size=[2])
    case("lp_pool2d", lambda x, q=power: F.lp_pool2d(x, q, (2, 3), 2, True), p(1, 2, 5, 6), norm_type=power, kernel_size=[2, 3],
         stride=[2], ceil_mode=True)
    case("lp_pool3d", lambda x, q=power: F.lp_pool3d(x, q, 2, 1), p(1, 1, 3, 4, 3), norm_type=power, kernel_size=[2], stride=[1])
for size in (1, 2, 3, 7):
    case("adaptive_avg_pool1d", run(F.adaptive_avg_pool1d, size), f(1, 2, 5), output_size=[size])
    case("adaptive_max_pool1d", run(F.adaptive_max_pool1d, size), f(2, 5), output_size=[size])
for size in ([2, 3, 1], [3, 3, 3], [1, 1, 1], [5, 2, 4]):
    case("adaptive_avg_pool3d", run(F.adaptive_avg_pool3d, size), f(1, 2, 4, 3, 2), output_size=size)
    case("adaptive_max_pool3d", run(F.adaptive_max_pool3d, size), f(2, 4, 3, 2), output_size=size)
for size in ([2, 3], [3, 4], [1, 1], [7, 5]):
    case("adaptive_avg_pool2d", run(F.adaptive_avg_pool2d, size), f(1, 2, 5, 6), output_size=size)
    case("adaptive_max_pool2d", run(F.adaptive_max_pool2d, size), f(1, 2, 5, 6), output_size=size)
case("interpolate", run(F.interpolate, (5, 3)), f(1, 2, 3, 4), size=[5, 3])
case("interpolate", lambda x: F.interpolate(x, scale_factor=1.7), f(1, 2, 3, 4), scale_factor=1.7)
for corners in (False, True):
    case("interpolate", lambda x, a=corners: F.interpolate(x, (5, 3), mode="bilinear", align_corners=a), f(1, 2, 3, 4), size=[5, 3],
         mode="bilinear", align_corners=corners)
    case("interpolate", lambda x, a=corners: F.interpolate(x, scale_factor=2, mode="linear", align_corners=a), f(1, 2, 3),
         scale_factor=2, mode="linear", align_corners=corners)
case("conv3d", lambda x, w, b: F.conv3d(x, w, b, (2, 1, 1), (1, 0, 1), (1, 2, 1), 2), f(1, 4, 4, 5, 3), f(2, 2, 2, 2, 3), f(2),
     stride=[2, 1, 1], padding=[1, 0, 1], dilation=[1, 2, 1], groups=2)
case("conv3d", lambda x, w: F.conv3d(x, w, dilation=(2, 1, 1)), f(2, 1, 3, 2, 3), f(2, 1, 2, 2, 2), dilation=[2, 1, 1])
case("conv_transpose3d", lambda x, w, b: F.conv_transpose3d(x, w, b, (2, 1, 2), (1, 0, 1), (1, 0, 1), 2, 1), f(1, 2, 2, 2, 2),
     f(2, 2, 3, 2, 2), f(4), stride=[2, 1, 2], padding=[1, 0, 1], output_padding=[1, 0, 1], groups=2)
case("conv_transpose3d", lambda x, w: F.conv_transpose3d(x, w, dilation=2), f(1, 1, 2, 2, 1), f(1, 2, 2, 1, 2), dilation=[2])
for mode in ("nearest-exact", "area", "bicubic"):
    case("interpolate", lambda x, m=mode: F.interpolate(x, (5, 3), mode=m), f(1, 2, 3, 4), size=[5, 3], mode=mode)
    case("interpolate", lambda x, m=mode: F.interpolate(x, (2, 9), mode=m), f(1, 1, 3, 4), size=[2, 9], mode=mode)
    case("interpolate", lambda x, m=mode: F.interpolate(x, scale_factor=1.7, mode=m), f(1, 1, 3, 4), scale_factor=1.7, mode=mode)
case("interpolate", lambda x: F.interpolate(x, (5, 3), mode="bicubic", align_corners=True), f(1, 1, 3, 4), size=[5, 3], mode="bicubic",
     align_corners=True)
for mode in ("nearest", "nearest-exact", "trilinear", "area"):
    case("interpolate", lambda x, m=mode: F.interpolate(x, (3, 2, 5), mode=m), f(1, 1, 2, 3, 2), size=[3, 2, 5], mode=mode)
case("interpolate", lambda x: F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True), f(1, 1, 2, 2, 2), scale_factor=2,
     mode="trilinear", align_corners=True)
case("interpolate", lambda x: F.interpolate(x, 7, mode="nearest-exact"), f(1, 1, 3), size=[7], mode="nearest-exact")
for mode in ("bilinear", "nearest", "bicubic"):
    for edge in ("zeros", "border", "reflection"):
        for corners in (False, True):
            case("grid_sample", lambda x, g, m=mode, e=edge, c=corners: F.grid_sample(x, g, m, e, c), f(2, 2, 3, 4),
                 f(2, 2, 3, 2, low=-2.6, high=2.6), mode=mode, padding_mode=edge, align_corners=corners)
            if mode != "bicubic":
                case("grid_sample", lambda x, g, m=mode, e=edge, c=corners: F.grid_sample(x, g, m, e, c), f(1, 2, 2, 3, 2),
                     f(1, 1, 2, 3, 3, low=-1.9, high=1.9), mode=mode, padding_mode=edge, align_corners=corners)
for corners in (False, True):
    case("affine_grid", lambda t, c=corners: F.affine_grid(t, [2, 1, 3, 2], c), f(2, 2, 3), size=[2, 1, 3, 2], align_corners=corners)
    case("affine_grid", lambda t, c=corners: F.affine_grid(t, [1, 1, 2, 1, 3], c), f(1, 3, 4), size=[1, 1, 2, 1, 3], align_corners=corners)
case("channel_shuffle", run(F.channel_shuffle, 3), f(2, 6, 2), groups=3)
case("normalize", F.normalize, f(2, 3))
case("normalize", lambda x: F.normalize(x, 1, 0, 0.5), f(2, 3), p=1, dim=0, eps=0.5)
case("local_response_norm", run(F.local_response_norm, 2), f(2, 5, 3), size=2)
case("local_response_norm", lambda x: F.local_response_norm(x, 3, 0.5, 0.6, 2), f(1, 4, 2, 2), size=3, alpha=0.5, beta=0.6, k=2)
for k in (1, 2, 3):
    case("pad", lambda x, n=k: F.pad(x, (1, 2) * n, mode="circular"), f(1, 2, *[3] * k), pad=[1, 2] * k, mode="circular")
    case("pad", lambda x, n=k: F.pad(x, (2, 1) * n, mode="reflect"), f(1, 1, *[3] * k), pad=[2, 1] * k, mode="reflect")
case("im2col", lambda x: F.unfold(x, (2, 3), (1, 2), (1, 0), (2, 1)), f(1, 2, 4, 6), kernel_size=[2, 3], dilation=[1, 2],
     padding=[1, 0], stride=[2, 1])
case("col2im", lambda x: F.fold(x, (4, 5), (2, 3), 1, (1, 0), (2, 1)), f(1, 12, 9), output_size=[4, 5], kernel_size=[2, 3],
     padding=[1, 0], stride=[2, 1])

# ---- recurrent: gates in PyTorch's layout; x, states, then for each layer and direction w_ih, w_hh[, b_ih, b_hh] ----
def recurrent(op, gates, states, steps, batch, width, units, layers=1, both=False, biases=True, first=False, given=True):
    ways = 2 if both else 1
    x = f(*([batch, steps] if first else [steps, batch]), width)
    hs = [unit(layers * ways, batch, units) for _ in range(states if given else 0)]
    params = []
    for layer in range(layers):
        for _ in range(ways):
            params += [unit(gates * units, width if layer == 0 else ways * units), unit(gates * units, units)]
            params += [unit(gates * units), unit(gates * units)] if biases else []

    def run_it(x, *rest):
        n = len(hs)
        at = rest[:n] if n else [torch.zeros(layers * ways, batch, units, dtype=D)] * states
        at = list(at) if states == 2 else at[0]
        return getattr(torch, op)(x, at, list(rest[n:]), biases, layers, 0.0, False, both, first)

    case(op, run_it, x, *hs, *params, has_biases=biases, num_layers=layers, bidirectional=both, batch_first=first)


for op, gates, states in (("lstm", 4, 2), ("gru", 3, 1), ("rnn_tanh", 1, 1), ("rnn_relu", 1, 1)):
    recurrent(op, gates, states, 4, 2, 3, 2)
    recurrent(op, gates, states, 3, 2, 2, 3, layers=2, both=True, first=True)
    recurrent(op, gates, states, 3, 1, 2, 2, layers=2, biases=False, given=False)
    cell = lambda x, *t, g=getattr(torch, op + "_cell"), k=states: g(x, list(t[:k]) if k == 2 else t[0], *t[k:])
    weights = [unit(gates * 2, 3), unit(gates * 2, 2), unit(gates * 2), unit(gates * 2)]
    case(op + "_cell", cell, f(2, 3), *[unit(2, 2) for _ in range(states)], *weights)
    case(op + "_cell", cell, f(2, 3), *[unit(2, 2) for _ in range(states)], *[unit(gates * 2, 3), unit(gates * 2, 2)])

# ---- norms, attention ----
case("layer_norm", lambda x, w, b: F.layer_norm(x, (3, 2), w, b), f(2, 3, 2), f(3, 2), f(3, 2), normalized_shape=[3, 2])
case("layer_norm", lambda x: F.layer_norm(x, (4,), eps=0.1), f(2, 4), normalized_shape=[4], eps=0.1)
case("rms_norm", lambda x, w: F.rms_norm(x, (4,), w), f(2, 4), f(4), normalized_shape=[4])
case("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), f(2, 4, 3), f(4), f(4), num_groups=2)
case("instance_norm", lambda x, m, s, w, b: F.instance_norm(x, m, s, w, b), f(2, 3, 4), c([0.5, -1, 2]), c([1.0, 2, 3]), f(3), f(3))
case("instance_norm", lambda x, m, s, w, b: F.instance_norm(x, m, s, w, b, False), f(2, 3, 4), c([0.5, -1, 2]), c([1.0, 2, 3]), f(3),
     f(3), use_input_stats=False)
case("instance_norm", lambda x: F.instance_norm(x), f(2, 3, 2, 2))
case("batch_norm", lambda x, m, s, w, b: F.batch_norm(x, m, s, w, b, True), f(3, 2, 2), c([0.5, -1]), c([1.0, 2]), f(2), f(2),
     training=True)
case("batch_norm", lambda x, m, s, w, b: F.batch_norm(x, m, s, w, b), f(3, 2), c([0.5, -1]), c([1.0, 2]), f(2), f(2))
case("batch_norm", lambda x: F.batch_norm(x, None, None, training=True), f(3, 2, 2, 2), training=True)
S = F.scaled_dot_product_attention
case("scaled_dot_product_attention", S, f(2, 3, 4), f(2, 5, 4), f(2, 5, 2))
case("scaled_dot_product_attention", lambda q, k, v: S(q, k, v, is_causal=True), f(1, 2, 4, 3), f(1, 2, 4, 3), f(1, 2, 4, 3),
     is_causal=True)
case("scaled_dot_product_attention", lambda q, k, v: S(q, k, v, is_causal=True, scale=0.7), f(3, 2), f(5, 2), f(5, 2),
     is_causal=True, scale=0.7)
case("scaled_dot_product_attention", lambda q, k, v, m: S(q, k, v, m), f(2, 3, 2), f(2, 4, 2), f(2, 4, 2),
     bools([[True, False, True, True], [True, True, False, False], [False, True, True, False]]))
case("scaled_dot_product_attention", lambda q, k, v, m: S(q, k, v, m), f(3, 2), f(4, 2), f(4, 2), f(3, 4))
case("scaled_dot_product_attention", lambda q, k, v: S(q, k, v, enable_gqa=True), f(1, 4, 2, 2), f(1, 2, 3, 2), f(1, 2, 3, 2),
     enable_gqa=True)

# ---- losses ----
for how in ("none", "mean", "sum"):
    case("mse_loss", lambda x, y, r=how: F.mse_loss(x, y, reduction=r), f(2, 3), f(2, 3), reduction=how)
    case("l1_loss", lambda x, y, r=how: F.l1_loss(x, y, reduction=r), f(2, 3), f(2, 3), reduction=how)
    case("smooth_l1_loss", lambda x, y, r=how: F.smooth_l1_loss(x, y, reduction=r, beta=0.6), f(2, 3), f(2, 3), reduction=how, beta=0.6)
    case("huber_loss", lambda x, y, r=how: F.huber_loss(x, y, reduction=r, delta=0.6), f(2, 3), f(2, 3), reduction=how, delta=0.6)
    case("binary_cross_entropy", lambda x, y, w, r=how: F.binary_cross_entropy(x, y, w, reduction=r), part(2, 3), part(2, 3).detach(),
         p(3).detach(), reduction=how)
    case("binary_cross_entropy_with_logits",
         lambda x, y, w, q, r=how: F.binary_cross_entropy_with_logits(x, y, w, pos_weight=q, reduction=r), f(2, 3),
         part(2, 3).detach(), p(3).detach(), p(3).detach(), reduction=how)
    case("nll_loss", lambda x, t, w, r=how: F.nll_loss(x, t, w, reduction=r, ignore_index=0), f(4, 3), index([2, 0, 1, 2]),
         p(3).detach(), reduction=how, ignore_index=1)
    case("nll_loss", lambda x, t, r=how: F.nll_loss(x, t, reduction=r), f(2, 3, 2), index([[2, 0], [1, 1]]), reduction=how)
    for eps in (0, 0.2):
        case("cross_entropy", lambda x, t, r=how, e=eps: F.cross_entropy(x, t, reduction=r, label_smoothing=e), f(4, 3),
             index([2, 0, 1, 2]), reduction=how, label_smoothing=eps)
        case("cross_entropy", lambda x, t, w, r=how, e=eps: F.cross_entropy(x, t, w, reduction=r, label_smoothing=e, ignore_index=1),
             f(2, 3, 2), index([[2, 0], [1, 1]]), p(3).detach(), reduction=how, label_smoothing=eps, ignore_index=2)
        case("cross_entropy", lambda x, t, w, r=how, e=eps: F.cross_entropy(x, t, w, reduction=r, label_smoothing=e), f(4, 3),
             part(4, 3).detach(), p(3).detach(), reduction=how, label_smoothing=eps)
    case("cosine_embedding_loss", lambda a, b, t, r=how: F.cosine_embedding_loss(a, b, t, 0.1, reduction=r), f(3, 4), f(3, 4),
         integers([1, -1, -1]), margin=0.1, reduction=how)
    for swap in (False, True):
        case("triplet_margin_loss", lambda a, b, d, r=how, s=swap: F.triplet_margin_loss(a, b, d, swap=s, reduction=r), f(3, 4), f(3, 4),
             f(3, 4), swap=swap, reduction=how)
for how in ("none", "mean", "sum", "batchmean"):
    case("kl_div", lambda x, y, r=how: F.kl_div(x, y, reduction=r), f(2, 3), c([[0.2, 0, 0.8], [0.5, 0.25, 0.25]]), reduction=how)
    case("kl_div", lambda x, y, r=how: F.kl_div(x, y, reduction=r, log_target=True), f(2, 3), f(2, 3), reduction=how, log_target=True)
case("binary_cross_entropy", F.binary_cross_entropy, c([0.0, 1, 1]), c([0.0, 1, 0]))
case("binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, v([-900.0, 900, 0]), c([0.0, 0.5, 1]))
case("smooth_l1_loss", lambda x, y: F.smooth_l1_loss(x, y, beta=0), f(3), f(3), beta=0)
case("cosine_similarity", run(F.cosine_similarity, 1), f(2, 3, 2), f(2, 3, 2), dim=1)
case("pairwise_distance", F.pairwise_distance, f(2, 3), f(2, 3))
case("pairwise_distance", lambda a, b: F.pairwise_distance(a, b, 1, 0.1, True), f(2, 3), f(2, 3), p=1, eps=0.1, keepdim=True)

# ---- functions of probability ----
torch.manual_seed(22)
case("erfinv", torch.erfinv, unit(2, 5))
case("erfinv", torch.erfinv, v([0.0, 1e-9, -0.999999, 1 - 1e-12, 0.5]))
for name in "lgamma digamma".split():
    case(name, getattr(torch, name), f(3, 5, low=0.01, high=4))
    case(name, getattr(torch, name), v([-0.3, -1.7, -7.2, 9.99, 10.01, 40.0, 1e6]))
case("lgamma", torch.lgamma, c([0.0, -1.0, inf, 1.0, 2.0]))
case("digamma", torch.digamma, c([0.0, -0.0, -1.0, inf, 1.4616321449683623]))
for n in (0, 1, 2, 5):
    case("polygamma", lambda x, k=n: torch.polygamma(k, x), f(8, low=0.1, high=30), n=n)
case("polygamma", lambda x: torch.polygamma(1, x), v([-0.3, -1.7, -30.2]), n=1)
case("i0", torch.special.i0, f(2, 4, low=-60, high=60))
case("i1", torch.special.i1, f(2, 4, low=-60, high=60))
case("i0", torch.special.i0, v([0.0, -0.5, 2, 39.9, 40.1]))
case("i1", torch.special.i1, v([0.0, -0.5, 2, 39.9, 40.1]))
for name in "xlogy xlog1py".split():
    case(name, getattr(torch.special, name), f(2, 3), p(3))
    case(name, getattr(torch.special, name), v([0.0, 0, 2]), v([1.5, 0.2, 3]))
    case(name, getattr(torch.special, name), c([0.0, 0, 0, nan, 1, 0]), c([0.0, inf, nan, 2, 0, -3]))

# ---- linear algebra; vectors of svd and eigh are unique up to sign only, so they are not here ----
torch.manual_seed(21)
L = torch.linalg


def well(*s):
    return (f(*s) + 4 * torch.eye(s[-1], dtype=D)).detach().requires_grad_(True)


def positive(x):
    return x @ x.mT + torch.eye(x.shape[-1], dtype=D)


def symmetric(n):
    return positive(f(n, n)).detach().requires_grad_(True)


for shape in ((3, 3), (2, 2, 2), (1, 1)):
    case("inv", L.inv, well(*shape))
    case("det", L.det, f(*shape))
    case("slogdet", L.slogdet, f(*shape))
case("solve", L.solve, well(3, 3), f(3))
case("solve", L.solve, well(2, 3, 3), f(3, 2))
case("solve", L.solve, well(3, 3), f(2, 3, 1))
case("solve", L.solve, well(2, 3, 3), f(2, 3))
case("solve", lambda a, b: L.solve(a, b, left=False), well(3, 3), f(2, 3), left=False)
for upper in (False, True):
    case("cholesky", lambda a, u=upper: L.cholesky(a, upper=u), symmetric(3), upper=upper)
    case("cholesky_solve", lambda b, a, u=upper: torch.cholesky_solve(b, a, u), f(3, 2), well(3, 3).detach(), upper=upper)
    for left in (False, True):
        for unit in (False, True):
            case("solve_triangular", lambda a, b, u=upper, l=left, n=unit: L.solve_triangular(a, b, upper=u, left=l, unitriangular=n),
                 well(2, 3, 3), f(3, 3), upper=upper, left=left, unitriangular=unit)
for shape in ((3, 3), (4, 2), (2, 4), (2, 3, 2)):
    case("qr", L.qr, f(*shape), mode="reduced")
    case("svdvals", L.svdvals, f(*shape))
    case("pinv", L.pinv, f(*shape))
    case("matrix_rank", L.matrix_rank, f(*shape), grad=False)
case("qr", lambda x: L.qr(x, "complete"), f(4, 2), mode="complete", grad=False)
case("qr", lambda x: L.qr(x, "complete"), f(2, 4), mode="complete")
case("matrix_rank", lambda x: L.matrix_rank(x, atol=1.0, rtol=0.1), c([[3.0, 0], [0, 0.9]]), atol=1, rtol=0.1)
case("pinv", lambda x: L.pinv(x, rtol=0.5), c([[3.0, 0], [0, 0.9]]), rtol=0.5)
case("pinv", L.pinv, c([[1.0, 2], [2, 4], [3, 6]]))
for side in "LU":
    case("eigvalsh", lambda x, s=side: L.eigvalsh(x, s), symmetric(4), UPLO=side)
for order, name in (("fro", "fro"), ("nuc", "nuc"), (inf, "inf"), (-inf, "minus_inf"), (1, "one"), (-1, "minus_one"), (2, "two"),
                    (-2, "minus_two")):
    case("matrix_norm", lambda x, o=order: L.matrix_norm(x, o), f(2, 3, 4), ord=name)
    case("matrix_norm", lambda x, o=order: L.matrix_norm(x, o, (2, 0), True), f(2, 3, 4), ord=name, dim=[2, 0], keepdim=True)
for order in (2, 1, inf, 0.5):
    case("vector_norm", lambda x, o=order: L.vector_norm(x, o), f(2, 3), ord=order)
case("lstsq", lambda a, b: L.lstsq(a, b).solution, f(4, 2), f(4, 3))
case("lstsq", lambda a, b: L.lstsq(a, b).solution, f(2, 2, 4), f(2, 2, 1))
for n in (0, 1, 2, 5, -3):
    case("matrix_power", run(L.matrix_power, n), well(2, 2), n=n, grad=n != 0)
case("trace", torch.trace, f(2, 3))
case("cross", L.cross, f(2, 3), f(2, 3))
case("cross", lambda a, b: L.cross(a, b, dim=0), f(3, 2), f(3, 1), dim=0)
case("vecdot", L.vecdot, f(2, 3), f(3))
case("kron", torch.kron, f(2, 3), f(3, 2))
case("kron", torch.kron, f(2), f(2, 1, 2))
for order in (2, 1, 3, inf):
    case("cdist", run(torch.cdist, order), f(3, 2), f(2, 4, 2), p=order)

for how in ("none", "mean", "sum"):
    case("soft_margin_loss", lambda x, y, r=how: F.soft_margin_loss(x, y, reduction=r), f(2, 3), c([[1.0, -1, 1], [-1, -1, 1]]), reduction=how)
    case("hinge_embedding_loss", lambda x, y, r=how: F.hinge_embedding_loss(x, y, 0.7, reduction=r), f(2, 3), c([[1.0, -1, 1], [-1, -1, 1]]),
         margin=0.7, reduction=how)
    case("margin_ranking_loss", lambda a, b, y, r=how: F.margin_ranking_loss(a, b, y, 0.3, reduction=r), f(4), f(4), c([1.0, -1, 1, -1]),
         margin=0.3, reduction=how)
    case("multi_margin_loss", lambda x, y, r=how: F.multi_margin_loss(x, y, reduction=r), f(3, 4), index([0, 3, 1]), reduction=how)
    case("multilabel_margin_loss", lambda x, y, r=how: F.multilabel_margin_loss(x, y - 1, reduction=r), f(2, 4),
         integers([[4, 1, -1, 2], [2, -1, 1, 1]]).where(integers([[1, 1, 0, 1], [1, 0, 1, 1]]) > 0, integers(0)), reduction=how)
    case("multilabel_soft_margin_loss", lambda x, y, w, r=how: F.multilabel_soft_margin_loss(x, y, w, reduction=r), f(2, 3),
         c([[1.0, 0, 1], [0, 0, 1]]), c([0.5, 1, 2]), reduction=how)
    case("poisson_nll_loss", lambda x, y, r=how: F.poisson_nll_loss(x, y, full=True, reduction=r), f(2, 3), c([[0.5, 2, 7], [1, 0, 1.5]]),
         full=True, reduction=how)
    case("gaussian_nll_loss", lambda x, y, v, r=how: F.gaussian_nll_loss(x, y, v, full=True, reduction=r), f(2, 3), f(2, 3), p(2, 3),
         full=True, reduction=how)
case("multi_margin_loss", lambda x, y, w: F.multi_margin_loss(x, y, 2, 0.7, w), f(3, 4), index([0, 3, 1]), c([1.0, 2, 0.5, 3]), p=2,
     margin=0.7)
# PyTorch's gradient of ctc_loss is that behind a log_softmax, so only values are recorded here
for how in ("none", "mean", "sum"):
    logp = lambda *n: torch.log_softmax(f(*n), -1).detach()
    case("ctc_loss", lambda x, t, i, l, r=how: F.ctc_loss(x, t, i, l, reduction=r), logp(6, 3, 4), index([[1, 2, 2], [3, 1, 1], [1, 1, 3]]),
         integers([6, 5, 4]), integers([3, 1, 2]), reduction=how)
    case("ctc_loss", lambda x, t, i, l, r=how: F.ctc_loss(x, t, i, l, 2, r, True), logp(4, 3, 3), index([0, 1, 1, 1, 1]),
         integers([4, 2, 3]), integers([2, 3, 0]), blank=2, reduction=how, zero_infinity=True)
case("ctc_loss", lambda x, t, i, l: F.ctc_loss(x, t, i, l, reduction="none"), logp(2, 1, 3), index([[1, 1]]), integers([2]), integers([2]),
     reduction="none")
case("ctc_loss", lambda x, t, i, l: F.ctc_loss(x, t, i, l), logp(5, 3), index([1, 2]), integers(5), integers(2))
case("multi_margin_loss", F.multi_margin_loss, f(4), index(2))
case("multilabel_margin_loss", lambda x, y: F.multilabel_margin_loss(x, y - 1), f(4), integers([3, 2, 0, 1]))
case("poisson_nll_loss", lambda x, y: F.poisson_nll_loss(x, y, log_input=False, eps=1e-3), p(2, 3), p(2, 3), log_input=False, eps=1e-3)
case("gaussian_nll_loss", lambda x, y, v: F.gaussian_nll_loss(x, y, v, eps=0.5), f(2, 3), f(2, 3), c([[0.1], [2.0]]), eps=0.5)
case("gaussian_nll_loss", lambda x, y, v: F.gaussian_nll_loss(x, y, v), f(2, 3), f(2, 3), p(2))

# ---- more forms, scans and scatters ----
case("add_scaled", lambda a, b: torch.add(a, b, alpha=2.5), f(2, 3), f(3), alpha=2.5)
case("add_scaled", lambda a, b: torch.add(a, b, alpha=-3), integers([1, -2]), integers([[7], [8]]), alpha=-3)
case("sub_scaled", lambda a, b: torch.sub(a, b, alpha=0.5), f(2, 3), f(2, 1), alpha=0.5)
for how in ("floor", "trunc"):
    case("div_rounded", lambda a, b, h=how: torch.div(a, b, rounding_mode=h), f(2, 3), p(3), rounding_mode=how)
    case("div_rounded", lambda a, b, h=how: torch.div(a, b, rounding_mode=h), integers([7, -7, 7, -7, 0]), integers([2, 2, -2, -2, 5]),
         rounding_mode=how)
for places in (-1, 0, 2):
    case("round_to", lambda x, n=places: torch.round(x, decimals=n), v([1.23456, -0.005, 15.0, 25.0, 1234.5]), decimals=places)
case("clamp_between", torch.clamp, f(3, 4), f(4), f(3, 1))
case("clamp_between", torch.clamp, v([1.0, nan, 3.0]), c([2.0, 0.0, nan]), c([3.0, 1.0, 1.0]))
case("clamp_between", torch.clamp, v([1.0, 2.0]), c([3.0, 0.0]))
case("repeat_each", lambda x, r: torch.repeat_interleave(x, r, 0), f(3, 2), integers([2, 0, 3]), dim=0)
case("repeat_each", lambda x, r: torch.repeat_interleave(x, r), f(2, 2), integers([2]))
case("scatter_number", lambda x, i, y: torch.scatter(x, 1, i, y.item()), f(2, 3), index([[0, 2], [1, 1]]), c(2.5), dim=1)
for how in ("sum", "mean", "amax", "amin"):
    for own in (True, False):
        case("scatter_reduce", lambda x, i, s, h=how, o=own: torch.scatter_reduce(x, 0, i, s, h, include_self=o), f(3, 2),
             index([[0, 1], [0, 2], [0, 1], [1, 1]]), f(4, 2), dim=0, reduce=how, include_self=own)
case("scatter_reduce", lambda x, i, s: torch.scatter_reduce(x, 1, i, s, "mean"), integers([[1, 2, 9]]), index([[0, 0]]), integers([[-8, 4]]),
     dim=1, reduce="mean")
for name in ("cummax", "cummin"):
    case(name, lambda x, g=getattr(torch, name): g(x, 1), f(2, 5), based={1}, dim=1)
    case(name, lambda x, g=getattr(torch, name): g(x, 0), v([1.0, 3, 3, 0, 0, nan, 5, nan]), based={1}, dim=0, grad=False)
    case(name, lambda x, g=getattr(torch, name): g(x, 0), integers([2, 2, 5, 1]), based={1}, dim=0)
case("logcumsumexp", lambda x: torch.logcumsumexp(x, 1), f(2, 7), dim=1)
case("logcumsumexp", lambda x: torch.logcumsumexp(x, 0), v([-inf, -inf, 1.0, 800.0, 2.0]), dim=0, grad=False)
case("tensordot", lambda a, b: torch.tensordot(a, b, 2), f(2, 3, 4), f(3, 4, 2), dims_self=[1, 2], dims_other=[0, 1])
case("tensordot", lambda a, b: torch.tensordot(a, b, ([2, 0], [0, 2])), f(2, 3, 4), f(4, 3, 2), dims_self=[2, 0], dims_other=[0, 2])
case("tensordot", lambda a, b: torch.tensordot(a, b, 0), f(2), f(3))
print(len(seen), "ops", file=sys.stderr)
