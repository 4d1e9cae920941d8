# The peers of `./dev bench models`: PyTorch eager, TorchScript, torch.compile and ONNX Runtime, each row by each of them in a
# process of its own. Standard input takes `open SIDE FIFO FIFO`; a process is forked that takes its orders from the first and
# answers into the second: `row NAME a=1 b=2`, answered `ok NAME=NUMBER …` or `no REASON`, and `run N`, answered in seconds.
import ctypes
import gc
import logging
import os
import sys
import tempfile
import time
import warnings

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of processes beside the one that is measured
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import torch  # noqa: E402

THREADS = int(os.environ["KILN_NUM_THREADS"])
CLOCK = time.process_time if os.environ.get("KILN_BENCH_CLOCK") == "cpu" else time.perf_counter
KEPT = os.path.join(tempfile.gettempdir(), "kiln-bench-%d" % os.getuid())  # exported files, between runs


# ---- memory ----------------------------------------------------------------------------------------------------------


def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))


def forget_peak():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed would hide what is taken next
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return status("VmRSS")


# ---- sides: each makes from a case what is called and with what -----------------------------------------------------


def modules_of(case):
    return [m for m in (case.net, case.whole) if isinstance(m, torch.nn.Module)]


def eager(case):
    if not case.train:
        return case.net, case.inputs
    loss_of, optimiser = case.train

    def step(*inputs):
        optimiser.zero_grad()
        loss = loss_of(*inputs)
        loss.backward()
        optimiser.step()
        return loss

    return step, case.inputs


def torchscript(case):
    if case.train:
        raise ValueError("TorchScript does not capture training steps")
    made = torch.jit.script(case.net) if case.script else torch.jit.trace(case.net, case.inputs)
    return torch.jit.optimize_for_inference(torch.jit.freeze(made.eval())), case.inputs


def compiled(case):
    import torch._inductor.config

    torch._inductor.config.freezing = not case.train  # weights as constants, packed: the strongest it has for inference
    if not case.train:
        return torch.compile(case.whole or case.net, fullgraph=case.whole is not None), case.inputs
    loss_of, optimiser = case.train
    loss_of = torch.compile(loss_of)

    def step(*inputs):
        optimiser.zero_grad()
        loss = loss_of(*inputs)
        loss.backward()
        optimiser.step()  # fused in C++
        return loss

    return step, case.inputs


def export(case, path):
    """The ONNX file of a case; leaves how big its weights are and the names of its inputs beside it."""
    import onnx

    if case.onnx:
        text, names = case.onnx
        onnx.save(onnx.parser.parse_model(text), path)
        inputs = dict(zip(names, case.inputs))
    else:
        net, *given = case.functional or (case.whole or case.net, *case.inputs)
        said, sys.stdout = sys.stdout, sys.stderr
        try:
            torch.onnx.export(net.eval(), tuple(given), path, dynamo=True, external_data=False, verbose=False)
        finally:
            sys.stdout = said
        names = [value.name for value in onnx.load(path).graph.input]
        inputs = dict(zip(names, given))
    torch.save({"feed": {name: value.numpy() for name, value in inputs.items()}}, path + ".inputs")


def in_other_process(work):
    """What a process of its own does, so that this one's memory does not know of it. None, or why it failed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as problem:
            os.write(write, (reason(problem) or type(problem).__name__).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    code = os.waitpid(child, 0)[1]
    return said or (code and f"exporting ended with code {code}") or None


def onnxruntime(make, name):
    import onnxruntime as ort

    os.makedirs(KEPT, exist_ok=True)
    path = os.path.join(KEPT, f"{name} {torch.__version__}.onnx".replace(" ", "_"))
    if not os.path.exists(path + ".inputs"):
        why = in_other_process(lambda: export(make(), path))
        if why:
            raise ValueError("export: " + why)
    feed = torch.load(path + ".inputs", weights_only=False)["feed"]
    before = forget_peak()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run, (None, feed), before + os.path.getsize(path)


# ---- a row, by one side ----------------------------------------------------------------------------------------------


def reason(problem):
    text = str(problem).split("## Exception summary")[-1]  # of the exporter; before it stands advice
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return (lines[0] if lines else type(problem).__name__)[:200]


class Row:
    def __init__(self, side, order):
        import nets

        name, *sizes = order.split(" ")
        make = lambda: self.made(nets, name, sizes)
        start = time.perf_counter()
        if side == "onnxruntime":
            if name.startswith("train_"):
                raise ValueError("ONNX Runtime does not train")
            call, inputs, before = onnxruntime(make, order)
            self.mode = torch.no_grad
        else:
            case = make()
            (torch.randn(64, 64) @ torch.randn(64, 64)).sum()  # threads and libraries are there before memory is watched
            before = forget_peak()
            self.mode = torch.enable_grad if case.train else torch.inference_mode
            with torch.enable_grad() if case.train else torch.no_grad():
                call, inputs = {"eager": eager, "torchscript": torchscript, "compile": compiled}[side](case)
        self.call, self.inputs = call, inputs
        self.run(3)  # TorchScript's second run still optimises
        self.facts = {"grew": max(0, status("VmHWM") - before), "built": time.perf_counter() - start}
        forget_peak()  # many rows may wait at once

    @staticmethod
    def made(nets, name, sizes):
        if name not in nets.makers:
            raise ValueError("nobody has written it in Python")
        torch.manual_seed(1)
        case = nets.makers[name](**{key: int(value) for key, value in (size.split("=") for size in sizes)})
        for module in modules_of(case):
            module.eval()
        return case

    def run(self, n):
        call, inputs = self.call, self.inputs
        with self.mode():
            start = CLOCK()
            for _ in range(n):
                call(*inputs)
            return CLOCK() - start


def serve(side, orders, answers):
    torch.set_num_threads(THREADS)
    row = None
    for line in orders:
        order, _, rest = line.rstrip("\n").partition(" ")
        try:
            if order == "row":
                row = Row(side, rest)
                answer = "ok " + " ".join(f"{key}={value:.9g}" for key, value in row.facts.items())
            else:
                answer = f"{row.run(int(rest)):.9f}"
        except Exception as problem:
            answer = "no " + reason(problem)
        answers.write(answer + "\n")
        answers.flush()


def main():
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import signal

    import torch._dynamo  # noqa: F401  slow to import: once, before the forks
    import torch._inductor.compile_fx  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    gc.collect()
    gc.freeze()  # what is imported stays shared by the forks: their collectors do not touch it
    for line in iter(lambda: os.read(0, 4096).decode(), ""):
        _, side, to, back = line.split()
        if os.fork() == 0:
            with open(to) as orders, open(back, "w") as answers:
                os.dup2(2, 1)
                serve(side, orders, answers)
            os._exit(0)
        print("ok", flush=True)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


if __name__ == "__main__":
    main()
