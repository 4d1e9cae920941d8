-- LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998), with ReLU and maxima instead of the original's tanh and means.
local kiln = require "kiln"
local nn = require "kiln.nn"
local parts = require "kiln.vision.models.parts"

local model = {}

--- LeNet([{ num_classes = 10, in_channels = 1, image_size = 28 }]) on [N, C, size, size]; images below 32 get a margin of 2.
local LeNet = nn.Module:extend "LeNet"
model.LeNet = LeNet

function LeNet:init(options)
  options = parts.options("LeNet", options, { "num_classes", "in_channels", "image_size" })
  local size = options.image_size or 28
  if math.type(size) ~= "integer" or size < 16 then
    kiln.fail("LeNet: image_size must be an integer from 16 on, got %s", tostring(size))
  end
  local margin = size < 32 and 2 or 0
  local left = ((size + 2 * margin - 4) // 2 - 4) // 2
  self.conv1 = nn.Conv2d(options.in_channels or 1, 6, 5, { padding = margin })
  self.conv2 = nn.Conv2d(6, 16, 5)
  self.fc1 = nn.Linear(16 * left * left, 120)
  self.fc2 = nn.Linear(120, 84)
  self.fc3 = nn.Linear(84, options.num_classes or 10)
end

function LeNet:forward(x)
  x = self.conv1(x):relu():max_pool2d(2)
  x = self.conv2(x):relu():max_pool2d(2):flatten(2)
  x = self.fc1(x):relu()
  return self.fc3(self.fc2(x):relu())
end

--- lenet([{ weights =, … options of LeNet }])
model.lenet = parts.loader("lenet", "fc3.weight", LeNet)

return model
