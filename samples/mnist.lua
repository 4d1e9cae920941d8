-- Handwritten digits of MNIST: a convolutional network with batch norm, trained by a step that is captured as a whole (forward,
-- gradients, Adam). Of the 10,000 images of the test set, 8,000 are learnt from and the other 2,000 are held out.
--
--   kiln samples/mnist.lua [--data DIR] [--epochs N] [--limit N] [--seed N] [--eager] [--device cuda]
--
-- --limit takes fewer images, for a first try; --eager does not capture.
local kiln = kiln or require "kiln"
local nn, F, optim, data = kiln.nn, kiln.nn.functional, kiln.optim, kiln.data

local options = kiln.options({ epochs = 8, seed = 1, limit = 10000, eager = false, device = "cpu" }, { "data" })

-- ---- the data --------------------------------------------------------------------------------------------------

kiln.manual_seed(options.seed)
local images = data.read_idx(data.find("mnist/t10k-images-idx3-ubyte.gz", options.data), { dtype = "float32" })
local labels = data.read_idx(data.find("mnist/t10k-labels-idx1-ubyte.gz", options.data)) + 1 -- classes count from 1
images, labels = ((images / 255 - 0.1307) / 0.3081):unsqueeze(2):to(options.device), labels:to(options.device)
local limit = math.min(options.limit, #images)
local rest = data.Subset(data.TensorDataset(images, labels), kiln.arange(1, limit + 1))
local train, test = data.random_split(rest, { 0.8, 0.2 })
print(("%d images of 28 x 28 pixels: %d to learn from, %d held out"):format(limit, #train, #test))

-- ---- the network -----------------------------------------------------------------------------------------------

local Net = nn.Module:extend "Net"
function Net:init()
  self.conv1 = nn.Conv2d(1, 16, 3, { padding = 1 })
  self.norm1 = nn.BatchNorm2d(16)
  self.conv2 = nn.Conv2d(16, 32, 3, { padding = 1 })
  self.norm2 = nn.BatchNorm2d(32)
  self.fc1 = nn.Linear(32 * 7 * 7, 64)
  self.drop = nn.Dropout(0.3)
  self.fc2 = nn.Linear(64, 10)
end
function Net:forward(x)
  x = F.max_pool2d(self.norm1(self.conv1(x)):relu(), 2)
  x = F.max_pool2d(self.norm2(self.conv2(x)):relu(), 2)
  x = self.fc1(x:flatten(2)):relu()
  return self.fc2(self.drop(x))
end

local net = Net():to(options.device)
print(net)

-- ---- training --------------------------------------------------------------------------------------------------

local loader = data.DataLoader(train, { batch_size = 64, shuffle = true, drop_last = #train > 64 })
local opt = optim.Adam(net:parameters(), { lr = 0.001 })
local schedule = optim.lr_scheduler.OneCycleLR(opt, { max_lr = 0.006, total_steps = options.epochs * #loader, cycle_momentum = false })

local function step(x, y)
  opt:zero_grad()
  local loss = F.cross_entropy(net(x), y)
  loss:backward()
  opt:step()
  return loss
end
if not options.eager then step = kiln.script(step) end

local function accuracy()
  local right = kiln.metrics.Accuracy()
  net:eval()
  for _, x, y in data.DataLoader(test, { batch_size = 500 }):iter() do right:update(kiln.no_grad(net, x), y) end
  net:train()
  return right:compute()
end

local started = kiln.clock()
for epoch = 1, options.epochs do
  local bar, sum = kiln.progress(loader, { label = "epoch " .. epoch }), 0
  for i, x, y in bar do
    sum = sum + step(x, y):item()
    schedule:step()
    bar:metric("loss %.4f", sum / i)
  end
end
local seconds = kiln.clock() - started
local share = accuracy()
print(("trained in %.1f s; %.2f %% of the %d images held out are right"):format(seconds, 100 * share, #test))
if options.epochs >= 8 and limit == 10000 then assert(share >= 0.98, "accuracy is below 98 %") end
