"""What PyTorch's autocast gives: small networks in bfloat16 and float16 on the CPU, their gradients, and the dtypes of what each step
gives. Writes autocast.txt, which spec/lua/autocast.lua reads: a line each, `case name dtype: numbers`.

    python3 autocast.py > autocast.txt
"""
import torch
import torch.nn.functional as F

torch.set_num_threads(1)


def wave(n, *sizes, scale=1.0):
    """Numbers that Lua makes, too."""
    count = 1
    for s in sizes:
        count *= s
    return (torch.sin(torch.arange(1, count + 1, dtype=torch.float64) * 0.37 + n) * scale).float().reshape(sizes)


def show(case, name, t):
    numbers = " ".join(f"{x:.9g}" for x in t.detach().double().flatten().tolist())
    print(f"{case} {name} {str(t.dtype)[6:]}: {numbers}")


def parameters(*list_of):
    return [t.requires_grad_() for t in list_of]


def gradients(case, loss, given):
    loss.backward()
    for i, p in enumerate(given):
        show(case, f"grad{i + 1}", p.grad)


for half in (torch.bfloat16, torch.float16):
    tag = str(half)[6:]
    # two layers and a loss
    w1, b1, w2 = given = parameters(wave(1, 6, 5, scale=0.5), wave(2, 6, scale=0.1), wave(3, 3, 6, scale=0.5))
    with torch.autocast("cpu", dtype=half):
        h = F.linear(wave(4, 4, 5), w1, b1)
        y = F.linear(h.relu(), w2)
        z = y * 2 + wave(5, 4, 3)
    show(f"mlp-{tag}", "h", h)
    show(f"mlp-{tag}", "y", y)
    show(f"mlp-{tag}", "z", z)
    loss = F.cross_entropy(y.float(), torch.tensor([0, 1, 2, 0]))
    show(f"mlp-{tag}", "loss", loss)
    gradients(f"mlp-{tag}", loss, given)
    # a convolution, batch norm
    w, s, t = given = parameters(wave(1, 3, 2, 3, 3, scale=0.3), wave(2, 3).abs() + 0.5, wave(3, 3))
    with torch.autocast("cpu", dtype=half):
        c = F.conv2d(wave(4, 2, 2, 4, 4), w, padding=1)
        n = F.batch_norm(c, torch.zeros(3), torch.ones(3), s, t, training=True)
    show(f"conv-{tag}", "c", c)
    show(f"conv-{tag}", "n", n)
    gradients(f"conv-{tag}", (n.float() * wave(6, 2, 3, 4, 4)).sum(), given)
    # products of every rank, and what stays
    with torch.autocast("cpu", dtype=half):
        a, b = wave(1, 2, 3, 4), wave(2, 2, 4, 3)
        show(f"products-{tag}", "bmm", torch.bmm(a, b))
        show(f"products-{tag}", "addmm", torch.addmm(wave(3, 3, 3), a[0], b[0]))
        show(f"products-{tag}", "double", torch.matmul(a.double(), b.double()))
        with torch.autocast("cpu", enabled=False):
            show(f"products-{tag}", "off", torch.matmul(a, b))
        show(f"products-{tag}", "attention", F.scaled_dot_product_attention(a, wave(5, 2, 3, 4), wave(6, 2, 3, 4)))
