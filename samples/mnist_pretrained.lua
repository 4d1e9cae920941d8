-- A network of others, rebuilt from its weights: the MNIST network that comes with Burn's examples. The safetensors file holds
-- tensors by name and nothing of the architecture; that is written here, with the names of the file.
--
--   kiln samples/mnist_pretrained.lua [--data DIR] [--limit N] [--device cuda]
local kiln = kiln or require "kiln"
local nn, data = kiln.nn, kiln.data

local options = kiln.options({ limit = 10000, device = "cpu" }, { "data" })

local Net = nn.Module:extend "Net"
function Net:init()
  self.conv1 = nn.Conv2d(1, 8, 3)
  self.conv2 = nn.Conv2d(8, 16, 3)
  self.conv3 = nn.Conv2d(16, 24, 3)
  self.norm1 = nn.BatchNorm2d(24)
  self.fc1 = nn.Linear(24 * 22 * 22, 32)
  self.fc2 = nn.Linear(32, 10)
  self.norm2 = nn.BatchNorm1d(10)
end
function Net:forward(x)
  x = self.conv1(x):relu()
  x = self.conv2(x):relu()
  x = self.norm1(self.conv3(x):relu())
  x = self.fc1(x:flatten(2)):relu()
  return self.norm2(self.fc2(x)):log_softmax(2)
end

local net = Net()
net:load_state_dict(kiln.from_safetensors(data.find("models/mnist_burn/mnist.safetensors", options.data)))
net:eval():to(options.device)
print(net)

local images = data.read_idx(data.find("mnist/t10k-images-idx3-ubyte.gz", options.data), { dtype = "float32" })
local labels = data.read_idx(data.find("mnist/t10k-labels-idx1-ubyte.gz", options.data)) + 1
local limit = math.min(options.limit, #images)
local set = data.Subset(data.TensorDataset(images:unsqueeze(2):to(options.device), labels:to(options.device)), kiln.arange(1, limit + 1))

local graph = kiln.script(function(x) return net((x / 255 - 0.1307) / 0.3081) end)
local started, right = kiln.clock(), 0
for _, x, y in data.DataLoader(set, { batch_size = 500 }):iter() do
  right = right + kiln.no_grad(function() return graph(x):argmax(2):eq(y):sum():item() end)
end
print(("%d of %d images are right: %.2f %%, in %.1f s"):format(right, limit, 100 * right / limit, kiln.clock() - started))
