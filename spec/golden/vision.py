"""Records what torchvision answers into vision.safetensors and vision_states.txt, beside this file.

python3 spec/golden/vision.py: needs torch, torchvision and safetensors.
Tensors of the file: inputs under their names, then for each transform its result under the call of kiln that has to give it.
Models: `N eval`, `N train`, `N grad NAME`, `N buffer NAME` for model N of the metadata, which says how kiln makes it. Their weights are not
stored: both sides make them, by name and place, see `weights`. Images: `images SIZE CHANNELS`, made the same way.
vision_states.txt: names and sizes of the states of whole models.
"""
import os
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models import mobilenetv2, resnet, vision_transformer
from torchvision.transforms.v2 import functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(5)
out, about = {}, {}


def noise(shape, key):
    """Numbers in [0, 1) by place: whole numbers mixed so that any system with int64 gets the same."""
    n = 1
    for s in shape:
        n *= s
    i = torch.arange(1, n + 1, dtype=torch.int64) * 2654435761 + key * 97
    i = i % 2**32
    i = (i ^ (i >> 15)) % 2**24 * 40503 % 2**31
    i = (i ^ (i >> 13)) % 2**24 * 30011 % 2**31
    return ((i >> 7) % 2**20).double().reshape(shape) / 2**20


def weights(model):
    """Fills parameters and buffers, in the order of their names, with numbers that keep values in range."""
    state = model.state_dict()
    for key, name in enumerate(sorted(state), 1):
        t = state[name]
        if name.endswith("num_batches_tracked"):
            t.fill_(key)
            continue
        u = noise(t.shape, key)
        if t.dim() == 1:
            low, high = (0.5, 1.5) if name.endswith(("weight", "running_var")) else (-0.2, 0.2)
        else:
            fan = t[0].numel() if t.dim() == 4 else t.shape[-1]
            high = (3 / fan) ** 0.5
            low = -high
        t.copy_((u * (high - low) + low).float())


# ---- transforms -------------------------------------------------------------------------------------------------------

colours = torch.rand(3, 11, 14)
colours[:, 2:4, 3:6] = 0.5  # grey
photo = (torch.rand(3, 11, 14) * 256).to(torch.uint8)
grey = torch.rand(2, 1, 6, 6)
tall = torch.rand(3, 13, 5)
out.update({"x": colours, "u": photo, "grey": grey, "tall": tall})
x, u = colours, photo
BI, NE, NX, CU = "bilinear", "nearest", "nearest-exact", "bicubic"
near = {
    "F.resize(x, { 5, 7 })": F.resize(x, [5, 7]),
    "F.resize(x, { 5, 7 }, { antialias = false })": F.resize(x, [5, 7], antialias=False),
    "F.resize(x, { 23, 9 })": F.resize(x, [23, 9]),
    "F.resize(x, 6)": F.resize(x, [6]),
    "F.resize(x, { 30, 31 })": F.resize(x, [30, 31]),
    "F.resize(x, { 4, 20 }, { interpolation = 'bicubic' })": F.resize(x, [4, 20], CU),
    "F.resize(x, { 4, 20 }, { interpolation = 'bicubic', antialias = false })": F.resize(x, [4, 20], CU, antialias=False),
    "F.resize(x, { 5, 20 }, { interpolation = 'nearest' })": F.resize(x, [5, 20], NE),
    "F.resize(x, { 5, 20 }, { interpolation = 'nearest-exact' })": F.resize(x, [5, 20], NX),
    "F.resize(u, { 5, 20 }, { interpolation = 'nearest' })": F.resize(u, [5, 20], NE),
    "F.resize(grey, { 3, 9 })": F.resize(grey, [3, 9]),
    "F.resize(tall, 4)": F.resize(tall, [4]),
    "F.resize(tall, 4, { max_size = 7 })": F.resize(tall, [4], max_size=7),
    "F.center_crop(x, { 4, 7 })": F.center_crop(x, [4, 7]),
    "F.center_crop(x, 6)": F.center_crop(x, [6]),
    "F.center_crop(x, { 16, 9 })": F.center_crop(x, [16, 9]),
    "F.center_crop(tall, { 4, 8 })": F.center_crop(tall, [4, 8]),
    "F.crop(x, 3, 2, 5, 6)": F.crop(x, 2, 1, 5, 6),
    "F.crop(u, -1, 10, 5, 8)": F.crop(u, -2, 9, 5, 8),
    "F.resized_crop(x, 2, 4, 6, 8, { 4, 4 })": F.resized_crop(x, 1, 3, 6, 8, [4, 4]),
    "F.pad(x, { 1, 2, 3, 4 }, { fill = 0.5 })": F.pad(x, [1, 2, 3, 4], fill=0.5),
    "F.pad(u, { 2, 1 }, { fill = { 1, 20, 255 } })": F.pad(u, [2, 1], fill=[1, 20, 255]),
    "F.pad(x, 2, { padding_mode = 'edge' })": F.pad(x, [2], padding_mode="edge"),
    "F.pad(u, { 3, 2, 1, 0 }, { padding_mode = 'reflect' })": F.pad(u, [3, 2, 1, 0], padding_mode="reflect"),
    "F.pad(x, { 3, 2, 1, 4 }, { padding_mode = 'symmetric' })": F.pad(x, [3, 2, 1, 4], padding_mode="symmetric"),
    "F.hflip(u)": F.horizontal_flip(u),
    "F.vflip(x)": F.vertical_flip(x),
    "F.five_crop(x, { 4, 5 })[1]": F.five_crop(x, [4, 5])[0],
    "F.five_crop(x, { 4, 5 })[2]": F.five_crop(x, [4, 5])[1],
    "F.five_crop(x, { 4, 5 })[3]": F.five_crop(x, [4, 5])[2],
    "F.five_crop(x, { 4, 5 })[4]": F.five_crop(x, [4, 5])[3],
    "F.five_crop(x, { 4, 5 })[5]": F.five_crop(x, [4, 5])[4],
    "F.rotate(x, 30)": F.rotate(x, 30),
    "F.rotate(x, 90)": F.rotate(x, 90),
    "F.rotate(x, 270, { expand = true })": F.rotate(x, 270, expand=True),
    "F.rotate(x, -180)": F.rotate(x, -180),
    "F.rotate(x, -37.5, { interpolation = 'bilinear' })": F.rotate(x, -37.5, BI),
    "F.rotate(x, 20, { interpolation = 'bilinear', fill = { 0.1, 0.5, 1.0 } })": F.rotate(x, 20, BI, fill=[0.1, 0.5, 1.0]),
    "F.rotate(x, 50, { expand = true, fill = 0.25 })": F.rotate(x, 50, expand=True, fill=0.25),
    "F.rotate(x, 60, { center = { 3, 4 } })": F.rotate(x, 60, center=[3, 4]),
    "F.normalize(x, { 0.485, 0.456, 0.406 }, { 0.229, 0.224, 0.225 })": F.normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "F.rgb_to_grayscale(x)": F.rgb_to_grayscale(x),
    "F.rgb_to_grayscale(x, 3)": F.rgb_to_grayscale(x, 3),
    "F.rgb_to_grayscale(grey, 3)": F.rgb_to_grayscale(grey, 3),
    "F.to_tensor(u)": F.to_dtype(u, torch.float32, scale=True),
    "F.to_dtype(u, 'int32', { scale = true })": F.to_dtype(u, torch.int32, scale=True),
    "F.to_dtype(x, 'uint8', { scale = true })": F.to_dtype(x, torch.uint8, scale=True),
    "F.to_dtype(F.to_dtype(x, 'int16', { scale = true }), 'uint8', { scale = true })":
        F.to_dtype(F.to_dtype(x, torch.int16, scale=True), torch.uint8, scale=True),
    "F.adjust_brightness(x, 1.4)": F.adjust_brightness(x, 1.4),
    "F.adjust_contrast(x, 0.3)": F.adjust_contrast(x, 0.3),
    "F.adjust_contrast(grey, 1.7)": F.adjust_contrast(grey, 1.7),
    "F.adjust_saturation(x, 2.5)": F.adjust_saturation(x, 2.5),
    "F.adjust_hue(x, 0.3)": F.adjust_hue(x, 0.3),
    "F.adjust_hue(x, -0.45)": F.adjust_hue(x, -0.45),
    "F.adjust_hue(grey, 0.2)": F.adjust_hue(grey, 0.2),
    "F.invert(u)": F.invert(u),
    "F.invert(x)": F.invert(x),
}
# Whole pixels that the two may round differently: within one.
within_one = {
    "F.resize(u, { 5, 7 })": F.resize(u, [5, 7]),
    "F.resize(u, { 23, 9 }, { interpolation = 'bicubic' })": F.resize(u, [23, 9], CU),
    "F.rotate(u, 33, { interpolation = 'bilinear', fill = { 1, 2, 250 } })": F.rotate(u, 33, BI, fill=[1, 2, 250]),
    "F.rgb_to_grayscale(u)": F.rgb_to_grayscale(u),
    "F.adjust_brightness(u, 1.3)": F.adjust_brightness(u, 1.3),
    "F.adjust_contrast(u, 1.6)": F.adjust_contrast(u, 1.6),
    "F.adjust_saturation(u, 0.4)": F.adjust_saturation(u, 0.4),
    "F.adjust_hue(u, 0.2)": F.adjust_hue(u, 0.2),
}
for call, y in (near | within_one).items():
    out[call] = y.contiguous()


# ---- models -----------------------------------------------------------------------------------------------------------

class LeNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = torch.nn.Conv2d(6, 16, 5)
        self.fc1 = torch.nn.Linear(400, 120)
        self.fc2 = torch.nn.Linear(120, 84)
        self.fc3 = torch.nn.Linear(84, 10)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


vit = dict(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
lua_vit = "image_size = 32, patch_size = 8, num_layers = 2, num_heads = 2, hidden_dim = 32, mlp_dim = 64"
models = [  # kiln's, torchvision's, images, gradients recorded
    ("M.lenet()", LeNet(), (2, 1, 28), ["conv1.weight", "fc1.bias"]),
    ("M.ResNet(M.BasicBlock, { 1, 2, 1, 1 }, { num_classes = 12 })", resnet.ResNet(resnet.BasicBlock, [1, 2, 1, 1], num_classes=12),
     (2, 3, 64), ["conv1.weight", "layer2.1.bn2.weight", "layer3.0.downsample.1.bias", "fc.bias"]),
    ("M.ResNet(M.Bottleneck, { 1, 1, 1, 2 }, { num_classes = 12, groups = 4, width_per_group = 4, "
     "replace_stride_with_dilation = { false, true, true } })",
     resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 2], num_classes=12, groups=4, width_per_group=4,
                   replace_stride_with_dilation=[False, True, True]),
     (2, 3, 32), ["bn1.weight", "layer1.0.conv2.weight", "layer4.1.bn3.bias", "fc.bias"]),
    ("M.mobilenet_v2{ width_mult = 0.1, num_classes = 7, dropout = 0 }",
     mobilenetv2.MobileNetV2(width_mult=0.1, num_classes=7, dropout=0.0),
     (2, 3, 64), ["features.0.0.weight", "features.3.conv.1.0.weight", "features.18.1.bias", "classifier.1.bias"]),
    ("M.VisionTransformer{ num_classes = 9, %s }" % lua_vit, vision_transformer.VisionTransformer(num_classes=9, **vit),
     (2, 3, 32), ["class_token", "encoder.pos_embedding", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
                  "encoder.layers.encoder_layer_1.mlp.0.bias", "conv_proj.bias", "heads.head.bias"]),
    ("M.VisionTransformer{ num_classes = 9, representation_size = 24, %s }" % lua_vit,
     vision_transformer.VisionTransformer(num_classes=9, representation_size=24, **vit),
     (2, 3, 32), ["heads.pre_logits.weight", "heads.head.bias"]),
]
for number, (call, model, (n, channels, size), grads) in enumerate(models, 1):
    about[f"model {number}"] = call
    about[f"images {number}"] = f"{n} {channels} {size}"
    weights(model)
    images = noise((n, channels, size, size), 12345).float() * 2 - 1
    model.eval()
    with torch.no_grad():
        out[f"{number} eval"] = model(images)
    model.train()
    y = model(images)
    out[f"{number} train"] = y.detach()
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    for name in grads:
        out[f"{number} grad {name}"] = dict(model.named_parameters())[name].grad
    for name in ["bn1.running_var", "layer4.0.bn2.running_mean", "bn1.num_batches_tracked", "features.18.1.running_var"]:
        if name in model.state_dict():
            out[f"{number} buffer {name}"] = model.state_dict()[name]

about["within one"] = "\n".join(within_one)
about["torchvision"] = torchvision.__version__.split("+")[0]
save_file({k: v.contiguous().clone() for k, v in out.items()}, os.path.join(HERE, "vision.safetensors"), about)

with open(os.path.join(HERE, "vision_states.txt"), "w") as f:
    for name in ["resnet18", "resnet34", "resnet50", "mobilenet_v2", "vit_b_16"]:
        with torch.device("meta"):
            model = getattr(torchvision.models, name)()
        f.write(f"{name} {sum(p.numel() for p in model.parameters())}\n")
        for key, t in model.state_dict().items():
            f.write(f"  {key} {'x'.join(map(str, t.shape))}\n")
