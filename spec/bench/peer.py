# PyTorch's side of the bench: the same orders as worker.lua takes, answered the same way.
import os
import sys
import textwrap
import time

import torch

torch.set_num_threads(int(os.environ["KILN_NUM_THREADS"]))
clock = time.process_time if os.environ.get("KILN_BENCH_CLOCK") == "cpu" else time.perf_counter

FRAME = """
def make():
{setup}
    def run(n):
        start = clock()
        for _ in range(n):
{statement}
        return clock() - start
    return run
"""


def compiled(setup, statement, no_grad):
    names = {"torch": torch, "clock": clock}
    source = FRAME.format(setup=textwrap.indent(setup or "pass", " " * 4), statement=textwrap.indent(statement, " " * 12))
    exec(source, names)
    run = names["make"]()
    return torch.no_grad()(run) if no_grad else run


run = None
for line in sys.stdin:
    order, _, rest = line.rstrip("\n").partition(" ")
    try:
        if order == "row":
            run = None
            setup, statement, no_grad = rest.replace("\1", "\n").split("\2")
            run = compiled(setup, statement, no_grad == "true")
            answer = "ok"
        else:
            answer = f"{run(int(rest)):.9f}"
    except Exception as problem:
        answer = "no " + str(problem).split("\n")[0]
    print(answer, flush=True)
