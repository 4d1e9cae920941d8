# The networks of model_rows.lua in PyTorch, by the names that the rows give. Not how they are compiled or timed (models.py).
# A maker takes the sizes of its row and returns a Case.
import math

import torch
import torch.nn.functional as F
from torch import nn


class Case:
    """A module (or function) and its inputs. Where a peer needs it written another way: `script` for TorchScript (True: script
    this one), `whole` for torch.compile and the exporter (control flow as operators), `functional` for the exporter (nothing
    is overwritten, with inputs of its own), `onnx` (ONNX as text). `train`: a step, called as it is."""

    def __init__(self, net, *inputs, **other):
        self.net, self.inputs = net, inputs
        self.script, self.whole, self.functional, self.onnx = None, None, None, None
        self.train = False
        self.__dict__.update(other)


makers = {}


def row(make):
    makers[make.__name__] = make
    return make


def image(batch, channels, size):
    return torch.randn(batch, channels, size, size)


# ---- images ----------------------------------------------------------------------------------------------------------


@row
def mlp(batch, n, hidden, out):
    return Case(nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, out)), torch.randn(batch, n))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


@row
def lenet(batch):
    return Case(LeNet(), image(batch, 1, 28))


def of_torchvision(name, batch, size):
    from torchvision import models

    return Case(getattr(models, name)(), image(batch, 3, size))


@row
def resnet18(batch, size):
    return of_torchvision("resnet18", batch, size)


@row
def resnet50(batch, size):
    return of_torchvision("resnet50", batch, size)


@row
def mobilenet_v2(batch, size):
    return of_torchvision("mobilenet_v2", batch, size)


class Mnist(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.fc1, self.drop, self.fc2 = nn.Linear(32 * 7 * 7, 64), nn.Dropout(0.3), nn.Linear(64, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        return self.fc2(self.drop(F.relu(self.fc1(x.flatten(1)))))


@row
def mnist(batch):
    return Case(Mnist(), image(batch, 1, 28))


@row
def cifar(batch):
    def block(a, b):
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    net = nn.Sequential(*block(3, 32), nn.MaxPool2d(2), *block(32, 64), nn.MaxPool2d(2), *block(64, 128), nn.MaxPool2d(2),
                        *block(128, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, 10))
    return Case(net, image(batch, 3, 32))


# ---- branches and loops ----------------------------------------------------------------------------------------------


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.cheap = nn.Sequential(nn.Flatten(), nn.Linear(12 * 4 * 4, 10))
        self.deepen = nn.Sequential(nn.Conv2d(12, 32, 3, padding=1), nn.ReLU())
        self.refine = nn.Conv2d(32, 32, 3, padding=1)
        self.answer = nn.Sequential(nn.Flatten(), nn.Linear(32 * 4 * 4, 10))

    def forward(self, x):
        features = self.stem(x)
        chances = self.cheap(features).softmax(1)
        confidence = float(chances.amax())
        if confidence >= 0.9:
            return int(chances.argmax()), confidence, False
        h = self.deepen(features)
        chances = self.answer(h).softmax(1)
        confidence, steps = float(chances.amax()), 0
        while confidence < 0.9 and steps < 3:
            h = h + torch.relu(self.refine(h))
            chances = self.answer(h).softmax(1)
            confidence = float(chances.amax())
            steps += 1
        return int(chances.argmax()), confidence, True


class WholeDigits(Digits):
    def forward(self, x):
        features = self.stem(x)
        cheap = self.cheap(features).softmax(1)

        def more(features):
            def unsure(h, chances, steps):
                return (chances.max() < 0.9) & (steps < 3)

            def again(h, chances, steps):
                h = h + torch.relu(self.refine(h))
                return h, self.answer(h).softmax(1), steps + 1

            h = self.deepen(features)
            start = (h, self.answer(h).softmax(1), torch.zeros((), dtype=torch.int64))
            return torch._higher_order_ops.while_loop(unsure, again, start)[1]

        def enough(features):
            return self.cheap(features).softmax(1)

        sure = cheap.max() >= 0.9
        chances = torch.cond(sure, enough, more, (features,))
        return chances.argmax(), chances.max(), sure


@row
def digits():
    net = Digits()
    other = WholeDigits()
    other.load_state_dict(net.state_dict())
    return Case(net, image(1, 1, 8), script=True, whole=other)


class Loop(nn.Module):
    def __init__(self, trips: int):
        super().__init__()
        self.trips = trips

    def forward(self, x, w, b):
        n = 0
        while n < self.trips and bool(x.sum() < 100.0):
            x = torch.tanh(x @ w + b)
            n += 1
        return x


class WholeLoop(Loop):
    def forward(self, x, w, b):
        def more(n, x):
            return (n < self.trips) & (x.sum() < 100.0)

        def again(n, x):
            return n + 1, torch.tanh(x @ w + b)

        return torch._higher_order_ops.while_loop(more, again, (torch.zeros((), dtype=torch.int64), x))[1]


LOOP = """
<ir_version: 8, opset_import: ["" : 17]>
loop (float[N,N] x, float[N,N] w, float[N] b) => (float[N,N] y)
<int64 trips = {TRIPS}, float limit = {100.0}, int64[1] none = {0}>
{
  sum0 = ReduceSum <keepdims = 0> (x)
  more0 = Less (sum0, limit)
  y = Loop (trips, more0, x) <body = body (int64 n, bool more, float[N,N] h) => (bool more2, float[N,N] h3) {
    h1 = MatMul (h, w)
    h2 = Add (h1, b)
    h3 = Tanh (h2)
    sum = ReduceSum <keepdims = 0> (h3)
    more2 = Less (sum, limit)
  }>
}
"""


@row
def loop(trips, n):
    other = WholeLoop(trips)
    text = LOOP.replace("TRIPS", str(trips)).replace(", int64[1] none = {0}", "")
    return Case(Loop(trips), torch.randn(n, n), torch.randn(n, n) * 0.1, torch.randn(n) * 0.1, script=True, whole=other,
                onnx=(text, ("x", "w", "b")))


# ---- sequences -------------------------------------------------------------------------------------------------------


class Outputs(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)[0]


@row
def lstm(layers, width, steps, batch):
    return Case(Outputs(nn.LSTM(width, width, layers, batch_first=True)), torch.randn(batch, steps, width))


class CharRNN(nn.Module):
    def __init__(self, vocab, width, hidden):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(vocab, width), nn.GRU(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, vocab)

    def forward(self, ids):
        return self.head(self.rnn(self.embedding(ids))[0])


@row
def names(batch, steps):
    return Case(CharRNN(27, 32, 128), torch.randint(0, 27, (batch, steps)))


class Block(nn.Module):
    """GPT-2's; with a past its tokens may look at all of it."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, keys=None, values=None):
        n, t, width = x.shape
        q, k, v = (p.view(n, t, self.heads, width // self.heads).transpose(1, 2) for p in self.c_attn(self.ln_1(x)).chunk(3, 2))
        if keys is not None:
            k, v = torch.cat((keys, k), 2), torch.cat((values, v), 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=keys is None)
        x = x + self.c_proj(y.transpose(1, 2).reshape(n, t, width))
        return x + self.proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh")), k, v


@row
def gpt2_decode(width, heads, past):
    cache = [torch.randn(1, heads, past, width // heads) for _ in range(2)]
    return Case(Block(width, heads), torch.randn(1, 1, width), *cache)


@row
def gpt2_prefill(width, heads, tokens):
    return Case(Block(width, heads), torch.randn(1, tokens, width))


class GPT(nn.Module):
    def __init__(self, vocab, places, width, layers, heads):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(places, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.h:
            x = block(x)[0]
        return F.linear(self.ln_f(x), self.wte.weight)


@row
def shakespeare(batch, tokens):
    return Case(GPT(65, 64, 128, 4, 4), torch.randint(0, 65, (batch, tokens)))


class Layer(nn.Module):
    """BERT's."""

    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.dense, self.norm1 = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down, self.norm2 = nn.Linear(width, inner), nn.Linear(inner, width), nn.LayerNorm(width, eps=1e-12)

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = (f(x).view(n, t, self.heads, width // self.heads).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, width)
        x = self.norm1(self.dense(y) + x)
        return self.norm2(self.down(F.gelu(self.up(x))) + x)


class Bert(nn.Module):
    def __init__(self, vocab, places, width, layers, heads, inner):
        super().__init__()
        self.words, self.places, self.types = nn.Embedding(vocab, width), nn.Embedding(places, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))

    def forward(self, ids):
        x = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]] + self.types.weight[0])
        for layer in self.layers:
            x = layer(x)
        return x


@row
def minilm(layers, width, heads, inner, tokens, vocab):
    return Case(Bert(vocab, 512, width, layers, heads, inner), torch.randint(0, vocab, (1, tokens)))


# ---- the Llama of samples/stories.lua, one token at a place -----------------------------------------------------------


class LlamaLayer(nn.Module):
    def __init__(self, dim, inner, heads, shared):
        super().__init__()
        self.heads, self.shared, self.width = heads, shared, dim // heads
        self.norm1, self.norm2 = nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)
        kv = shared * self.width
        self.q, self.k, self.v = nn.Linear(dim, dim, False), nn.Linear(dim, kv, False), nn.Linear(dim, kv, False)
        self.o = nn.Linear(dim, dim, False)
        self.gate, self.up, self.down = nn.Linear(dim, inner, False), nn.Linear(dim, inner, False), nn.Linear(inner, dim, False)

    def turn(self, x, cos, sin):
        a, b = x.view(1, -1, 1, self.width // 2, 2).unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(3)

    def mixed(self, q, k, v):
        scores = q.view(1, self.shared, self.heads // self.shared, self.width) @ k.transpose(2, 3) / math.sqrt(self.width)
        return (scores.softmax(-1) @ v).reshape(1, 1, -1)

    def after(self, x, y):
        x = x + self.o(y)
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))

    def parts(self, x, cos, sin):
        h = self.norm1(x)
        return self.turn(self.q(h), cos, sin), self.turn(self.k(h), cos, sin), self.v(h).view(1, self.shared, 1, self.width)


class Llama(nn.Module):
    def __init__(self, past, places, dim=64, inner=172, layers=5, heads=8, shared=4, vocab=512):
        super().__init__()
        self.past = past
        self.embed, self.norm = nn.Embedding(vocab, dim), nn.RMSNorm(dim, eps=1e-5)
        self.layers = nn.ModuleList(LlamaLayer(dim, inner, heads, shared) for _ in range(layers))
        width = dim // heads
        angles = torch.arange(places)[:, None] / 10000.0 ** (torch.arange(width // 2) * 2.0 / width)
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())

    def head(self, x):
        return F.linear(self.norm(x), self.embed.weight)

    def forward(self, token, keys, values):  # each [layers, 1, heads, places, width], written at the place
        x, p = self.embed(token), self.past
        cos, sin = self.cos[p], self.sin[p]
        for i, layer in enumerate(self.layers):
            q, k, v = layer.parts(x, cos, sin)
            keys[i, :, :, p : p + 1] = k
            values[i, :, :, p : p + 1] = v
            x = layer.after(x, layer.mixed(q, keys[i, :, :, : p + 1], values[i, :, :, : p + 1]))
        return self.head(x)


class FunctionalLlama(Llama):
    def forward(self, token, keys, values):  # each [layers, 1, heads, past, width]; gives what was added too
        x, cos, sin = self.embed(token), self.cos[self.past], self.sin[self.past]
        more_keys, more_values = [], []
        for i, layer in enumerate(self.layers):
            q, k, v = layer.parts(x, cos, sin)
            k, v = torch.cat((keys[i], k), 2), torch.cat((values[i], v), 2)
            more_keys.append(k)
            more_values.append(v)
            x = layer.after(x, layer.mixed(q, k, v))
        return self.head(x), torch.stack(more_keys), torch.stack(more_values)


@row
def stories(past, places):
    cache = [torch.randn(5, 1, 4, places, 8) for _ in range(2)]
    token = torch.randint(0, 512, (1, 1))
    before = [c[:, :, :, :past].clone() for c in cache]
    return Case(Llama(past, places), token, *cache, functional=(FunctionalLlama(past, places), token, *before))


# ---- training steps --------------------------------------------------------------------------------------------------


def training(net, optimiser, loss, *inputs):
    """`train` is (loss of the inputs, the optimiser): what a step is made of."""
    return Case(None, *inputs, train=(lambda *given: loss(net, *given), optimiser(net.parameters())), parts=[net])


def classes(net, x, t):
    return F.cross_entropy(net(x), t)


@row
def train_mlp(batch, n, hidden):
    net = nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    return training(net, lambda p: torch.optim.SGD(p, lr=1e-3), classes, torch.randn(batch, n), torch.randint(0, 10, (batch,)))


@row
def train_cnn(batch):
    return training(Mnist(), lambda p: torch.optim.Adam(p, lr=1e-3, fused=True), classes, image(batch, 1, 28),
                    torch.randint(0, 10, (batch,)))


@row
def train_gpt(batch, tokens):
    def loss(net, ids):
        return F.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    return training(GPT(65, 64, 128, 4, 4), lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1, fused=True), loss,
                    torch.randint(0, 65, (batch, tokens + 1)))
