#!/usr/bin/env python3
"""Records what PyTorch gives for its own sample inputs (its OpInfo database): values, shapes, dtypes, gradients.

    python3 spec/golden/opinfo.py > spec/golden/opinfo.txt

spec/lua/opinfo.lua replays the file without Python. An entry of the database is either recorded here or listed with a
reason in opinfo_left_out.txt; one that is neither is an error. Calls are written as kiln's users write them. PyTorch's
argument order and names are kiln's too, so a call is derived: dimensions and index values move to 1-based, keyword
arguments become the options table. What is special is said in opinfo_calls.py. The file:

    op NAME [VARIANT]                the entry, as PyTorch names it
    c CALL [@ TOLERANCE]             the call, in Lua; x1, x2 … are its tensors
    i KIND SIZES values              a tensor; kinds are in KINDS below, capital F wants a gradient; sizes - for rank 0
    o KIND SIZES values              a result
    g N values                       gradient for tensor N of the sum over the float results of w times the result;
                                     element k (0-based) of w of result j (0-based) is (7 (k + 3 j) mod 11 - 5) / 4 + 0.1
    # text                           what was left out of an entry, and why

Inputs are rounded to four digits, so that they are short; results have twelve.
"""
import collections
import inspect
import math
import random
import sys
import types
import unittest
import warnings

sys.dont_write_bytecode = True
warnings.simplefilter("ignore")
stub = types.ModuleType("expecttest")  # the database asks for it and does not use it
stub.TestCase = unittest.TestCase
stub.assert_expected_inline = None
sys.modules.setdefault("expecttest", stub)
import numpy  # noqa: E402
import torch  # noqa: E402
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

import opinfo_calls as special  # noqa: E402
from opinfo_calls import LeftOut  # noqa: E402

KINDS = {torch.float64: "f", torch.float32: "s", torch.int64: "l", torch.int32: "n", torch.int16: "h", torch.int8: "y",
         torch.uint8: "u", torch.bool: "b", torch.float16: "e", torch.bfloat16: "z"}
DTYPES = {d: str(d).split(".")[1] for d in KINDS}
BUDGET, OTHER_BUDGET, SAMPLES, LARGEST = 1200, 200, 24, 3000  # numbers an entry, samples an entry, numbers a sample


# ---- numbers ----

def number(x, digits=12):
    if isinstance(x, (bool, int)):
        return str(int(x))
    if x != x:
        return "nan"
    if x in (math.inf, -math.inf):
        return "inf" if x > 0 else "-inf"
    if x == 0:
        return "-0" if math.copysign(1, x) < 0 else "0"
    return repr(int(x)) if x == int(x) and abs(x) < 1e15 else "%.*g" % (digits, x)


def values(t, positions=False):
    t = t.detach()
    if positions:
        t = torch.where(t >= 0, t + 1, t)
    digits = 12 if t.dtype == torch.float64 else 7
    return " ".join(number(x, digits) for x in t.reshape(-1).tolist())


def sizes(t):
    return ",".join(map(str, t.shape)) or "-"


def tensor_line(t, wants=False, positions=False):
    if t.dtype not in KINDS:
        raise LeftOut("dtype " + str(t.dtype).split(".")[1])
    kind = KINDS[t.dtype]
    return ("%s %s %s" % (kind.upper() if wants else kind, sizes(t), values(t, positions))).rstrip()


def rounded(t):
    """The same tensor, contiguous, with four digits an element."""
    if t.layout != torch.strided:
        raise LeftOut("sparse")
    if t.dtype not in KINDS:
        raise LeftOut("dtype " + str(t.dtype).split(".")[1])
    r = t.detach()
    if not r.dtype.is_floating_point or r.numel() == 0:
        return r.clone(memory_format=torch.contiguous_format).requires_grad_(t.requires_grad)
    r = torch.tensor([float("%.4g" % x) for x in r.reshape(-1).tolist()], dtype=r.dtype).reshape(r.shape)
    return r.requires_grad_(t.requires_grad)


# ---- names of arguments ----

def schema_names(name, args, kwargs):
    """Names of the positional arguments and all parameters (name, default) of the overload that takes them."""
    for schema in torch._C._jit_get_schemas_for_operator("aten::" + name):
        params = [a for a in schema.arguments if not a.is_out]
        free = [a for a in params if not a.kwarg_only]
        known = {a.name for a in params}
        if len(args) > len(free) or not set(kwargs) <= known or "out" in schema.overload_name:
            continue
        if all(fits(v, str(a.type)) for v, a in zip(args, free)) and all(
                a.has_default_value() or a.name in kwargs for a in params[len(args):]):
            return [(a.name, a.default_value if a.has_default_value() else None) for a in params]
    return None


def fits(value, kind):
    kind = kind.replace("Optional[", "").rstrip("?")
    if value is None:
        return True
    if isinstance(value, torch.Tensor):
        return kind.startswith("Tensor")
    if isinstance(value, (list, tuple)):
        if len(value) and isinstance(value[0], torch.Tensor):
            return "Tensor" in kind and kind.startswith("List")
        return kind.startswith("List") and "str" not in kind and "Tensor" not in kind
    if isinstance(value, bool):
        return kind.startswith("bool")
    if isinstance(value, int):
        return kind.startswith(("int", "number", "Scalar", "float", "List[int", "SymInt"))
    if isinstance(value, float):
        return kind.startswith(("number", "Scalar", "float"))
    if isinstance(value, str):
        return kind.startswith("str")
    return True


def python_names(f, args, kwargs):
    try:
        params = list(inspect.signature(f).parameters.values())
    except (ValueError, TypeError):
        return None
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in params) or len(args) > len(params):
        return None
    if not set(kwargs) <= {p.name for p in params}:
        return None
    return [(p.name, None if p.default is p.empty else p.default) for p in params]


def parameters(op, args, kwargs):
    leaf = op.name.split(".")[-1]
    if op.name in special.PARAMETERS:
        return [(n, None) for n in special.PARAMETERS[op.name].split()]
    places = [torch.nn.functional] if op.name.startswith("nn.") else [torch]
    for place in places:
        f = getattr(place, leaf, None)
        got = f and python_names(f, args, kwargs)
        if got:
            return got
    names = ["linalg_" + leaf] if op.name.startswith("linalg.") else [leaf]
    for name in names:
        got = schema_names(name, args, kwargs)
        if got:
            return got
    return python_names(op.op, args, kwargs)


# ---- calls ----

class Call:
    """A sample as a call: text in Lua, and the tensors it names."""

    def __init__(self, op, sample):
        self.op, self.tensors, self.add = op, [], []
        leaf = op.name.split(".")[-1]
        room = "F." if op.name.startswith("nn.functional.") else "linalg." if op.name.startswith("linalg.") else ""
        self.name = special.NAMES.get(op.name, room + leaf)
        args = [sample.input, *sample.args]
        kwargs = {k: v for k, v in sample.kwargs.items() if v is not None and k not in special.DROPPED}
        why = special.refuse(op, args, kwargs)
        if why:
            raise LeftOut(why)
        kwargs = {k: v for k, v in kwargs.items() if v not in special.SAME.get(op.name, {}).get(k, ())}
        self.params = parameters(op, args, kwargs)
        names = [n for n, _ in self.params or []]
        if op.name in special.CALLS:
            self.text = special.CALLS[op.name](self, args, kwargs, names)
            return
        if any(has_tensor(v) for v in kwargs.values()):
            args, kwargs = self.tensors_in_place(args, kwargs, names)
        while args and args[-1] is None:
            args.pop()
        parts = [self.lua(v, names[i] if i < len(names) else None) for i, v in enumerate(args)]
        if kwargs:
            parts.append(self.options(kwargs))
        self.text = "%s(%s)" % (self.name, ", ".join(parts))

    def options(self, kwargs):
        renamed = special.RENAMED.get(self.op.name, {})
        return "{%s}" % ", ".join("%s = %s" % (renamed.get(k, k), self.lua(v, k)) for k, v in kwargs.items())

    def tensors_in_place(self, args, kwargs, names):
        """Tensors are arguments, not options: those given by keyword go where their parameter stands."""
        if not names:
            raise LeftOut("a tensor by keyword, and no parameter names")
        last = max(names.index(k) for k, v in kwargs.items() if has_tensor(v))
        defaults = dict(self.params)
        args = args + [kwargs.pop(n) if n in kwargs else defaults[n] for n in names[len(args):last + 1]]
        return args, kwargs

    def tensor(self, t, name=None):
        place = name in special.INDEX_TENSORS.get(self.op.name, special.INDEX_TENSORS[""])
        self.tensors.append(t)
        self.add.append(place and t.dtype in (torch.int64, torch.int32))
        return "x%d" % len(self.tensors)

    def lua(self, v, name=None):
        if isinstance(v, torch.Tensor):
            return self.tensor(v, name)
        if v is None:
            return "nil"
        if isinstance(v, torch.dtype):
            if v not in DTYPES:
                raise LeftOut("dtype " + str(v).split(".")[1])
            return '"%s"' % DTYPES[v]
        if isinstance(v, (bool, numpy.bool_)):
            return "true" if v else "false"
        if isinstance(v, (int, numpy.integer)):
            return str(int(v) + (1 if v >= 0 and self.counts(name) else 0))
        if isinstance(v, (float, numpy.floating)):
            return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(repr(float(v)), repr(float(v)))
        if isinstance(v, str):
            return '"%s"' % v
        if isinstance(v, (list, tuple)):
            return "{%s}" % ", ".join(self.lua(x, name) for x in v)
        raise LeftOut("an argument of type " + type(v).__name__)

    def counts(self, name):
        """Is this integer a dimension or a position?"""
        return name in special.DIMS.get(self.op.name, special.DIMS[""])


def has_tensor(v):
    return isinstance(v, torch.Tensor) or isinstance(v, (list, tuple)) and any(isinstance(x, torch.Tensor) for x in v)


def rebuilt(v):
    if isinstance(v, torch.Tensor):
        return rounded(v)
    if isinstance(v, (list, tuple)):
        return type(v)(rebuilt(x) for x in v) if not hasattr(v, "_fields") else v
    if isinstance(v, (complex, numpy.complexfloating)):
        raise LeftOut("complex")
    return v


def flat(results):
    if isinstance(results, (list, tuple)):
        return [x for r in results for x in flat(r)]
    return [results]


# ---- recording ----

def cotangent(t, j):
    k = torch.arange(t.numel(), dtype=torch.int64)
    return (((7 * (k + 3 * j)) % 11 - 5).to(torch.float64) / 4 + 0.1).reshape(t.shape).to(t.dtype)


def record(op, sample, with_grad):
    """The lines of a sample, and how many numbers they hold."""
    for v in (sample.input, *sample.args, *sample.kwargs.values()):
        if isinstance(v, torch.Tensor) and v.numel() > LARGEST:
            raise LeftOut("too large")
    sample.input, sample.args = rebuilt(sample.input), tuple(rebuilt(v) for v in sample.args)
    sample.kwargs = {k: rebuilt(v) for k, v in sample.kwargs.items()}
    call = Call(op, sample)
    lines = [tensor_line(t, with_grad and t.requires_grad, a) for t, a in zip(call.tensors, call.add)]
    wants = [t for t in call.tensors if t.requires_grad] if with_grad else []
    results = special.results(op, flat(op.op(sample.input, *sample.args, **sample.kwargs)))
    if any(not isinstance(r, (torch.Tensor, int, float, bool)) for r in results):
        raise LeftOut("results that are no tensors")
    tolerance = special.TOLERANCES.get(op.name, "")
    out = ["c " + call.text + (" @ " + tolerance if tolerance else "")] + ["i " + x for x in lines]
    based = special.based(op, results, sample.kwargs)
    for j, r in enumerate(results):
        if isinstance(r, torch.Tensor):
            out.append("o " + tensor_line(r, False, j in based))
        else:
            out.append("o v - " + number(r))
    heads = [(r, j) for j, r in enumerate(results) if isinstance(r, torch.Tensor) and r.requires_grad]
    count = sum(t.numel() for t in call.tensors) + sum(r.numel() for r in results if isinstance(r, torch.Tensor))
    if wants and heads:
        total = sum((r * cotangent(r, j)).sum() for r, j in heads)
        grads = torch.autograd.grad(total, wants, allow_unused=True)
        for t, g in zip(wants, grads):
            n = next(i for i, u in enumerate(call.tensors) if u is t) + 1
            out.append(("g %d %s" % (n, values(torch.zeros_like(t) if g is None else g))).rstrip())
            count += t.numel()
    return out, count


def pattern(sample):
    """What makes samples alike: kinds of arguments and ranks, not sizes."""
    def of(v):
        if isinstance(v, torch.Tensor):
            return "t%d%s%s%s" % (v.dim(), "e" if v.numel() == 0 else "", "" if v.is_contiguous() else "n",
                                  KINDS.get(v.dtype, "?"))
        if isinstance(v, (list, tuple)):
            return "[%s]" % ",".join(of(x) for x in v[:3])
        if isinstance(v, (bool, str)):
            return repr(v)
        if isinstance(v, (int, float)):
            return "%s%s" % (type(v).__name__, "-" if v < 0 else "")
        return str(v)
    return " ".join([of(sample.input), *map(of, sample.args), *(k + of(v) for k, v in sorted(sample.kwargs.items()))])


def cases(op, dtype, budget, why):
    """The recorded samples of one dtype: every pattern once, small ones first, then more of them."""
    with_grad = dtype == torch.float64 and op.supports_autograd and op.name not in special.NO_GRADIENT
    found = []
    for sample in op.sample_inputs("cpu", dtype, requires_grad=with_grad):
        key = pattern(sample)
        try:
            lines, count = record(op, sample, with_grad)
        except LeftOut as e:
            why[str(e)] += 1
            continue
        found.append((count, len(found), key, lines))
    found.sort(key=lambda f: f[:2])
    chosen, keys = [], set()
    for again in (False, True):
        for f in found:
            fresh = f[2] not in keys or again and f not in chosen
            fits_in = f[0] <= budget or not chosen and f[0] <= LARGEST
            if fresh and fits_in and len(chosen) < (SAMPLES if dtype == torch.float64 else 6):
                keys.add(f[2])
                chosen.append(f)
                budget -= f[0]
    seen = set()
    for f in sorted(chosen, key=lambda f: f[1]):
        text = "\n".join(f[3])
        if text not in seen:
            seen.add(text)
            yield f[3]


def left_out(path):
    names = {}
    reason = None
    for line in open(path):
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            reason = line.strip()
            continue
        for name in line.split():
            names[name] = reason
    return names


def main():
    here = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
    skipped = left_out(here + "/opinfo_left_out.txt")
    only = set(sys.argv[1:])
    print("# PyTorch %s, recorded by opinfo.py, which tells how it is written." % torch.__version__.split("+")[0])
    covered, count, unknown = set(), 0, []
    for op in op_db:
        full = op.name + (":" + op.variant_test_name if op.variant_test_name else "")
        if full in skipped or op.name in skipped or only and op.name not in only:
            continue
        torch.manual_seed(7)
        random.seed(7)
        numpy.random.seed(7)
        lines, why = [], collections.Counter()
        for dtype, budget in ((torch.float64, BUDGET), (torch.float32, OTHER_BUDGET), (torch.int64, OTHER_BUDGET),
                              (torch.bool, OTHER_BUDGET)):
            if dtype not in op.supported_dtypes("cpu"):
                continue
            try:
                for case in cases(op, dtype, budget, why):
                    lines += case
                    count += 1
            except Exception as e:  # said, with the entry's name: this is a script to be watched
                print("%s: %s: %s" % (full, type(e).__name__, e), file=sys.stderr)
        if not lines:
            unknown.append(full + " (" + "; ".join(why) + ")")
            continue
        print("op " + op.name + (" " + op.variant_test_name if op.variant_test_name else ""))
        for reason, n in sorted(why.items()):
            print("# %d sample%s left out: %s" % (n, "s" if n > 1 else "", reason))
        print("\n".join(lines))
        covered.add(op.name)
    print("%d ops, %d samples" % (len(covered), count), file=sys.stderr)
    if unknown:
        sys.exit("neither recorded nor in opinfo_left_out.txt: " + "\n  ".join([""] + unknown))


if __name__ == "__main__":
    main()
