"""Records promotion.txt and casts.txt from PyTorch (CPU), beside this script.

Left out of casts.txt, as '-': floats that an integer dtype cannot hold (there PyTorch's answer depends on the
machine, kiln's does not), and float64 and int64 on the way to a half when float32 does not hold them (PyTorch
rounds twice there, kiln once). A nan is recorded as 'nan'."""
import math
import pathlib

import torch

HERE = pathlib.Path(__file__).parent
NAMES = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64".split()
DTYPE = {n: getattr(torch, n) for n in NAMES}
SIZE = {n: torch.tensor([], dtype=DTYPE[n]).element_size() for n in NAMES}
UNSIGNED = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def promotion():
    one = {n: torch.ones(2, dtype=DTYPE[n]) for n in NAMES}
    name = {d: n for n, d in DTYPE.items()}
    numbers = {"bool": True, "int": 1, "float": 1.0}
    lines = [f"# torch {torch.__version__.split('+')[0]}: tensor beside tensor, tensor beside 0-d tensor, tensor beside number"]
    for a in NAMES:
        for b in NAMES:
            lines.append(f"tensor {a} {b} {name[torch.result_type(one[a], one[b])]}")
            lines.append(f"zero-d {a} {b} {name[torch.result_type(one[a], one[b][0])]}")
        for k, v in numbers.items():
            lines.append(f"number {a} {k} {name[torch.result_type(one[a], v)]}")
    (HERE / "promotion.txt").write_text("\n".join(lines) + "\n")


def values(n):
    if n == "bool":
        return [0, 1]
    if not n.startswith(("float", "bfloat")):
        info = torch.iinfo(DTYPE[n])
        near = [0, 1, 2, 100, 127, 128, 129, 200, 255, 256, 257, 300, 2047, 2048, 2049, 2051, 32767, 32768, 32769, 65504,
                65519, 65520, 65535, 65536, 65537, 2**24 - 1, 2**24 + 1, 2**24 + 3, 2**31 - 1, 2**31, 2**32 + 5, 2**53 + 1,
                2**53 + 3, 2**62 + 2**38, info.max, info.max - 1]
        both = near + [-x for x in near] + [info.min, info.min + 1]
        return sorted({x for x in both if info.min <= x <= info.max})
    out = [0.0, 0.25, 0.5, 0.75, 0.999, 1.0, 1.5, 2.5, 3.5, 126.5, 127.0, 127.5, 128.0, 128.5, 254.5, 255.0, 255.9, 256.0,
           2047.5, 2049.0, 32767.0, 32767.9, 32768.0, 32768.5, 65503.0, 65504.0, 65519.0, 65519.99, 65520.0, 65536.0, 1e5,
           2.0**31 - 1, 2.0**31 - 128, 2.0**31, 2.0**53, 2.0**63 - 1024, 2.0**63, 3.3e38, 3.3895e38, 3.39e38, 3.4028235e38,
           1e39, 1e308, math.inf, math.nan, 2.0**-14, 2.0**-15, 2.0**-24, 2.0**-25, 2.0**-25 * (1 + 2.0**-20), 2.0**-26,
           3 * 2.0**-25, 1023 * 2.0**-24, 1023.5 * 2.0**-24, 2.0**-126, 2.0**-133, 2.0**-134, 2.0**-149, 2.0**-150,
           3 * 2.0**-134, 1e-320]
    for digits in (8, 11, 24):  # halfway between neighbours of a narrower dtype, and just beside it
        u = 2.0**-digits
        out += [1 + u, 1 + 3 * u, 1 + u + u * 2.0**-9, 1 + u - u * 2.0**-9, 1 + 5 * u]
    return out + [-x for x in out]


def bits(t):
    raw = t.view(UNSIGNED[t.element_size()]) if t.dtype != torch.bool else t.view(torch.uint8)
    return raw.item() & (1 << 8 * t.element_size()) - 1


def cast(x, n, to):
    """x: one element of dtype n."""
    real = DTYPE[n].is_floating_point
    if real and not DTYPE[to].is_floating_point and to != "bool":
        info, v = torch.iinfo(DTYPE[to]), x.item()
        if not math.isfinite(v) or not info.min <= math.trunc(v) <= info.max:
            return "-"
    if to in ("float16", "bfloat16") and n in ("float64", "int64", "int32"):
        if not torch.equal(x.to(torch.float32).to(torch.float64), x.to(torch.float64)) and not x.isnan().any():
            return "-"
        if n == "int64" and int(x.to(torch.float64).item()) != x.item():
            return "-"
    y = x.to(DTYPE[to])
    if DTYPE[to].is_floating_point and y.isnan().item():
        return "nan"
    return format(bits(y), f"0{2 * SIZE[to]}x")


def casts():
    lines = [f"# torch {torch.__version__.split('+')[0]}: dtype, bits, and the bits as " + " ".join(NAMES)]
    for n in NAMES:
        seen = set()
        for v in values(n):
            x = torch.tensor([v], dtype=torch.float64 if DTYPE[n].is_floating_point else torch.int64).to(DTYPE[n])
            if bits(x) in seen:
                continue
            seen.add(bits(x))
            lines.append(" ".join([n, format(bits(x), f"0{2 * SIZE[n]}x")] + [cast(x, n, to) for to in NAMES]))
    (HERE / "casts.txt").write_text("\n".join(lines) + "\n")


promotion()
casts()
