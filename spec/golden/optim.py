# Records what torch.optim does: every optimiser over 20 steps of a small problem, in float64 and float32, and every learning
# rate schedule over 50. python3 spec/golden/optim.py > spec/golden/optim.txt; spec/lua/golden_optim.lua compares.
import warnings

import torch

warnings.filterwarnings("ignore")
STEPS, EPOCHS = 20, 50

# Optimiser, options, options of a second group (the last two of three parameters) or None.
OPTIMIZERS = [
    ("SGD", dict(lr=0.01), None),
    ("SGD", dict(lr=0.01, momentum=0.9, weight_decay=0.1), None),
    ("SGD", dict(lr=0.01, momentum=0.8, dampening=0.3), None),
    ("SGD", dict(lr=0.01, momentum=0.9, nesterov=True), dict(lr=0.02, momentum=0.5)),
    ("SGD", dict(lr=0.0001, maximize=True), None),
    ("Adam", dict(lr=0.1), None),
    ("Adam", dict(lr=0.1, betas=[0.8, 0.9], eps=1e-3, weight_decay=0.1), None),
    ("Adam", dict(lr=0.1, amsgrad=True), dict(lr=0.2, betas=[0.5, 0.9])),
    ("Adam", dict(lr=0.01, amsgrad=True, maximize=True), None),
    ("AdamW", dict(lr=0.1), None),
    ("AdamW", dict(lr=0.1, weight_decay=0.3, amsgrad=True), dict(weight_decay=0.0)),
    ("Adamax", dict(lr=0.1), None),
    ("Adamax", dict(lr=0.1, betas=[0.7, 0.8], weight_decay=0.1), None),
    ("NAdam", dict(lr=0.1), None),
    ("NAdam", dict(lr=0.1, weight_decay=0.1, momentum_decay=0.1), None),
    ("NAdam", dict(lr=0.1, weight_decay=0.1, decoupled_weight_decay=True), None),
    ("RAdam", dict(lr=0.1), None),
    ("RAdam", dict(lr=0.1, betas=[0.8, 0.9], weight_decay=0.1), None),
    ("RAdam", dict(lr=0.1, weight_decay=0.1, decoupled_weight_decay=True), None),
    ("Adagrad", dict(lr=0.3), None),
    ("Adagrad", dict(lr=0.3, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.5), None),
    ("Adadelta", dict(), None),
    ("Adadelta", dict(lr=2.0, rho=0.7, eps=1e-3, weight_decay=0.1), None),
    ("RMSprop", dict(lr=0.05), None),
    ("RMSprop", dict(lr=0.05, alpha=0.8, momentum=0.5, weight_decay=0.1), None),
    ("RMSprop", dict(lr=0.05, centered=True), dict(momentum=0.3)),
    ("Rprop", dict(), None),
    ("Rprop", dict(lr=0.1, etas=[0.3, 1.5], step_sizes=[0.01, 0.2]), None),
    ("ASGD", dict(lr=0.01), None),
    ("ASGD", dict(lr=0.02, lambd=0.1, alpha=0.5, t0=5.0, weight_decay=0.1), None),
    ("LBFGS", dict(lr=0.1, max_iter=2), None),
    ("LBFGS", dict(lr=0.3, max_iter=2, history_size=3), None),
    ("LBFGS", dict(max_iter=2, line_search_fn="strong_wolfe"), None),
    ("LBFGS", dict(lr=3.0, max_iter=1, max_eval=8, history_size=2, line_search_fn="strong_wolfe"), None),
]

# The functions that schedules are given, by name; golden_optim.lua has the same.
FUNCTIONS = {
    "slower": lambda e: 0.95**e,
    "less": lambda e: 1 - 1 / (e + 2),
    "wave": lambda e: 1 / (1 + e % 5),
}

# Optimiser, schedule, arguments; schedules of others have parts.
SCHEDULES = [
    ("SGD", "LambdaLR", dict(lr_lambda="slower")),
    ("SGD", "LambdaLR", dict(lr_lambda=["slower", "wave"])),
    ("SGD", "MultiplicativeLR", dict(lr_lambda="less")),
    ("SGD", "StepLR", dict(step_size=7)),
    ("SGD", "StepLR", dict(step_size=3, gamma=0.8)),
    ("SGD", "MultiStepLR", dict(milestones=[5, 20, 20, 33], gamma=0.5)),
    ("SGD", "ConstantLR", dict()),
    ("SGD", "ConstantLR", dict(factor=0.25, total_iters=12)),
    ("SGD", "LinearLR", dict()),
    ("SGD", "LinearLR", dict(start_factor=0.1, end_factor=0.7, total_iters=30)),
    ("SGD", "ExponentialLR", dict(gamma=0.93)),
    ("SGD", "PolynomialLR", dict()),
    ("SGD", "PolynomialLR", dict(total_iters=40, power=2.5)),
    ("SGD", "CosineAnnealingLR", dict(T_max=20, eta_min=0.01)),
    ("SGD", "CosineAnnealingWarmRestarts", dict(T_0=6)),
    ("SGD", "CosineAnnealingWarmRestarts", dict(T_0=4, T_mult=2, eta_min=0.005)),
    ("SGD", "OneCycleLR", dict(max_lr=0.5, total_steps=51)),
    ("Adam", "OneCycleLR", dict(max_lr=[0.5, 0.1], epochs=6, steps_per_epoch=9, pct_start=0.4, anneal_strategy="linear",
                                three_phase=True, div_factor=10.0, final_div_factor=100.0)),
    ("Adagrad", "OneCycleLR", dict(max_lr=0.5, total_steps=51, cycle_momentum=False)),
    ("SGD", "CyclicLR", dict(base_lr=0.01, max_lr=0.2, step_size_up=5, step_size_down=8)),
    ("Adam", "CyclicLR", dict(base_lr=[0.01, 0.02], max_lr=[0.2, 0.3], step_size_up=6, mode="triangular2", base_momentum=0.7)),
    ("SGD", "CyclicLR", dict(base_lr=0.01, max_lr=0.2, step_size_up=6, mode="exp_range", gamma=0.9, max_momentum=0.95)),
    ("Adagrad", "CyclicLR", dict(base_lr=0.01, max_lr=0.2, step_size_up=6, scale_fn="less", scale_mode="iterations",
                                 cycle_momentum=False)),
    ("SGD", "ReduceLROnPlateau", dict(patience=2)),
    ("SGD", "ReduceLROnPlateau", dict(mode="max", factor=0.5, patience=1, threshold=0.05, threshold_mode="abs", cooldown=2,
                                      min_lr=[0.02, 0.001])),
    ("SGD", "SequentialLR", dict(parts=[["LinearLR", dict(total_iters=10)], ["CosineAnnealingLR", dict(T_max=40)]],
                                 milestones=[10])),
    ("SGD", "SequentialLR", dict(parts=[["ConstantLR", dict(factor=0.5)], ["ExponentialLR", dict(gamma=0.9)],
                                        ["MultiplicativeLR", dict(lr_lambda="less")], ["StepLR", dict(step_size=4)]],
                                 milestones=[8, 20, 30])),
    ("SGD", "ChainedScheduler", dict(parts=[["LinearLR", dict(total_iters=10)], ["ExponentialLR", dict(gamma=0.95)],
                                            ["StepLR", dict(step_size=15, gamma=0.3)]])),
]


def lua(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {lua(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "{ " + ", ".join(lua(v) for v in value) + " }"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def numbers(values):
    return " ".join(repr(float(v)) if isinstance(v, float) else repr(v) for v in values)


def problem(dtype):
    a = torch.tensor([1.0, -2.0, 0.5], dtype=dtype, requires_grad=True)
    b = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], dtype=dtype, requires_grad=True)
    c = torch.tensor(0.3, dtype=dtype, requires_grad=True)
    y = torch.tensor([1.0, -0.5], dtype=dtype)
    return [a, b, c], lambda: ((b @ a + c - y) ** 2).sum() + (a**4).sum() * 0.1 + torch.sin(c)


def python_options(options):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def optimizer(name, options, second, dtype):
    torch.set_default_dtype(dtype)  # PyTorch keeps counters as tensors of it
    params, loss_of = problem(dtype)
    groups = params
    if second is not None:
        groups = [dict(params=params[:1]), dict(params=params[1:], **python_options(second))]
    opt = getattr(torch.optim, name)(groups, **python_options(options))
    losses = []

    def closure():
        opt.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    for _ in range(STEPS):
        losses.append(opt.step(closure).item())
    print("optimizer", name, str(dtype)[6:], lua(options), lua(second) if second is not None else "")
    digits = (lambda v: v) if dtype == torch.float64 else (lambda v: float(f"{v:.9g}"))
    print("losses", numbers(map(digits, losses)))
    print("end", numbers(map(digits, torch.cat([p.detach().reshape(-1) for p in params]).tolist())))
    torch.set_default_dtype(torch.float32)


def schedule(opt, name, arguments):
    given = {}
    for key, value in arguments.items():
        if key in ("lr_lambda", "scale_fn"):
            value = [FUNCTIONS[f] for f in value] if isinstance(value, list) else FUNCTIONS[value]
        if key == "parts":
            key, value = "schedulers", [schedule(opt, *part) for part in value]
        given[key] = value
    if name == "ChainedScheduler":
        return torch.optim.lr_scheduler.ChainedScheduler(given["schedulers"], opt)
    return getattr(torch.optim.lr_scheduler, name)(opt, **given)


def scheduler(optimizer_name, name, arguments):
    groups = [dict(params=[torch.zeros(1, requires_grad=True)]), dict(params=[torch.zeros(1, requires_grad=True)], lr=0.02)]
    opt = getattr(torch.optim, optimizer_name)(groups, lr=0.1)
    s = schedule(opt, name, arguments)
    rates, momenta = [], []

    def note():
        first, second = opt.param_groups
        rates.append((first["lr"], second["lr"]))
        momenta.append(first["betas"][0] if "betas" in first else first.get("momentum"))

    note()
    for k in range(1, EPOCHS + 1):
        opt.step()
        if name == "ReduceLROnPlateau":
            s.step((k * 7919 % 31) / 31 + 1 / (k + 1))
        else:
            s.step()
        note()
    print("scheduler", optimizer_name, name, lua(arguments))
    print("first", numbers(r[0] for r in rates))
    if any(abs(r[1] - r[0] / 5) > 1e-12 for r in rates):
        print("second", numbers(r[1] for r in rates))
    if len(set(momenta)) > 1:
        print("momentum", numbers(momenta))


print(f"# torch {torch.__version__.split('+')[0]}: {STEPS} steps of each optimiser, {EPOCHS} of each schedule. By optim.py, which says what they are.")
for name, options, second in OPTIMIZERS:
    for dtype in (torch.float64, torch.float32):
        optimizer(name, options, second, dtype)
for row in SCHEDULES:
    scheduler(*row)
