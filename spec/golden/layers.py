#!/usr/bin/env python3
"""Records what PyTorch's layers and losses give: outputs, gradients of inputs and parameters, buffers afterwards.

    python3 spec/golden/layers.py

writes layers.safetensors beside itself; spec/lua/golden_layers.lua replays it. What is recorded is told in layers_cases.py, a
call of `case` each; every class of torch.nn has one or stands with a reason in LEFT_OUT there. A layer is computed in float64
from weights and inputs that are float32, and what is recorded is float32.

The tensors of case number N, all of which begin with "N.":

    c1 …          tensors that its constructor is given             s:NAME    its state before, by PyTorch's names
    x1 …          the inputs                                        MODE.y1 … the results; MODE is t (training) or e (eval)
    MODE.gx1 …    gradients of the inputs                           MODE.g:NAME   gradients of the parameters
    t.a:NAME      what training has changed in the state

The metadata "cases" is Lua: a list of { class, constructor, call, modes, inputs that want a gradient }. Where eval gives what
training gives it is not recorded again, and modes is "te"; where it gives something else, "t e"; where training is random, "e".
A gradient is that of the sum over the float results of w times the result; element k of w (0-based) of result j (0-based) is
(7 (k + 3 j) mod 11 - 5) / 4 + 0.1. Index values are 1-based.
"""
import os
import sys

sys.dont_write_bytecode = True
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402


class I:
    """An integer or a tensor of integers that counts from 0 in PyTorch and from 1 in kiln; negative ones stay."""

    def __init__(self, value):
        self.value = torch.tensor(value) if isinstance(value, list) else value

    def based(self):
        v = self.value
        return torch.where(v >= 0, v + 1, v) if isinstance(v, torch.Tensor) else v + (v >= 0)


class T:
    """A tensor that gets no gradient, because PyTorch has none for it."""

    def __init__(self, value):
        self.value = value


class L:
    """A value and what it is written as in Lua."""

    def __init__(self, value, lua):
        self.value, self.lua = value, lua


def plain(v):
    if isinstance(v, (list, tuple)):
        return type(v)(plain(x) for x in v)
    return v.value if isinstance(v, (I, L, T)) else v


def lua(v, tensors):
    if isinstance(v, L):
        return v.lua
    if isinstance(v, torch.Tensor) or isinstance(v, I) and isinstance(v.value, torch.Tensor):
        tensors.append(v)
        return "c%d" % len(tensors)
    if isinstance(v, I):
        return str(v.based())
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (int, float)):
        return repr(v)
    if isinstance(v, str):
        return '"%s"' % v
    if isinstance(v, (list, tuple)):
        return "{%s}" % ", ".join(lua(x, tensors) for x in v)
    raise TypeError(type(v))


def flat(results):
    if isinstance(results, (list, tuple)):
        return [x for r in results for x in flat(r)]
    return [] if results is None else [results]


def cotangent(t, j):
    k = torch.arange(t.numel(), dtype=torch.int64)
    return (((7 * (k + 3 * j)) % 11 - 5).double() / 4 + 0.1).reshape(t.shape)


def kept(t):
    """As it is recorded."""
    if isinstance(t, I):
        return t.based().contiguous()
    return (t.detach().float() if t.dtype.is_floating_point else t).clone().contiguous()


def wide(t):
    return t.detach().float().double() if isinstance(t, torch.Tensor) and t.dtype.is_floating_point else t


class Recorder:
    def __init__(self):
        self.tensors, self.rows, self.classes, self.random = {}, [], set(), torch.Generator().manual_seed(5)

    def randn(self, *sizes):
        return torch.randn(*sizes, generator=self.random)

    def rand(self, *sizes):
        return torch.rand(*sizes, generator=self.random)

    def put(self, name, t):
        self.tensors["%d.%s" % (len(self.rows) + 1, name)] = kept(t)

    def settle(self, m):
        """Values for what is learnt, and for running values, that are not those a layer begins with."""
        with torch.no_grad():
            for name, t in m.state_dict().items():
                if name.endswith("running_var"):
                    t.copy_(wide(0.5 + self.rand(t.shape)))
                elif name.endswith("running_mean") or dict(m.named_parameters()).get(name) is not None:
                    t.copy_(wide(self.randn(t.shape) * 0.5))

    def case(self, name, *args, x, call=None, py=None, random=False, based=(), make=None, **options):
        """A layer: its class, its arguments and options, inputs x, and how it is called, in Lua and in Python. `based`:
        which results hold positions (0-based); random: only eval can be compared; make: the arguments in Lua, where they
        do not follow from the others."""
        given, tensors = [wide(plain(a)) for a in args], []
        text = [lua(a, tensors) for a in args]
        if options:
            text.append("{%s}" % ", ".join("%s = %s" % (k, lua(v, tensors)) for k, v in options.items()))
        text = [make] if make is not None else text
        m = getattr(torch.nn, name)(*given, **{k: wide(plain(v)) for k, v in options.items()}).double()
        for i, t in enumerate(tensors):
            self.put("c%d" % (i + 1), t)
        self.settle(m)
        for key, t in m.state_dict().items():
            self.put("s:" + key, t)
        inputs = [wide(plain(t)) for t in x]
        wants = [i for i, t in enumerate(inputs) if t.dtype.is_floating_point and not isinstance(x[i], T)]
        for i, t in enumerate(x):
            self.put("x%d" % (i + 1), t.value if isinstance(t, T) else t)
        modes = "e" if random else self.both(m, py or (lambda m, *x: m(*x)), inputs, wants, based)
        if random:
            self.run(m.eval(), "e", py or (lambda m, *x: m(*x)), inputs, wants, based)
        call = call or "m(%s)" % ", ".join("x%d" % (i + 1) for i in range(len(x)))
        self.rows.append('{ "%s", "nn.%s(%s)", "%s", "%s", {%s} },' % (
            name, name, ", ".join(text).replace('"', '\\"'), call.replace('"', '\\"'), modes,
            ", ".join(str(i + 1) for i in wants)))
        self.classes.add(name)

    def both(self, m, f, inputs, wants, based):
        before = {k: t.clone() for k, t in m.state_dict().items()}
        first = self.run(m.train(), "t", f, inputs, wants, based)
        for key, t in m.state_dict().items():
            if not torch.equal(t, before[key]):
                self.put("t.a:" + key, t)
        state = dict(self.tensors)
        again = self.run(m.eval(), "e", f, inputs, wants, based)
        if len(first) == len(again) and all(torch.equal(a, b) for a, b in zip(first, again)):
            self.tensors = state
            return "te"
        return "t e"

    def run(self, m, mode, f, inputs, wants, based):
        xs = [t.clone().requires_grad_() if i in wants else t for i, t in enumerate(inputs)]
        results = flat(f(m, *xs))
        for j, r in enumerate(results):
            self.put("%s.y%d" % (mode, j + 1), I(r) if j in based else r)
        heads = [(r, j) for j, r in enumerate(results) if r.requires_grad]
        named = [(n, p) for n, p in m.named_parameters() if p.requires_grad]
        leaves = [xs[i] for i in wants] + [p for _, p in named]
        if heads and leaves:
            grads = torch.autograd.grad(sum((r * cotangent(r, j)).sum() for r, j in heads), leaves, allow_unused=True)
            for name, g in zip(["gx%d" % (i + 1) for i in wants] + ["g:" + n for n, _ in named], grads):
                if g is not None:
                    self.put("%s.%s" % (mode, name), g)
        return [r.detach() for r in results]


def main():
    import layers_cases
    recorder = Recorder()
    layers_cases.record(recorder)
    classes = {n for n, v in vars(torch.nn).items() if isinstance(v, type) and issubclass(v, torch.nn.Module)}
    missing = classes - recorder.classes - set(layers_cases.LEFT_OUT)
    if missing:
        sys.exit("neither recorded nor left out: " + " ".join(sorted(missing)))
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "layers.safetensors")
    save_file(recorder.tensors, path, {"cases": "return {\n%s\n}" % "\n".join(recorder.rows),
                                       "pytorch": torch.__version__.split("+")[0]})
    print("%d cases of %d classes, %d tensors, %d bytes" % (
        len(recorder.rows), len(recorder.classes), len(recorder.tensors), os.path.getsize(path)))


if __name__ == "__main__":
    sys.modules["layers"] = sys.modules["__main__"]  # the cases import I, L and T from here
    main()
