-- Small photographs of ten kinds of things: 5,000 of CIFAR-10's to learn from and 2,000 to test, read out of an archive of JPEG
-- files, decoded by threads. So few pictures are soon learnt by heart, so each is shifted, mirrored and changed in colour
-- at random every time it is shown. A convolutional network with batch norm; the step is captured as a whole.
--
--   kiln samples/cifar.lua [--data DIR] [--epochs N] [--limit N] [--seed N] [--eager] [--device cuda]
--
-- --limit takes fewer pictures, for a first try; --eager does not capture.
local kiln = kiln or require "kiln"
local nn, F, optim, data = kiln.nn, kiln.nn.functional, kiln.optim, kiln.data

local options = kiln.options({ epochs = 18, seed = 1, limit = 5000, eager = false, device = "cpu" }, { "data" })

-- ---- the pictures ----------------------------------------------------------------------------------------------

kiln.manual_seed(options.seed)
local began = kiln.clock()
local archive = data.find("cifar10/cifar10-jpeg-subset.tar.xz", options.data)

-- All of one part as two tensors: uint8 [count, 3, 32, 32] and classes.
local function load(part)
  local folder = data.ImageFolder(archive, { under = part })
  local order = kiln.randperm(#folder)[{ { 1, math.min(options.limit, #folder) } }]
  local loader = data.DataLoader(folder, { batch_size = 500, sampler = order, workers = 2 })
  local images, classes = {}, {}
  for i, x, y in loader:iter() do images[i], classes[i] = x, y end
  return kiln.cat(images, 1), kiln.cat(classes, 1), folder.classes
end

local mean = kiln.tensor({ 0.4914, 0.4822, 0.4465 }):reshape(1, 3, 1, 1)
local spread = kiln.tensor({ 0.2470, 0.2435, 0.2616 }):reshape(1, 3, 1, 1)
local function normal(x) return (x:float() / 255 - mean) / spread end

local train_images, train_classes, names = load "train"
local test_images, test_classes = load "test"
train_images, test_images = normal(train_images):to(options.device), normal(test_images):to(options.device)
train_classes, test_classes = train_classes:to(options.device), test_classes:to(options.device)
print(("%d pictures to learn from, %d to test, of %s; read in %.1f s"):format(#train_images, #test_images,
  table.concat(names, ", "), kiln.clock() - began))

-- ---- each time a little different ------------------------------------------------------------------------------

local EDGE, on = 4, { device = options.device }
local rows = kiln.arange(32, on):reshape(1, 32, 1)
local columns = kiln.arange(32, on):reshape(1, 1, 32)

-- Every picture of the batch shifted by up to EDGE pixels, half of them mirrored.
local function vary(x)
  local n, wide = #x, 32 + 2 * EDGE
  local down = kiln.randint(0, 2 * EDGE + 1, { n, 1, 1 }, on)
  local right = kiln.randint(0, 2 * EDGE + 1, { n, 1, 1 }, on)
  local mirrored = kiln.rand(n, 1, 1, on):lt(0.5)
  local column = kiln.where(mirrored, 31 - columns, columns)
  local places = (down + rows) * wide + right + column + 1 -- of a padded picture's pixels, from 1 on
  local pixels = F.pad(x, { EDGE, EDGE, EDGE, EDGE }):flatten(3)
  return pixels:gather(3, places:reshape(n, 1, 1024):expand(n, 3, 1024)):reshape(n, 3, 32, 32)
end

-- ---- the network -----------------------------------------------------------------------------------------------

local function block(from, to)
  return nn.Sequential(nn.Conv2d(from, to, 3, { padding = 1, bias = false }), nn.BatchNorm2d(to), nn.ReLU())
end

local net = nn.Sequential(
  block(3, 32), nn.MaxPool2d(2),
  block(32, 64), nn.MaxPool2d(2),
  block(64, 128), nn.MaxPool2d(2),
  block(128, 128), nn.AdaptiveAvgPool2d(1),
  nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, 10)):to(options.device)
print(net)

-- ---- training --------------------------------------------------------------------------------------------------

local loader = data.DataLoader(data.TensorDataset(train_images, train_classes),
  { batch_size = 64, shuffle = true, drop_last = #train_images > 64 })
local opt = optim.AdamW(net:parameters(), { lr = 0.001, weight_decay = 0.02 })
local schedule = optim.lr_scheduler.OneCycleLR(opt, { max_lr = 0.01, total_steps = options.epochs * #loader, cycle_momentum = false })

local function step(x, y)
  opt:zero_grad()
  local loss = F.cross_entropy(net(x), y, { label_smoothing = 0.05 })
  loss:backward()
  opt:step()
  return loss
end
if not options.eager then step = kiln.script(step) end

local function scores(x) return net(x) + net(x:flip { 4 }) end -- of a picture and its mirror image

local function accuracy()
  local test, right = data.TensorDataset(test_images, test_classes), kiln.metrics.Accuracy()
  net:eval()
  for _, x, y in data.DataLoader(test, { batch_size = 250 }):iter() do right:update(kiln.no_grad(scores, x), y) end
  net:train()
  return right:compute()
end

local started = kiln.clock()
for epoch = 1, options.epochs do
  local bar, sum = kiln.progress(loader, { label = "epoch " .. epoch, every = 20 }), 0
  for i, x, y in bar do
    sum = sum + step(vary(x), y):item()
    schedule:step()
    bar:metric("loss %.3f", sum / i)
  end
end
local seconds = kiln.clock() - started
local share = accuracy()
print(("trained in %.0f s; %.1f %% of the %d test pictures are right"):format(seconds, 100 * share, #test_images))
if options.epochs >= 18 and options.limit == 5000 then assert(share >= 0.55, "accuracy is below 55 %") end
