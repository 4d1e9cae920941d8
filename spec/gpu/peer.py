# PyTorch's side of `spec/gpu/bench.lua`: eager, compile or max-autotune, by the first argument. Orders on standard input: `facts`; `row
# SECONDS TEXT` with a text that makes `f` and `inputs` (or `loss_of`, `optimiser` and `inputs`) on the device, with \1 for line ends,
# answered `ok` or `no REASON`, within those seconds; `run N`, answered in seconds, the device's work included; `memory`, the most bytes
# since the row began.
import os
import signal
import sys
import time
import warnings

warnings.filterwarnings("ignore")
MODE = sys.argv[1]
START = time.perf_counter()

try:
    import torch
    import torch.nn.functional as F
    from torch import nn

    import peer_models

    torch.zeros(1, device="cuda")
    torch.set_default_device("cuda")
except Exception as problem:
    why = str(problem).strip().split("\n")[0] or type(problem).__name__
    for line in sys.stdin:
        print("no", why, flush=True)
    sys.exit()


def fast(f):
    if MODE == "eager":
        return f
    return torch.compile(f, mode="max-autotune" if MODE == "max-autotune" else None)


def made(text):
    names = {"torch": torch, "nn": nn, "F": F, "models": peer_models, "autocast": lambda: torch.autocast("cuda", dtype=torch.bfloat16)}
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


def too_long(*_):
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))  # where even that is not heard; a new process is started then
    signal.alarm(5)
    raise TimeoutError("its time for getting ready was over")


def row(limit, text):
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(limit)
    try:
        call, mode = made(text.replace("\1", "\n"))
        run(call, mode, 3)
        return call, mode
    finally:
        signal.alarm(0)


call = mode = None
for line in sys.stdin:
    order, _, rest = line.rstrip("\n").partition(" ")
    try:
        if order == "row":
            call = mode = None
            limit, _, text = rest.partition(" ")
            call, mode = row(int(limit), text)
            answer = "ok"
        elif order == "facts":
            answer = f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, started in {time.perf_counter() - START:.2f} s"
        elif order == "memory":
            answer = str(torch.cuda.max_memory_allocated())
        else:
            answer = f"{run(call, mode, int(rest)):.9f}"
    except Exception as problem:
        lines = [text.strip() for text in str(problem).split("\n") if text.strip()]
        answer = "no " + (lines[0] if lines else type(problem).__name__)[:200]
    print(answer, flush=True)
