"""What is special about the calls that opinfo.py derives: tables by OpInfo's names. "" is the row for all others."""
import torch


class LeftOut(Exception):
    """Why a sample is not recorded."""


# Another name in kiln than PyTorch's; nn.functional.NAME is F.NAME.
NAMES = {"repeat": "tile", "scalar_tensor": "tensor"}

# Parameter names where neither Python nor a schema tells them, or tells others than the database's entry has.
PARAMETERS = {
    "nn.functional.embedding": "weight indices",
    "where": "self condition other",
    "index_put": "self indices values accumulate",
    "tensordot": "self other dims",
    "index_fill": "self dim index value",
}

# Integers that are dimensions or positions: 1-based in kiln.
DIMS = {
    "": {"dim", "dims", "dim0", "dim1", "dim2", "axis", "axes", "axis0", "axis1", "start_dim", "end_dim", "source",
         "destination", "dimension"},
    "select": {"dim", "index"},
    "select_scatter": {"dim", "index"},
    "narrow": {"dim", "start"},
    "narrow_copy": {"dim", "start"},
    "tile": set(),
    "repeat": set(),
    "nn.functional.nll_loss": {"ignore_index"},
    "nn.functional.cross_entropy": {"ignore_index"},
    "nn.functional.embedding": {"padding_idx"},
    "nn.functional.embedding_bag": {"padding_idx"},
}

# Tensors that hold positions: 1-based in kiln.
INDEX_TENSORS = {
    "": {"index", "indices"},
    "nn.functional.nll_loss": {"target"},
    "nn.functional.cross_entropy": {"target"},
    "nn.functional.multi_margin_loss": {"target"},
    "nn.functional.multilabel_margin_loss": {"target"},
    "nn.functional.one_hot": {"self", "input", "tensor"},
    "bincount": {"self", "input"},
}

# Results that hold positions.
BASED = {"argmax": {0}, "argmin": {0}, "argsort": {0}, "argwhere": {0}, "nonzero": {0}, "searchsorted": {0},
         "bucketize": {0}, "tril_indices": {0}, "triu_indices": {0}, "sort": {1}, "topk": {1}, "kthvalue": {1},
         "mode": {1}, "median": {1}, "nanmedian": {1}, "cummax": {1}, "cummin": {1}, "unique": {1},
         "unique_consecutive": {1}, "max": {1}, "min": {1}, "nn.functional.max_pool1d": {1},
         "nn.functional.max_pool2d": {1}, "nn.functional.max_pool3d": {1}}

# Options that mean nothing here.
DROPPED = {"memory_format", "device", "generator", "layout", "pin_memory", "non_blocking"}

# Options of which these values are what kiln does anyway.
SAME = {
    "argsort": {"stable": (False, True)},
    "sort": {"stable": (False, True, None)},
    "searchsorted": {"out_int32": (False,), "side": ("left",)},
    "bucketize": {"out_int32": (False,)},
    "nonzero": {"as_tuple": (False,)},
    "nn.functional.one_hot": {"num_classes": (-1,)},
    "round": {"decimals": (0,)},
}

# Options with another name in kiln.
RENAMED = {"nn.functional.pixel_shuffle": {"upscale_factor": "factor"},
           "nn.functional.pixel_unshuffle": {"downscale_factor": "factor"}}

# Samples that are left out: entry, option, why. An empty entry is all of them.
WITHOUT = [
    ("linalg.lstsq", "driver", "driver: there is one way"),
    ("rsub", "alpha", "alpha: written y - alpha * x"),
    ("", "unbiased", "unbiased: an older name of correction"),
    ("searchsorted", "sorter", "sorter: gather first"),
    ("searchsorted", "out_int32", "out_int32: positions are int64"),
    ("bucketize", "out_int32", "out_int32: positions are int64"),
    ("softmax", "dtype", "dtype: cast first"),
    ("log_softmax", "dtype", "dtype: cast first"),
    ("nn.functional.softmin", "dtype", "dtype: cast first"),
    ("searchsorted", "side", "side: the same as right"),
    ("nonzero", "as_tuple", "as_tuple: unbind along the last dim"),
    ("repeat_interleave", "output_size", "output_size: what PyTorch need not count"),
    ("cov", "fweights", "cov with weights"), ("cov", "aweights", "cov with weights"),
    ("cumsum", "dtype", "dtype: cast first"), ("cumprod", "dtype", "dtype: cast first"),
    ("prod", "dtype", "dtype: cast first"), ("arange", "end", "end by its name: the only number given is the end"),
    ("scatter", "reduce", "reduce: scatter_add, scatter_reduce"),
    ("nn.functional.interpolate", "recompute_scale_factor", "recompute_scale_factor: an option of one call's past"),
]

# Floats only, where PyTorch also takes whole numbers.
FLOATS = {"nn.functional." + name for name in (
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d avg_pool1d avg_pool2d avg_pool3d max_pool1d "
    "max_pool2d max_pool3d").split()}

# No gradient is compared.
NO_GRADIENT = {"cholesky_solve"}  # PyTorch gives one to the triangle that is not read

# Tolerance where 1e-9 is too much to ask: PyTorch has single-precision constants in some gradients.
TOLERANCES = {"nn.functional.hardsigmoid": "1e-7", "nn.functional.hardswish": "1e-7"}


# ---- calls that are written otherwise ----

def operator(symbol):
    return lambda c, a, k, names: "%s %s %s" % (c.lua(a[1]), symbol, c.lua(a[0]))


def getitem(c, a, k, names):
    x = c.lua(a[0])
    keys = a[1] if isinstance(a[1], tuple) else (a[1],)
    parts = []
    for key in keys:
        if isinstance(key, slice):
            if key == slice(None):
                parts.append("{}")
                continue
            start, stop, step = key.start or 0, key.stop, key.step
            last = -1 if stop is None else stop if stop > 0 else stop - 1
            parts.append("{%d, %d%s}" % (start + 1 if start >= 0 else start, last, ", %d" % step if step else ""))
        elif isinstance(key, (torch.Tensor, list)):
            parts.append(c.tensor(torch.as_tensor(key), "index"))
        elif key is Ellipsis:
            parts.append('"..."')
        elif key is None:
            parts.append("newaxis")
        elif isinstance(key, int) and not isinstance(key, bool):
            parts.append(str(key + 1 if key >= 0 else key))
        else:
            raise LeftOut("a key that is " + type(key).__name__)
    return "%s[%s]" % (x, parts[0] if len(parts) == 1 and not parts[0].startswith("{") else "{%s}" % ", ".join(parts))


def only(c, a, k, *wanted):
    """The results that PyTorch gives for these flags, of all that kiln gives."""
    if k.get("dim") is not None:
        raise LeftOut("unique along a dim")
    if k.get("sorted") is False:
        raise LeftOut("unique in the order of a hash table")
    picks = [1] + [i for i, f in enumerate(wanted, 2) if k.get(f)]
    call = "%s(%s)" % (c.name, c.lua(a[0]))
    return call if len(picks) == 1 + len(wanted) else "pick({%s}, %s)" % (", ".join(map(str, picks)), call)


def first_without_dim(c, a, k, names):
    call = "%s(%s)" % (c.name, ", ".join([c.lua(v, names[i]) for i, v in enumerate(a)] + ([c.options(k)] if k else [])))
    return call if len(a) > 1 or "dim" in k else "(%s)" % call


def in_table(c, a, k, names):
    """Tensors side by side are a table of them."""
    list_ = a if isinstance(a[0], torch.Tensor) else a[0]
    return "%s(%s)" % (c.name, ", ".join([c.lua(list(list_))] + ([c.options(k)] if k else [])))


def to(c, a, k, names):
    """Without the flags, which are False here."""
    return "to(%s)" % ", ".join([c.lua(v) for v in a if not isinstance(v, bool)] + [c.options(k) for k in [
        {n: v for n, v in k.items() if n != "copy"}] if k])


def tensors_first(c, a, k, names):
    """Losses whose weights PyTorch has behind the options."""
    given = {n: v for n, v in dict(zip(names, a), **k).items() if v is not None}
    order = [n for n in ("input", "target", "weight", "pos_weight") if n in names]
    tensors = [c.lua(given.pop(n, None), n) for n in order]
    while tensors[-1] == "nil":
        tensors.pop()
    return "%s(%s)" % (c.name, ", ".join(tensors + ([c.options(given)] if given else [])))


def linalg_diagonal(c, a, k, names):
    """diagonal, whose dims are the last two unless others are named."""
    given = {"offset": 0, "dim1": -2, "dim2": -1, **k}
    return "diagonal(%s, %s)" % (c.lua(a[0]), c.options(given))


def without(option):
    """All but one argument, which says how something is computed."""
    def call(c, a, k, names):
        last = [v for v, name in zip(a, names) if name != option]
        return "%s(%s)" % (c.name, ", ".join(c.lua(v, name) for v, name in zip(last, names)))
    return call


def split_at(c, a, k, names):
    """Places where parts begin count from 1, a number of parts does not."""
    def one(v):
        return "{%s}" % ", ".join(str(i + 1 if i >= 0 else i) for i in v) if isinstance(v, (tuple, list)) else c.lua(v)
    given = [one(a[1])] + [c.lua(v, "dim") for v in a[2:]] if len(a) > 1 else [one(next(iter(k.values())))]
    if isinstance(a[1] if len(a) > 1 else None, torch.Tensor):
        raise LeftOut("places that are a tensor")
    return "%s(%s)" % (c.name, ", ".join([c.lua(a[0])] + given))


def summed_over(c, a, k, names):
    """dims is a number of dims, or lists of them for each side."""
    dims = k.get("dims", a[2] if len(a) > 2 else 2)
    return "tensordot(%s, %s, %s)" % (c.lua(a[0]), c.lua(a[1]), c.lua(dims, None if isinstance(dims, int) else "dim"))


def added(c, a, k, names):
    """alpha is a factor of what is added."""
    dim, index, y = (c.lua(v, name) for v, name in zip(a[1:], ("dim", "index", "source")))
    factor = k.get("alpha", 1)
    return "index_add(%s, %s, %s, %s)" % (c.lua(a[0]), dim, index, y if factor == 1 else "%s * %s" % (c.lua(factor), y))


def without_places(c, a, k, names):
    """adaptive_max_pool gives no places of the maxima."""
    if any(v is True for v in [*a, *k.values()]):
        raise LeftOut("return_indices")
    return "%s(%s)" % (c.name, ", ".join(c.lua(v) for v in [*a, *k.values()] if v is not False))


def embedding(c, a, k, names):
    """The database has the weight first, the function the indices."""
    weight, index = c.tensor(a[0]), c.tensor(a[1], "indices")
    return "%s(%s, %s%s)" % (c.name, index, weight, ", " + c.options(k) if k else "")


CALLS = {
    "nn.functional.embedding": embedding,
    "__getitem__": getitem,
    "__radd__": operator("+"), "__rsub__": operator("-"), "__rmul__": operator("*"), "__rdiv__": operator("/"),
    "__rmod__": operator("%"), "__rpow__": operator("^"), "__rand__": operator("&"), "__ror__": operator("|"),
    "__rxor__": operator("~"), "rsub": operator("-"),
    "__rmatmul__": lambda c, a, k, names: "matmul(%s, %s)" % (c.lua(a[1]), c.lua(a[0])),
    "einsum": lambda c, a, k, names: 'einsum("%s", %s)' % (a[1], c.lua(a[0])),
    "where": lambda c, a, k, names: "where(%s, %s, %s)" % (c.lua(a[1]), c.lua(a[0]), c.lua(a[2])),
    "unique": lambda c, a, k, names: only(c, a, k, "return_inverse", "return_counts"),
    "unique_consecutive": lambda c, a, k, names: only(c, a, k, "return_inverse", "return_counts"),
    "block_diag": in_table, "cartesian_prod": in_table, "broadcast_tensors": in_table,
    "zero_": lambda c, a, k, names: "%s:clone():zero_()" % c.lua(a[0]),
    "fill": lambda c, a, k, names: "%s:clone():fill_(%s)" % (c.lua(a[0]), c.lua(a[1] if len(a) > 1 else k["value"])),
    "meshgrid": in_table, "index_add": added, "cdist": without("compute_mode"),
    "tensor_split": split_at, "hsplit": split_at, "vsplit": split_at, "dsplit": split_at, "tensordot": summed_over,
    "to": to, "nn.functional.multi_margin_loss": tensors_first, "linalg.diagonal": linalg_diagonal,
    "nn.functional.binary_cross_entropy_with_logits": tensors_first,
    "nn.functional.adaptive_max_pool1d": without_places, "nn.functional.adaptive_max_pool2d": without_places,
    "nn.functional.adaptive_max_pool3d": without_places,
    "median": first_without_dim,
    "nanmedian": first_without_dim,
    "T": lambda c, a, k, names: c.lua(a[0]) + ".T",
    "mT": lambda c, a, k, names: c.lua(a[0]) + ".mT",
}


def refuse(op, args, kwargs):
    """Why a sample is not recorded, or None."""
    for name, option, why in WITHOUT:
        if op.name == name or not name:
            if option in kwargs and kwargs[option] not in SAME.get(op.name, {}).get(option, ()):
                return why
    if op.name in ("var", "std", "var_mean", "std_mean") and len(args) > 1 and isinstance(args[1], bool):
        return "unbiased: an older name of correction"
    if op.name == "diff" and any(isinstance(v, torch.Tensor) for v in args[1:]):
        return "prepend and append: cat first"
    if op.name == "cov" and any(isinstance(v, torch.Tensor) for v in args[1:]):
        return "cov with weights"
    if op.name == "to" and (any(v is True for v in args) or any(kwargs.get(k) for k in ("non_blocking", "copy"))):
        return "non_blocking and copy"
    flat = [*args, *kwargs.values()]
    if op.name in FLOATS and not args[0].dtype.is_floating_point:
        return "whole numbers: floats are needed"
    if op.name == "nn.functional.local_response_norm" and not args[0].dtype.is_floating_point:
        return "whole numbers, of which PyTorch takes means without fractions"
    if op.name.startswith("nn.functional.adaptive_") and any(isinstance(v, tuple) and None in v for v in flat):
        return "None for a size: there is no hole in a list of Lua"
    if op.name.startswith("nn.functional.avg_pool") and any(
            isinstance(v, int) and not isinstance(v, bool) and v < 0 for v in flat):
        return "a divisor below 0"
    if op.name == "nn.functional.rms_norm" and any(isinstance(v, float) and v < 0 for v in flat):
        return "eps below 0"
    if op.name in ("nn.functional.multi_margin_loss", "nn.functional.multilabel_margin_loss") and (
            args[0].dim() == 0 or args[0].dim() == 1 and args[1].dim() == 1 and op.name.endswith("multi_margin_loss")):
        return "one sample's scores beside targets that have a batch, or of rank 0"
    if op.name == "nn.functional.batch_norm" and args[0].dim() == 1:
        return "a list, which has no channels"
    if op.name == "searchsorted" and isinstance(args[1], (int, float)):
        return "a number to search: a tensor of it"
    if op.name == "take_along_dim" and any(isinstance(v, torch.Tensor) and (v < 0).any() for v in args[1:2]):
        return "negative places"
    for option in ("max_norm", "sparse"):
        if op.name == "nn.functional.embedding" and option in kwargs:
            return option + (": it writes the weight" if option == "max_norm" else ": there are no sparse gradients")
    if op.name == "kthvalue" and not args[0].dtype.is_floating_point and args[0].dim():
        return "whole numbers: any of equal ones is the k-th"
    if op.name == "narrow" and isinstance(args[2], torch.Tensor):
        return "a start that is a tensor"
    if op.name == "logit" and any(isinstance(v, float) and v > 0.5 for v in flat):
        return "eps above a half"
    if op.name == "bincount" and any(isinstance(v, torch.Tensor) and not v.dtype.is_floating_point for v in flat[1:]):
        return "weights that are integers"
    if op.name == "cat" and len({t.dim() for t in args[0]}) > 1:
        return "an empty list beside tensors of more dims, which PyTorch passes over"
    if op.name == "unfold" and args[0].dim() == 0:
        return "a 0-d tensor"
    if op.name in ("gather", "scatter", "scatter_add", "index_select", "index_copy", "index_add") and (
            len({a.dim() for a in args if isinstance(a, torch.Tensor)}) > 1 and args[0].dim() == 0):
        return "a 0-d tensor with an index that has a dim"
    if op.name in ("linalg.pinv", "linalg.matrix_rank") and any(
            isinstance(a, torch.Tensor) for a in [*args[1:], *kwargs.values()]):
        return "tolerances that are tensors"
    if op.name == "linalg.matrix_power" and args[-1] == 0:
        return "the power 0, which no gradient comes to"
    if op.name in ("__rpow__", "pow") and any(isinstance(a, torch.Tensor) and a.dim() == 0 and not a.is_floating_point()
                                              and not a.dtype == torch.bool and a.item() < 0 for a in args):
        return "one negative power of integers, an error here as it is of a number"
    if op.name in ("gather", "index_select", "scatter", "scatter_add") and any(
            isinstance(a, torch.Tensor) and a.dtype == torch.uint8 for a in args):
        return "an index of uint8, allowed by PyTorch when empty"
    return None


def results(op, r):
    return r


def based(op, results, flags):
    if op.name.startswith("unique") and not flags.get("return_inverse"):
        return set()
    return {j for j in BASED.get(op.name, set()) if j < len(results) and isinstance(results[j], torch.Tensor)
            and results[j].dtype == torch.int64}
