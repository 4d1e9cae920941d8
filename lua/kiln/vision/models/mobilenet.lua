-- MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen 2018), with torchvision's parameter names and starting values.
local kiln = require "kiln"
local nn = require "kiln.nn"
local parts = require "kiln.vision.models.parts"
local fail = kiln.fail

local model = {}

-- Convolution, normalisation, ReLU6.
local function unit(inputs, outputs, kernel, stride, groups, norm)
  return nn.Sequential(
    nn.Conv2d(inputs, outputs, kernel, { stride = stride, padding = (kernel - 1) // 2, groups = groups, bias = false }),
    norm(outputs),
    nn.ReLU6())
end

--- InvertedResidual(inputs, outputs, stride, expansion [, norm_layer]): to more channels, 3x3 on each of them, to the outputs;
--- beside the input where sizes agree.
local InvertedResidual = nn.Module:extend "InvertedResidual"
model.InvertedResidual = InvertedResidual

function InvertedResidual:init(inputs, outputs, stride, expansion, norm)
  if stride ~= 1 and stride ~= 2 then fail("InvertedResidual: the stride must be 1 or 2, got %s", tostring(stride)) end
  norm = norm or nn.BatchNorm2d
  local hidden = math.floor(inputs * expansion + 0.5)
  local list = {}
  if expansion ~= 1 then list[1] = unit(inputs, hidden, 1, 1, 1, norm) end
  list[#list + 1] = unit(hidden, hidden, 3, stride, hidden, norm)
  list[#list + 1] = nn.Conv2d(hidden, outputs, 1, { bias = false })
  list[#list + 1] = norm(outputs)
  self.conv = nn.Sequential(list)
  self.beside = stride == 1 and inputs == outputs
end

function InvertedResidual:forward(x)
  if self.beside then return x + self.conv(x) end
  return self.conv(x)
end

-- Channels by a factor, as a multiple of `unit`, at least that and not more than a tenth too few.
local function channels(n, step)
  local out = math.max(step, math.floor(n + step / 2) // step * step)
  return out < 0.9 * n and out + step or out
end

-- Rows of expansion, channels, number of blocks, stride of the first.
local usual = {
  { 1, 16, 1, 1 }, { 6, 24, 2, 2 }, { 6, 32, 3, 2 }, { 6, 64, 4, 2 }, { 6, 96, 3, 1 }, { 6, 160, 3, 2 }, { 6, 320, 1, 1 },
}

--- MobileNetV2([{ num_classes = 1000, width_mult = 1, inverted_residual_setting = rows, round_nearest = 8, norm_layer =
--- nn.BatchNorm2d, dropout = 0.2, in_channels = 3 }]) on [N, C, H, W].
local MobileNetV2 = nn.Module:extend "MobileNetV2"
model.MobileNetV2 = MobileNetV2

function MobileNetV2:init(options)
  options = parts.options("MobileNetV2", options,
    { "num_classes", "width_mult", "inverted_residual_setting", "round_nearest", "norm_layer", "dropout", "in_channels" })
  local factor, step, norm = options.width_mult or 1, options.round_nearest or 8, options.norm_layer or nn.BatchNorm2d
  local rows = options.inverted_residual_setting or usual
  for i, row in ipairs(rows) do
    if type(row) ~= "table" or #row ~= 4 then fail("MobileNetV2: row %d of inverted_residual_setting must have 4 numbers", i) end
  end
  local inputs, last = channels(32 * factor, step), channels(1280 * math.max(1, factor), step)
  local list = { unit(options.in_channels or 3, inputs, 3, 2, 1, norm) }
  for _, row in ipairs(rows) do
    local expansion, outputs = row[1], channels(row[2] * factor, step)
    for i = 1, row[3] do
      list[#list + 1] = InvertedResidual(inputs, outputs, i == 1 and row[4] or 1, expansion, norm)
      inputs = outputs
    end
  end
  list[#list + 1] = unit(inputs, last, 1, 1, 1, norm)
  self.features = nn.Sequential(list)
  self.classifier = nn.Sequential(nn.Dropout(options.dropout or 0.2), nn.Linear(last, options.num_classes or 1000))
  for _, p in ipairs(self:parameters()) do
    if p:dim() == 4 then parts.fan_out(p) end
  end
  parts.normal(self.classifier[2].weight, 0.01)
  parts.fill(self.classifier[2].bias, 0)
end

function MobileNetV2:forward(x)
  return self.classifier(self.features(x):mean({ 3, 4 }))
end

--- mobilenet_v2([{ weights = path, … options of MobileNetV2 }])
model.mobilenet_v2 = parts.loader("mobilenet_v2", "classifier.1.weight", MobileNetV2)

return model
