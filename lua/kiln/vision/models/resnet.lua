-- Residual networks (He, Zhang, Ren, Sun 2015), ResNeXt and wide ones, with torchvision's parameter names and starting values;
-- the stride of a bottleneck is in its 3x3 convolution.
local kiln = require "kiln"
local nn = require "kiln.nn"
local parts = require "kiln.vision.models.parts"
local fail = kiln.fail

local model = {}

local function conv3x3(inputs, outputs, stride, groups, dilation)
  return nn.Conv2d(inputs, outputs, 3, { stride = stride, padding = dilation, dilation = dilation, groups = groups, bias = false })
end

local function conv1x1(inputs, outputs, stride)
  return nn.Conv2d(inputs, outputs, 1, { stride = stride, bias = false })
end

-- ---- blocks ----------------------------------------------------------------------------------------------------

--- BasicBlock(inputs, planes, { stride, downsample, groups, base_width, dilation, norm_layer }): two 3x3 convolutions beside the
--- input, which downsample fits to their sizes.
local BasicBlock = nn.Module:extend "BasicBlock"
BasicBlock.expansion = 1
model.BasicBlock = BasicBlock

function BasicBlock:init(inputs, planes, options)
  options = options or {}
  local norm = options.norm_layer or nn.BatchNorm2d
  if (options.groups or 1) ~= 1 or (options.base_width or 64) ~= 64 or (options.dilation or 1) ~= 1 then
    fail "BasicBlock: groups, width_per_group and dilation are for Bottleneck"
  end
  self.conv1 = conv3x3(inputs, planes, options.stride or 1, 1, 1)
  self.bn1 = norm(planes)
  self.conv2 = conv3x3(planes, planes, 1, 1, 1)
  self.bn2 = norm(planes)
  self.downsample = options.downsample
end

function BasicBlock:forward(x)
  local beside = x
  if self.downsample then beside = self.downsample(x) end
  x = self.bn1(self.conv1(x)):relu()
  return (self.bn2(self.conv2(x)) + beside):relu()
end

--- Bottleneck(inputs, planes, options): to fewer channels, 3x3, and to 4 planes.
local Bottleneck = nn.Module:extend "Bottleneck"
Bottleneck.expansion = 4
model.Bottleneck = Bottleneck

function Bottleneck:init(inputs, planes, options)
  options = options or {}
  local norm, groups = options.norm_layer or nn.BatchNorm2d, options.groups or 1
  local width = planes * (options.base_width or 64) // 64 * groups
  if width < 1 then fail("Bottleneck: %d planes at a width_per_group of %d leave no channels", planes, options.base_width) end
  self.conv1 = conv1x1(inputs, width, 1)
  self.bn1 = norm(width)
  self.conv2 = conv3x3(width, width, options.stride or 1, groups, options.dilation or 1)
  self.bn2 = norm(width)
  self.conv3 = conv1x1(width, planes * 4, 1)
  self.bn3 = norm(planes * 4)
  self.downsample = options.downsample
end

function Bottleneck:forward(x)
  local beside = x
  if self.downsample then beside = self.downsample(x) end
  x = self.bn1(self.conv1(x)):relu()
  x = self.bn2(self.conv2(x)):relu()
  return (self.bn3(self.conv3(x)) + beside):relu()
end

-- ---- the network -----------------------------------------------------------------------------------------------

local known = { "num_classes", "zero_init_residual", "groups", "width_per_group", "replace_stride_with_dilation", "norm_layer",
  "in_channels", "width" }

--- ResNet(block, layers [, { num_classes = 1000, zero_init_residual = false, groups = 1, width_per_group = 64,
--- replace_stride_with_dilation = { false, false, false }, norm_layer = nn.BatchNorm2d, in_channels = 3, width = 64 }]): block is
--- BasicBlock or Bottleneck, layers four numbers of blocks; `width`: the channels of the first stage. On [N, C, H, W].
local ResNet = nn.Module:extend "ResNet"
model.ResNet = ResNet

function ResNet:init(block, layers, options)
  if block ~= BasicBlock and block ~= Bottleneck then fail "ResNet: the block must be models.BasicBlock or models.Bottleneck" end
  if type(layers) ~= "table" or #layers ~= 4 then fail "ResNet: layers must be four numbers of blocks" end
  options = parts.options("ResNet", options, known)
  local dilate = options.replace_stride_with_dilation or { false, false, false }
  if type(dilate) ~= "table" or #dilate ~= 3 then fail "ResNet: replace_stride_with_dilation must be a list of three booleans" end
  local norm, width = options.norm_layer or nn.BatchNorm2d, options.width or 64
  local common = { groups = options.groups or 1, base_width = options.width_per_group or 64, norm_layer = norm }
  local inputs, dilation = width, 1

  -- blocks in a row; the first changes the sizes.
  local function stage(planes, count, stride, instead)
    local first = dilation
    if instead then dilation, stride = dilation * stride, 1 end
    local outputs, list = planes * block.expansion, {}
    for i = 1, count do
      local own = { groups = common.groups, base_width = common.base_width, norm_layer = norm, dilation = i == 1 and first or dilation,
        stride = i == 1 and stride or 1 }
      if i == 1 and (stride ~= 1 or inputs ~= outputs) then
        own.downsample = nn.Sequential(conv1x1(inputs, outputs, stride), norm(outputs))
      end
      list[i] = block(inputs, planes, own)
      inputs = outputs
    end
    return nn.Sequential(list)
  end

  self.conv1 = nn.Conv2d(options.in_channels or 3, width, 7, { stride = 2, padding = 3, bias = false })
  self.bn1 = norm(width)
  self.maxpool = nn.MaxPool2d(3, { stride = 2, padding = 1 })
  self.layer1 = stage(width, layers[1], 1, false)
  self.layer2 = stage(2 * width, layers[2], 2, dilate[1])
  self.layer3 = stage(4 * width, layers[3], 2, dilate[2])
  self.layer4 = stage(8 * width, layers[4], 2, dilate[3])
  self.fc = nn.Linear(8 * width * block.expansion, options.num_classes or 1000)

  for name, p in self:named_parameters() do
    if p:dim() == 4 then parts.fan_out(p) end
    local last = block == BasicBlock and "bn2.weight" or "bn3.weight"
    if options.zero_init_residual and name:sub(-#last) == last then parts.fill(p, 0) end
  end
end

--- What the last stage gives, [N, C, H / 32, W / 32]: for other heads.
function ResNet:features(x)
  x = self.maxpool(self.bn1(self.conv1(x)):relu())
  return self.layer4(self.layer3(self.layer2(self.layer1(x))))
end

function ResNet:forward(x)
  return self.fc(self:features(x):mean({ 3, 4 }))
end

-- ---- the sizes that have names ---------------------------------------------------------------------------------

--- resnet18([{ weights = path, num_classes =, … options of ResNet }]), resnet34(…), resnet50(…), resnet101(…), resnet152(…),
--- resnext50_32x4d(…), resnext101_32x8d(…), resnext101_64x4d(…), wide_resnet50_2(…), wide_resnet101_2(…): a ResNet of that size.
for name, row in pairs {
  resnet18 = { BasicBlock, { 2, 2, 2, 2 } },
  resnet34 = { BasicBlock, { 3, 4, 6, 3 } },
  resnet50 = { Bottleneck, { 3, 4, 6, 3 } },
  resnet101 = { Bottleneck, { 3, 4, 23, 3 } },
  resnet152 = { Bottleneck, { 3, 8, 36, 3 } },
  resnext50_32x4d = { Bottleneck, { 3, 4, 6, 3 }, 32, 4 },
  resnext101_32x8d = { Bottleneck, { 3, 4, 23, 3 }, 32, 8 },
  resnext101_64x4d = { Bottleneck, { 3, 4, 23, 3 }, 64, 4 },
  wide_resnet50_2 = { Bottleneck, { 3, 4, 6, 3 }, 1, 128 },
  wide_resnet101_2 = { Bottleneck, { 3, 4, 23, 3 }, 1, 128 },
} do
  model[name] = parts.loader(name, "fc.weight", function(options)
    options.groups, options.width_per_group = options.groups or row[3], options.width_per_group or row[4]
    return ResNet(row[1], row[2], options)
  end)
end

return model
