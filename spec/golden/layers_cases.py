"""What layers.py records: a call of `case` for each layer with some of its options. Positional arguments and options are
written as PyTorch's; in Lua options come in a table."""
import torch
from layers import I, L, T

# Classes of torch.nn that kiln does not have, or that are not recorded here.
LEFT_OUT = {
    "Module": "no layer", "Container": "no layer", "Sequential": "no layer", "ModuleList": "no layer", "ModuleDict": "no layer",
    "ParameterList": "no layer", "ParameterDict": "no layer",
    "NLLLoss2d": "another name of NLLLoss", "CrossMapLRN2d": "another form of LocalResponseNorm",
    "SyncBatchNorm": "for several processes", "LinearCrossEntropyLoss": "two layers in one, new in 2.15",
    "DataParallel": "for several devices", "RNNBase": "no layer", "RNNCellBase": "no layer",
}
LEFT_OUT.update({"Lazy" + name: "sizes are told when a layer is made" for name in (
    "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d Conv1d Conv2d Conv3d ConvTranspose1d "
    "ConvTranspose2d ConvTranspose3d Linear").split()})
ONE, TWO, THREE = (1, (9,)), (2, (7, 6)), (3, (5, 4, 5))  # dims, sizes


def record(r):
    for part in (linear, activations, dropout, convolutions, pools, paddings, resampling, recurrent, norms, attention,
                 transformers, embeddings, losses, distances):
        part(r.case, r.randn, r.rand)


def linear(case, randn, rand):
    case("Linear", 4, 3, x=[randn(5, 4)])
    case("Linear", 4, 2, bias=False, x=[randn(2, 3, 4)])
    case("Bilinear", 3, 4, 2, x=[randn(5, 3), randn(5, 4)])
    case("Bilinear", 3, 2, 2, bias=False, x=[randn(2, 2, 3), randn(2, 2, 2)])
    case("Identity", x=[randn(2, 3)])
    case("Flatten", x=[randn(2, 3, 2)])
    case("Flatten", I(0), I(1), x=[randn(2, 3, 2)])
    case("Unflatten", I(1), (2, 3), x=[randn(2, 6)])


def activations(case, randn, rand):
    for name in ("ReLU ReLU6 SELU Tanh Sigmoid SiLU Mish Softsign Hardswish Hardsigmoid LogSigmoid Tanhshrink GELU ELU CELU "
                 "LeakyReLU Hardtanh Softplus Softshrink Hardshrink GLU PReLU").split():
        case(name, x=[randn(3, 4) * 3])
    case("RReLU", x=[randn(3, 4)], random=True)
    case("GELU", approximate="tanh", x=[randn(3, 4)])
    for name in ("ELU", "CELU"):
        case(name, 0.7, x=[randn(3, 4)])
    case("LeakyReLU", 0.2, x=[randn(3, 4)])
    case("Hardtanh", -0.5, 0.3, x=[randn(3, 4)])
    case("Softplus", 2.0, 1.0, x=[randn(3, 4) * 2])
    case("Softshrink", 0.3, x=[randn(3, 4)])
    case("Hardshrink", 0.3, x=[randn(3, 4)])
    case("Threshold", 0.1, -2.0, x=[randn(3, 4)])
    case("GLU", I(0), x=[randn(4, 3)])
    case("PReLU", 3, x=[randn(2, 3, 2)])
    for name in ("Softmax", "LogSoftmax", "Softmin"):
        case(name, I(1), x=[randn(2, 4, 2)])
        case(name, -1, x=[randn(2, 4)])
    case("Softmax2d", x=[randn(2, 3, 2, 2)])


def dropout(case, randn, rand):
    for name, sizes in (("Dropout", (3, 4)), ("Dropout1d", (2, 3, 4)), ("Dropout2d", (2, 3, 2, 2)), ("Dropout3d", (1, 3, 2, 2, 2)),
                        ("AlphaDropout", (3, 4)), ("FeatureAlphaDropout", (2, 3, 2, 2))):
        case(name, x=[randn(*sizes)], random=True)
        case(name, 0.3, x=[randn(*sizes)], random=True)


def convolutions(case, randn, rand):
    for dims, sizes in (ONE, TWO, THREE):
        name = "Conv%dd" % dims
        x = randn(2, 4, *sizes)
        case(name, 4, 3, 3, x=[x])
        case(name, 4, 2, 3, stride=2, padding=1, groups=2, bias=False, x=[x])
        case(name, 4, 2, 2, padding="same", dilation=2, x=[x])
        small = randn(1, 2, *sizes)
        case(name, 2, 1, 3, padding=1, padding_mode=("reflect", "replicate", "circular")[dims - 1], x=[small])
        case(name, 2, 1, 3, padding="valid", x=[small[0]])
        name = "ConvTranspose%dd" % dims
        small = randn(1, 4, *[s // 2 + 1 for s in sizes])
        case(name, 4, 2, 3, x=[small])
        case(name, 4, 2, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False, x=[small])
        case(name, 4, 1, 2, dilation=2, x=[small[0]])
    case("Conv2d", 2, 2, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(1, 2), padding_mode="replicate", x=[randn(1, 2, 6, 4)])


def pools(case, randn, rand):
    for dims, sizes in (ONE, TWO, THREE):
        d = "%dd" % dims
        x = randn(1, 2, *sizes)
        case("MaxPool" + d, 2, x=[x])
        case("MaxPool" + d, 3, stride=2, padding=1, ceil_mode=True, x=[x])
        case("MaxPool" + d, 2, stride=1, dilation=2, return_indices=True, x=[x], based=(1,))
        case("AvgPool" + d, 2, x=[x])
        case("AvgPool" + d, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False, x=[x])
        if dims > 1:
            case("AvgPool" + d, 2, divisor_override=3, x=[x])
        case("LPPool" + d, 2, 2, x=[x])
        case("LPPool" + d, 3, 3, stride=2, ceil_mode=True, x=[x.abs() + 0.1])
        y, places = getattr(torch.nn.functional, "max_pool" + d)(randn(1, 2, *(8, 6, 4)[:dims]), 2, return_indices=True)
        case("MaxUnpool" + d, 2, x=[y, I(places)])
        y, places = getattr(torch.nn.functional, "max_pool" + d)(randn(1, 2, *sizes), 3, stride=2, padding=1, return_indices=True)
        case("MaxUnpool" + d, 3, stride=2, padding=1, x=[y, I(places)],
             call="m(x1, x2, {%s})" % ", ".join(map(str, sizes)), py=lambda m, y, at, sizes=sizes: m(y, at, output_size=sizes))
        case("AdaptiveAvgPool" + d, 3, x=[x])
        case("AdaptiveMaxPool" + d, 3, x=[x])
    case("AdaptiveAvgPool2d", (3, 1), x=[randn(1, 2, 6, 4)])
    case("AdaptiveMaxPool2d", (2, 3), x=[randn(2, 6, 4)])
    case("MaxPool2d", (3, 2), stride=(2, 1), padding=(1, 0), x=[randn(2, 6, 4)])
    case("AvgPool2d", (3, 2), stride=(2, 1), padding=(1, 0), x=[randn(2, 6, 4)])
    samples = torch.tensor([[[0.3, 0.7], [0.6, 0.1]]])
    case("FractionalMaxPool2d", 2, output_size=(2, 3), _random_samples=samples, x=[randn(1, 2, 5, 6)])
    case("FractionalMaxPool2d", (3, 2), output_ratio=0.5, return_indices=True, _random_samples=samples, x=[randn(1, 2, 6, 5)], based=(1,))
    case("FractionalMaxPool3d", 2, output_ratio=0.5, _random_samples=torch.tensor([[[0.3, 0.7, 0.2]]]), x=[randn(1, 1, 4, 4, 5)])


def paddings(case, randn, rand):
    for dims, sizes in (ONE, (2, (4, 3)), (3, (3, 2, 3))):
        d = "%dd" % dims
        for kind in ("Reflection", "Replication", "Circular", "Zero"):
            case(kind + "Pad" + d, 1, x=[randn(1, 2, *sizes)])
            case(kind + "Pad" + d, (1, 2, 0, 1, 1, 0)[:2 * dims], x=[randn(1, 2, *sizes)])
        case("ConstantPad" + d, (1, 2, 0, 1, 1, 0)[:2 * dims], 0.7, x=[randn(1, 2, *sizes)])


def resampling(case, randn, rand):
    case("Upsample", scale_factor=2, x=[randn(1, 2, 3, 2)])
    case("Upsample", size=5, mode="linear", x=[randn(1, 2, 4)])
    case("Upsample", size=5, mode="linear", align_corners=True, x=[randn(1, 2, 4)])
    for mode in ("bilinear", "bicubic"):
        case("Upsample", size=(5, 3), mode=mode, align_corners=False, x=[randn(1, 2, 3, 4)])
        case("Upsample", scale_factor=2.0, mode=mode, align_corners=True, x=[randn(1, 1, 3, 2)])
    case("Upsample", scale_factor=1.5, mode="trilinear", x=[randn(1, 1, 3, 2, 2)])
    case("Upsample", size=(4, 5), mode="nearest-exact", x=[randn(1, 1, 3, 2)])
    case("UpsamplingNearest2d", scale_factor=2, x=[randn(1, 2, 2, 3)])
    case("UpsamplingBilinear2d", size=(4, 3), x=[randn(1, 2, 2, 3)])
    case("PixelShuffle", 2, x=[randn(1, 8, 2, 3)])
    case("PixelUnshuffle", 2, x=[randn(1, 2, 4, 2)])
    case("ChannelShuffle", 2, x=[randn(1, 6, 2, 2)])
    case("Unfold", 2, x=[randn(1, 2, 4, 3)])
    case("Unfold", (3, 2), dilation=2, padding=1, stride=(1, 2), x=[randn(1, 2, 5, 4)])
    case("Fold", (4, 3), 2, x=[randn(1, 8, 6)])
    case("Fold", (5, 4), (3, 2), dilation=2, padding=1, stride=(1, 2), x=[randn(1, 12, 6)])


def recurrent(case, randn, rand):
    for name, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        lstm = name == "LSTM"
        call = "m(x1, {x2, x3})" if lstm else "m(x1, x2)"
        py = (lambda m, x, h, c: m(x, (h, c))) if lstm else (lambda m, x, h: m(x, h))
        case(name, 3, 4, x=[randn(4, 2, 3)])
        state = [randn(4, 2, 2)] * 1 + ([randn(4, 2, 2)] if lstm else [])
        case(name, 3, 2, num_layers=2, bidirectional=True, batch_first=True, x=[randn(2, 3, 3)] + state, call=call, py=py)
        state = [randn(1, 2)] + ([randn(1, 2)] if lstm else [])
        case(name, 3, 2, bias=False, x=[randn(3, 3)] + state, call=call, py=py)
        case(name, 2, 3, num_layers=2, dropout=0.4, x=[randn(2, 1, 2)], random=True)
        case(name + "Cell", 3, 4, x=[randn(2, 3)])
        state = [randn(2, 3)] + ([randn(2, 3)] if lstm else [])
        case(name + "Cell", 2, 3, bias=False, x=[randn(2, 2)] + state, call=call, py=py)
    case("RNN", 3, 2, nonlinearity="relu", x=[randn(3, 2, 3)])
    case("RNNCell", 3, 2, nonlinearity="relu", x=[randn(2, 3)])
    case("LSTM", 3, 4, proj_size=2, bidirectional=True, x=[randn(3, 2, 3)])


def norms(case, randn, rand):
    twice = {"call": "m(x1), m(x2)", "py": lambda m, a, b: (m(a), m(b))}
    for dims, sizes in ((1, (4,)), (2, (3, 2)), (3, (2, 1, 3))):
        def x():
            return randn(3, 2, *sizes) * 2 + 1
        name = "BatchNorm%dd" % dims
        case(name, 2, x=[x()])
        case(name, 2, momentum=L(None, "false"), eps=0.01, x=[x(), x()], **twice)
        case(name, 2, track_running_stats=False, x=[x()])
        case(name, 2, affine=False, momentum=0.3, x=[x(), x()], **twice)
        name = "InstanceNorm%dd" % dims
        case(name, 2, x=[x()])
        case(name, 2, affine=True, track_running_stats=True, momentum=0.3, x=[x(), x()], **twice)
        case(name, 2, eps=0.1, x=[x()[0]])
    case("BatchNorm1d", 3, x=[randn(5, 3)])
    case("LayerNorm", 4, x=[randn(3, 4)])
    case("LayerNorm", (2, 3), eps=0.1, bias=False, x=[randn(2, 2, 3)])
    case("LayerNorm", (3,), elementwise_affine=False, x=[randn(2, 2, 3)])
    case("RMSNorm", 4, x=[randn(3, 4)])
    case("RMSNorm", (2, 3), eps=0.1, x=[randn(2, 2, 3)])
    case("RMSNorm", 4, elementwise_affine=False, x=[randn(3, 4)])
    case("GroupNorm", 2, 4, x=[randn(2, 4, 3)])
    case("GroupNorm", 3, 3, eps=0.1, affine=False, x=[randn(2, 3, 2, 2)])
    case("LocalResponseNorm", 2, x=[randn(1, 4, 3)])
    case("LocalResponseNorm", 3, alpha=0.5, beta=0.6, k=2.0, x=[randn(1, 4, 2, 2)])


def attention(case, randn, rand):
    def options(lua, **given):
        names = list(given)
        text = ", ".join(["%s = x%d" % (n, i + 4) for i, n in enumerate(names)] + ([lua] if lua else []))
        extra = eval("dict(%s)" % lua.replace("false", "False").replace("true", "True")) if lua else {}
        return {"call": "m(x1, x2, x3, {%s})" % text,
                "py": lambda m, q, k, v, *masks: m(q, k, v, **dict(zip(names, masks)), **extra)}

    q, k, v = randn(3, 2, 4), randn(5, 2, 4), randn(5, 2, 4)
    padding = torch.tensor([[False, True, False, False, True], [False, False, False, True, False]])
    mask = torch.tensor([[False, False, True, False, True], [True, False, False, False, False], [False] * 5])
    case("MultiheadAttention", 4, 2, x=[q, k, v])
    case("MultiheadAttention", 4, 2, bias=False, x=[q, k, v, padding], **options("average_attn_weights=false", key_padding_mask=padding))
    case("MultiheadAttention", 4, 2, x=[q, k, v, mask, padding], **options("", attn_mask=mask, key_padding_mask=padding))
    case("MultiheadAttention", 4, 2, x=[q, k, v, mask], **options("need_weights=false", attn_mask=mask))
    case("MultiheadAttention", 4, 2, x=[q, k, v, mask, padding],
         **options("need_weights=false", attn_mask=mask, key_padding_mask=padding))
    case("MultiheadAttention", 4, 2, x=[q, k, v, randn(3, 5)], **options("need_weights=false", attn_mask=mask))
    case("MultiheadAttention", 4, 2, x=[q, k, v, randn(4, 3, 5), padding],
         **options("", attn_mask=mask, key_padding_mask=padding))
    case("MultiheadAttention", 4, 2, kdim=3, vdim=2, batch_first=True, x=[randn(2, 3, 4), randn(2, 5, 3), randn(2, 5, 2)])
    case("MultiheadAttention", 4, 2, add_bias_kv=True, add_zero_attn=True, x=[q, k, v, mask, padding],
         **options("", attn_mask=mask, key_padding_mask=padding))
    case("MultiheadAttention", 4, 1, add_zero_attn=True, x=[randn(3, 4), randn(5, 4), randn(5, 4)])
    upper = torch.triu(torch.ones(3, 3), 1).bool()
    for weights in ("true", "false"):
        case("MultiheadAttention", 4, 2, x=[q, q + 1, q - 1], call="m(x1, x2, x3, {is_causal = true, need_weights = %s})" % weights,
             py=lambda m, q, k, v, weights=weights: m(q, k, v, attn_mask=upper, is_causal=True, need_weights=weights == "true"))
    case("MultiheadAttention", 4, 2, dropout=0.3, x=[q, k, v], random=True)


def transformers(case, randn, rand):
    nn = torch.nn
    small = {"dim_feedforward": 5, "dropout": 0.0}
    upper = torch.triu(torch.full((3, 3), float("-inf")), 1)
    padding = torch.tensor([[False, False, True], [False, False, False]])
    x, memory = randn(3, 2, 4), randn(4, 2, 4)
    case("TransformerEncoderLayer", 4, 2, **small, x=[x])
    case("TransformerEncoderLayer", 4, 2, **small, norm_first=True, activation="gelu", layer_norm_eps=0.01, bias=False, x=[x])
    case("TransformerEncoderLayer", 4, 2, **small, batch_first=True, x=[randn(2, 3, 4), padding],
         call="m(x1, {src_key_padding_mask = x2})", py=lambda m, x, p: m(x, src_key_padding_mask=p))
    case("TransformerEncoderLayer", 4, 2, **small, x=[x, upper], call="m(x1, {src_mask = x2})", py=lambda m, x, a: m(x, src_mask=a))
    case("TransformerEncoderLayer", 4, 2, dim_feedforward=5, x=[x], random=True)
    case("TransformerDecoderLayer", 4, 2, **small, x=[x, memory])
    case("TransformerDecoderLayer", 4, 2, **small, norm_first=True, activation="gelu", bias=False, x=[x, memory])
    case("TransformerDecoderLayer", 4, 2, **small, batch_first=True, x=[randn(2, 3, 4), randn(2, 3, 4), upper, padding],
         call="m(x1, x2, {tgt_mask = x3, memory_key_padding_mask = x4})",
         py=lambda m, x, y, a, p: m(x, y, tgt_mask=a, memory_key_padding_mask=p))
    layer, text = nn.TransformerEncoderLayer(4, 2, **small), "(4, 2, {dim_feedforward = 5, dropout = 0})"
    case("TransformerEncoder", L(layer, "nn.TransformerEncoderLayer" + text), 2, x=[x, upper],
         call="m(x1, {mask = x2})", py=lambda m, x, a: m(x, mask=a))
    case("TransformerEncoder", L(layer, "nn.TransformerEncoderLayer" + text), 1, L(nn.LayerNorm(4), "nn.LayerNorm(4)"), x=[x, padding],
         call="m(x1, {src_key_padding_mask = x2})", py=lambda m, x, p: m(x, src_key_padding_mask=p))
    layer = nn.TransformerDecoderLayer(4, 2, **small)
    case("TransformerDecoder", L(layer, "nn.TransformerDecoderLayer" + text), 2, L(nn.LayerNorm(4), "nn.LayerNorm(4)"), x=[x, memory, upper],
         call="m(x1, x2, {tgt_mask = x3})", py=lambda m, x, y, a: m(x, y, tgt_mask=a))
    case("Transformer", **small, d_model=4, nhead=2, num_encoder_layers=1, num_decoder_layers=2, x=[memory, x, upper],
         call="m(x1, x2, {tgt_mask = x3})", py=lambda m, x, y, a: m(x, y, tgt_mask=a))
    case("Transformer", **small, d_model=4, nhead=2, num_encoder_layers=1, num_decoder_layers=1, batch_first=True, norm_first=True,
         x=[randn(2, 3, 4), randn(2, 3, 4)], call="m(x1, x2, {tgt_is_causal = true})",
         py=lambda m, x, y: m(x, y, tgt_mask=upper, tgt_is_causal=True))


def embeddings(case, randn, rand):
    index = I([[0, 3, 3], [4, 1, 0]])
    case("Embedding", 5, 3, x=[index])
    case("Embedding", 5, 3, padding_idx=I(3), x=[index])
    case("Embedding", 5, 3, padding_idx=-2, scale_grad_by_freq=True, x=[index])
    case("Embedding", 5, 3, max_norm=0.8, x=[index])
    case("Embedding", 5, 3, max_norm=1.0, norm_type=1.0, x=[I(torch.tensor(2))])
    line, offsets = I([0, 3, 3, 4, 1, 0]), I([0, 2, 2, 5])
    for mode in ("mean", "sum", "max"):
        case("EmbeddingBag", 5, 3, mode=mode, x=[index])
        case("EmbeddingBag", 5, 3, mode=mode, x=[line, offsets])
        case("EmbeddingBag", 5, 3, mode=mode, padding_idx=I(3), x=[line, offsets])
    case("EmbeddingBag", 5, 3, scale_grad_by_freq=True, max_norm=0.8, x=[index])
    case("EmbeddingBag", 5, 3, mode="sum", include_last_offset=True, x=[line, I([0, 2, 2, 6])])
    case("EmbeddingBag", 5, 3, mode="sum", x=[line, offsets, randn(6)], call="m(x1, x2, x3)")
    case("EmbeddingBag", 5, 3, mode="sum", padding_idx=-1, x=[index, randn(2, 3)], call="m(x1, nil, x2)",
         py=lambda m, i, w: m(i, per_sample_weights=w))


def losses(case, randn, rand):
    def signs(*sizes):
        return torch.where(rand(*sizes) < 0.5, -1.0, 1.0)

    def each(name, x, *rows, call=None, py=None):
        """Every reduction, and the rows of options."""
        for options in ({}, {"reduction": "none"}, {"reduction": "sum"}) + rows:
            case(name, x=x, call=call, py=py, **options)

    a, b, p = randn(3, 4), randn(3, 4), rand(3, 4) * 0.9 + 0.05
    each("L1Loss", [a, b])
    each("MSELoss", [a, b])
    each("SmoothL1Loss", [a, b], {"beta": 0.4}, {"beta": 0.0})
    each("HuberLoss", [a, b], {"delta": 0.4})
    each("PoissonNLLLoss", [a, T(torch.tensor([[0.0, 1, 2, 3]] * 3))], {"full": True}, {"full": True, "reduction": "none"})
    case("PoissonNLLLoss", log_input=False, eps=0.01, x=[p, torch.tensor([[0.0, 1, 2, 3]] * 3)])
    each("GaussianNLLLoss", [a, b, p], {"full": True, "eps": 0.3})
    case("GaussianNLLLoss", x=[a, b, p[:, :1]])
    probabilities = p / p.sum(1, keepdim=True)
    each("KLDivLoss", [a, probabilities], {"reduction": "batchmean"}, {"log_target": True, "reduction": "batchmean"}, {"log_target": True})
    each("BCELoss", [p, rand(3, 4)], {"weight": rand(4)}, {"weight": rand(3, 4), "reduction": "sum"})
    each("BCEWithLogitsLoss", [a, rand(3, 4)], {"weight": rand(4)}, {"pos_weight": rand(4) * 3}, {"weight": rand(3, 4), "pos_weight": rand(4)})
    each("HingeEmbeddingLoss", [a, T(signs(3, 4))], {"margin": 0.3})
    each("SoftMarginLoss", [a, T(signs(3, 4))])
    each("MultiLabelMarginLoss", [a, I([[0, 3, -1, 1], [2, -1, 0, 0], [3, 1, 0, -1]])])
    each("MultiLabelSoftMarginLoss", [a, (b > 0).float()], {"weight": rand(4)})
    each("MarginRankingLoss", [a[0], b[0], T(signs(4))], {"margin": 0.5})
    each("CosineEmbeddingLoss", [a, b, T(signs(3))], {"margin": 0.2})
    labels = I([1, 3, 0])
    each("MultiMarginLoss", [a, labels], {"p": 2}, {"margin": 0.4, "weight": rand(4)})
    case("MultiMarginLoss", x=[a[0], I(torch.tensor(2))])
    each("NLLLoss", [a.log_softmax(1), labels], {"weight": rand(4)}, {"ignore_index": I(3)},
         {"weight": rand(4), "ignore_index": I(1), "reduction": "none"})
    case("NLLLoss", weight=rand(3), x=[randn(2, 3, 2, 2), I([[[0, 1], [2, 2]], [[1, 0], [0, -100]]])])
    each("CrossEntropyLoss", [a, labels], {"weight": rand(4)}, {"ignore_index": I(3)}, {"label_smoothing": 0.2},
         {"label_smoothing": 0.3, "weight": rand(4), "ignore_index": I(0)})
    each("CrossEntropyLoss", [a, probabilities], {"weight": rand(4)}, {"label_smoothing": 0.3, "weight": rand(4)})
    case("CrossEntropyLoss", weight=rand(3), x=[randn(2, 3, 2), I([[0, 1], [2, -100]])])
    case("CrossEntropyLoss", label_smoothing=0.1, reduction="none", x=[randn(2, 3, 2), I([[0, 1], [2, -100]])])
    case("CrossEntropyLoss", x=[a[0], I(torch.tensor(2))])
    c = randn(3, 4)
    each("TripletMarginLoss", [a, b, c], {"margin": 3.0, "p": 1.0}, {"swap": True, "margin": 2.0}, {"eps": 0.1})
    each("TripletMarginWithDistanceLoss", [a, b, c], {"swap": True, "margin": 2.0})
    case("TripletMarginWithDistanceLoss", x=[a, b, c], margin=0.5, distance_function=L(
        lambda x, y: 1 - torch.nn.functional.cosine_similarity(x, y), "function(x, y) return 1 - kiln.cosine_similarity(x, y) end"))
    x, targets, steps, lengths = randn(5, 2, 4), I([[1, 3, 2], [2, 2, 1]]), torch.tensor([5, 4]), torch.tensor([3, 2])
    each("CTCLoss", [x, targets, steps, lengths], {"zero_infinity": True},
         call="m(x1:log_softmax(3), x2, x3, x4)", py=lambda m, x, *rest: m(x.log_softmax(2), *rest))
    case("CTCLoss", blank=I(3), x=[x, I([1, 0, 2, 1, 1]), steps, lengths],
         call="m(x1:log_softmax(3), x2, x3, x4)", py=lambda m, x, *rest: m(x.log_softmax(2), *rest))
    case("CTCLoss", zero_infinity=True, reduction="none", x=[x, I([[2, 2, 2], [1, 1, 1]]), torch.tensor([4, 5]), torch.tensor([3, 3])],
         call="m(x1:log_softmax(3), x2, x3, x4)", py=lambda m, x, *rest: m(x.log_softmax(2), *rest))
    many = I([0, 5, 2, 9, 7])
    case("AdaptiveLogSoftmaxWithLoss", 8, 10, [3, 6], div_value=2.0, x=[randn(5, 8), many], py=lambda m, x, t: list(m(x, t)))
    case("AdaptiveLogSoftmaxWithLoss", 8, 10, [4], head_bias=True, x=[randn(5, 8), many], py=lambda m, x, t: list(m(x, t)))
    case("AdaptiveLogSoftmaxWithLoss", 8, 10, [2, 5, 8], div_value=2.0, x=[randn(8), I(torch.tensor(6))], py=lambda m, x, t: list(m(x, t)))
    case("AdaptiveLogSoftmaxWithLoss", 8, 10, [3, 6], div_value=2.0, x=[randn(3, 8)], based=(1,),
         call="m:log_prob(x1), m:predict(x1)", py=lambda m, x: (m.log_prob(x), m.predict(x)))


def distances(case, randn, rand):
    a, b = randn(3, 4), randn(3, 4)
    case("CosineSimilarity", x=[a, b])
    case("CosineSimilarity", dim=I(0), eps=0.1, x=[a, b])
    case("PairwiseDistance", x=[a, b])
    case("PairwiseDistance", p=1.0, keepdim=True, eps=0.01, x=[a, b])
