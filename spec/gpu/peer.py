# PyTorch's side of `spec/gpu/bench.lua`: eager, compile or max-autotune, by the first argument. Orders on standard input: `row` with a
# text that makes `f` and `inputs` (or `loss_of`, `optimiser` and `inputs`) on the device, with \1 for line ends, answered `ok` or `no REASON`;
# `run N`, answered in seconds, the device's work included.
import sys
import time
import warnings

warnings.filterwarnings("ignore")
MODE = sys.argv[1]
START = time.perf_counter()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

torch.set_default_device("cuda")


def fast(f):
    if MODE == "eager":
        return f
    return torch.compile(f, mode="max-autotune" if MODE == "max-autotune" else None)


def made(text):
    names = {"torch": torch, "nn": nn, "F": F}
    exec(text, names)
    inputs = names["inputs"]
    if "loss_of" not in names:
        f = fast(names["f"])
        return lambda: f(*inputs), torch.no_grad
    loss_of, optimiser = fast(names["loss_of"]), names["optimiser"]

    def step():
        optimiser.zero_grad()
        loss = loss_of(*inputs)
        loss.backward()
        optimiser.step()
        return loss

    return step, torch.enable_grad


def run(call, mode, n):
    with mode():
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(n):
            call()
        torch.cuda.synchronize()
        return time.perf_counter() - start


call = mode = None
for line in sys.stdin:
    order, _, rest = line.rstrip("\n").partition(" ")
    try:
        if order == "row":
            call = mode = None
            torch._dynamo.reset()
            torch.cuda.empty_cache()
            call, mode = made(rest.replace("\1", "\n"))
            run(call, mode, 3)
            answer = "ok"
        elif order == "facts":
            answer = f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, started in {time.perf_counter() - START:.2f} s"
        else:
            answer = f"{run(call, mode, int(rest)):.9f}"
    except Exception as problem:
        lines = [text.strip() for text in str(problem).split("\n") if text.strip()]
        answer = "no " + (lines[0] if lines else type(problem).__name__)[:200]
    print(answer, flush=True)
