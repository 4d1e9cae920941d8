#!/usr/bin/env python3
"""Records what PyTorch's distributions give: log_prob, moments, entropy, cdf, icdf, divergences, and gradients of log_prob.

    python3 spec/golden/distributions.py > spec/golden/distributions.txt

spec/lua/distributions.lua replays the file without Python. A line is
    EXPRESSION = values
The expression is Lua; D is kiln.distributions, T{…} a float64 tensor, I{…} an int64 one, G(f, x …) the gradients of the sum
of f(x …) as one list. Classes are counted from 1 in the expression and from 0 for PyTorch.
"""
import torch
import torch.distributions as D

torch.set_default_dtype(torch.float64)


def lua(x):
    return "{%s}" % ", ".join(lua(v) for v in x) if isinstance(x, list) else repr(float(x)) if isinstance(x, float) else str(x)


def show(expression, value):
    flat = value.detach().reshape(-1).tolist()
    print("%s = %s" % (expression, " ".join("%.13g" % v for v in flat)))


def kept(name, *params):
    return "D.%s(%s)" % (name, ", ".join("T" + lua(p) if isinstance(p, list) else lua(p) for p in params))


def tensors(params):
    return [torch.tensor(p) if isinstance(p, list) else p for p in params]


def check(name, params, x, extra=(), based=False, make=None, gradient=True):
    """All that a distribution says of x; extra: cdf and the like."""
    make = make or getattr(D, name)
    d, written = make(*tensors(params)), kept(name, *params)
    value = "I" + lua(x) if based else "T" + lua(x)
    at = torch.tensor(x) - 1 if based else torch.tensor(x)
    show("%s:log_prob(%s)" % (written, value), d.log_prob(at))
    for what in ("mean", "variance", "stddev") if not based else ():
        show("%s.%s" % (written, what), getattr(d, what))
    if "no entropy" not in extra:
        show("%s:entropy()" % written, d.entropy())
    for what in extra:
        if what in ("cdf", "icdf"):
            p = [0.1, 0.55, 0.9] if what == "icdf" else x
            show("%s:%s(T%s)" % (written, what, lua(p)), getattr(d, what)(torch.tensor(p)))
    lists = [i for i, p in enumerate(params) if isinstance(p, list)]
    if not gradient:
        return
    leaves = [torch.tensor(params[i], requires_grad=True) for i in lists]
    args = list(params)
    for i, leaf in zip(lists, leaves):
        args[i] = leaf
    grads = torch.autograd.grad(make(*args).log_prob(at).sum(), leaves)
    names = ["p%d" % i for i in lists]
    inner = ", ".join("p%d" % i if i in lists else lua(p) for i, p in enumerate(params))
    show("G(function(%s) return D.%s(%s):log_prob(%s) end, %s)" % (
        ", ".join(names), name, inner, value, ", ".join("T" + lua(params[i]) for i in lists)),
        torch.cat([g.reshape(-1) for g in grads]))


X = [-1.3, 0.2, 2.5]
P = [0.3, 1.2, 4.5]
check("Normal", ([0.5, -1.0, 0.0], [1.0, 0.3, 2.0]), X, ("cdf", "icdf"))
check("Normal", (0.5, [2.0]), [[0.1], [3.0]], ("cdf",))
check("LogNormal", ([0.5, -1.0, 0.0], [1.0, 0.3, 0.7]), P, ("cdf", "icdf"))
check("Uniform", ([-2.0, 0.0, 1.0], [3.0, 0.5, 4.0]), X, ("cdf", "icdf"))
check("Exponential", ([0.5, 1.0, 3.0],), P, ("cdf", "icdf"))
check("Gamma", ([0.5, 1.0, 7.3], [1.0, 0.3, 2.0]), P)
check("Beta", ([0.5, 1.0, 3.0], [2.0, 1.0, 0.7]), [0.2, 0.5, 0.93])
check("Laplace", ([0.5, -1.0, 0.0], [1.0, 0.3, 2.0]), X, ("cdf", "icdf"))
check("Cauchy", ([0.5, -1.0, 0.0], [1.0, 0.3, 2.0]), X, ("cdf", "icdf"))
check("StudentT", ([0.7, 1.5, 5.0], [0.5, -1.0, 0.0], [1.0, 0.3, 2.0]), X)
check("Gumbel", ([0.5, -1.0, 0.0], [1.0, 0.3, 2.0]), X, ("cdf", "icdf"))
check("Bernoulli", ([0.2, 0.5, 0.9],), [0.0, 1.0, 1.0])
check("Bernoulli", ([0.0, 1.0],), [0.0, 1.0], gradient=False)
check("Geometric", ([0.2, 0.5, 0.9],), [0.0, 3.0, 1.0])
check("Poisson", ([0.2, 5.0, 40.0],), [0.0, 3.0, 45.0], ("no entropy",))
check("Binomial", ([5.0, 10.0, 3.0], [0.2, 0.5, 0.9]), [0.0, 7.0, 3.0], ("no entropy",), gradient=False)
check("Categorical", ([[0.2, 0.3, 0.5], [1.0, 1.0, 2.0]],), [[1, 2], [3, 3], [2, 1]], based=True)
check("Dirichlet", ([[0.5, 1.0, 3.0], [2.0, 2.0, 2.0]],), [[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
check("Multinomial", (6, [[0.2, 0.3, 0.5], [1.0, 1.0, 2.0]]), [[1.0, 2.0, 3.0], [0.0, 6.0, 0.0]], ("no entropy",))
C = [[2.0, 0.3, -0.1], [0.3, 1.0, 0.2], [-0.1, 0.2, 0.5]]
check("MultivariateNormal", ([0.5, -1.0, 0.0], C), [[0.1, 0.2, 0.3], [1.0, -1.0, 0.0]])
L = [[1.0, 0.0], [0.5, 2.0]]
for key in ("scale_tril", "precision_matrix", "covariance_matrix"):
    m = L if key == "scale_tril" else [[2.0, 0.3], [0.3, 1.0]]
    show("D.MultivariateNormal(T{0.5, 1.0}, { %s = T%s }):log_prob(T{1.0, 2.0})" % (key, lua(m)),
         D.MultivariateNormal(torch.tensor([0.5, 1.0]), **{key: torch.tensor(m)}).log_prob(torch.tensor([1.0, 2.0])))
for name in ("Bernoulli", "Geometric"):
    show("D.%s({ logits = T{-1.0, 0.5} }):log_prob(T{1.0, 0.0})" % name,
         getattr(D, name)(logits=torch.tensor([-1.0, 0.5])).log_prob(torch.tensor([1.0, 0.0])))
show("D.Categorical({ logits = T{-1.0, 0.5, 2.0} }):log_prob(I{1, 3})",
     D.Categorical(logits=torch.tensor([-1.0, 0.5, 2.0])).log_prob(torch.tensor([0, 2])))

PAIRS = {
    "Normal": (([0.5, -1.0], [1.0, 0.3]), ([0.1, 2.0], [2.0, 0.7])),
    "LogNormal": (([0.5, -1.0], [1.0, 0.3]), ([0.1, 2.0], [2.0, 0.7])),
    "Bernoulli": (([0.2, 0.9, 0.0],), ([0.5, 0.3, 0.4],)),
    "Categorical": (([[0.2, 0.3, 0.5]],), ([[0.5, 0.3, 0.2]],)),
    "Uniform": (([0.0, 0.5], [1.0, 2.0]), ([-1.0, 1.0], [3.0, 4.0])),
    "Exponential": (([0.5, 2.0],), ([1.0, 0.3],)),
    "Gamma": (([0.5, 2.0], [1.0, 3.0]), ([1.0, 0.3], [2.0, 0.5])),
    "Beta": (([0.5, 2.0], [1.0, 3.0]), ([1.0, 0.3], [2.0, 0.5])),
    "Dirichlet": (([[0.5, 2.0, 1.0]],), ([[1.0, 0.3, 4.0]],)),
    "Laplace": (([0.5, 2.0], [1.0, 3.0]), ([1.0, 0.3], [2.0, 0.5])),
    "Poisson": (([0.5, 20.0],), ([1.0, 13.0],)),
    "Geometric": (([0.5, 0.2],), ([0.1, 0.3],)),
    "Binomial": (([5.0, 7.0], [0.5, 0.2]), ([5.0, 7.0], [0.1, 0.3])),
    "Cauchy": (([0.5, 2.0], [1.0, 3.0]), ([1.0, 0.3], [2.0, 0.5])),
    "Gumbel": (([0.5, 2.0], [1.0, 3.0]), ([1.0, 0.3], [2.0, 0.5])),
    "MultivariateNormal": (([0.5, 2.0], [[2.0, 0.3], [0.3, 1.0]]), ([1.0, 0.3], [[1.0, -0.2], [-0.2, 3.0]])),
}
for name, (a, b) in PAIRS.items():
    make = getattr(D, name)
    show("D.kl_divergence(%s, %s)" % (kept(name, *a), kept(name, *b)),
         D.kl_divergence(make(*tensors(a)), make(*tensors(b))))
