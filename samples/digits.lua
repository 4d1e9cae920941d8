-- Handwritten digits, from training to a file that runs without Lua. A small convolutional network with two heads learns
-- 8 x 8 images; its `predict` answers at once when the cheap head is confident, and otherwise thinks further: a block that
-- is applied again and again until the deep head is confident. That function, with its branch and its loop, is captured
-- as a graph, printed, verified, saved and loaded again.
--
--   kiln samples/digits.lua [--data DIR] [--epochs N] [--seed N] [--limit N] [--save FILE.kiln] [--quiet]
--                           [--predictions FILE] [--export DIR] [--device cuda]
--
-- --predictions writes what eager predict says of each test image, a line each: class confidence deep. --export writes
-- the test images and labels: as IDX files, and all images in one .npy file.
local kiln = kiln or require "kiln"
local nn, F, optim, data = kiln.nn, kiln.nn.functional, kiln.optim, kiln.data

-- ---- options ---------------------------------------------------------------------------------------------------

local options = kiln.options({ epochs = 25, seed = 1, limit = 1 << 20, quiet = false, device = "cpu" }, { "data", "save", "predictions", "export" })

local function say(...)
  if not options.quiet then print(...) end
end

-- ---- the data: a fifth is held out -----------------------------------------------------------------------------

kiln.manual_seed(options.seed)
-- So small images leave a second thread little to do but wait.
if not os.getenv "KILN_NUM_THREADS" then kiln.set_num_threads(1) end
local pixels = data.read_idx(data.find("digits-images.idx3-ubyte", options.data))
local digits = data.read_idx(data.find("digits-labels.idx1-ubyte", options.data))
local images = (pixels:float() / 16.0):reshape(#pixels, 1, 8, 8) -- black is 16
local labels = digits + 1 -- classes count from 1

local order, count = kiln.randperm(#pixels), math.min(#pixels, options.limit)
local held_out = count // 5
local test_rows, train_rows = order[{ { 1, held_out } }], order[{ { held_out + 1, count } }]
local function part(rows) return images[rows]:to(options.device), labels[rows]:to(options.device) end
local test_images, test_labels = part(test_rows)
local train_images, train_labels = part(train_rows)
say(("%d images of 8 x 8 pixels: %d to learn from, %d to test"):format(count, #train_images, #test_images))

-- ---- the network -----------------------------------------------------------------------------------------------

local SURE = 0.9    -- the cheap head answers from this confidence on
local SETTLED = 0.9 -- the deep head goes on refining below this one …
local MOST = 3      -- … at most so many times

local Net = nn.Module:extend "Net"

function Net:init()
  self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2))
  self.cheap = nn.Sequential(nn.Flatten(), nn.Linear(12 * 4 * 4, 10))
  self.deepen = nn.Sequential(nn.Conv2d(12, 32, 3, { padding = 1 }), nn.ReLU())
  self.refine = nn.Conv2d(32, 32, 3, { padding = 1 })
  self.answer = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 4 * 4, 10))
end

-- One more look: the same weights each time, so it can be repeated.
function Net:again(h) return h + self.refine(h):relu() end

-- For training: the scores of the cheap head, and of the deep head after each refinement.
function Net:forward(x)
  local features = self.stem(x)
  local h = self.deepen(features)
  local deep = { self.answer(h) }
  for step = 1, MOST do
    h = self:again(h)
    deep[step + 1] = self.answer(h)
  end
  return self.cheap(features), deep
end

-- For one image [1, 1, 8, 8]: class (1 … 10), confidence, and whether the deep part was asked.
function Net:predict(x)
  local features = self.stem(x)
  local chances = self.cheap(features):softmax(2)
  local confidence = chances:amax():item()
  if confidence >= SURE then return chances:argmax():item(), confidence, false end

  local h = self.deepen(features)
  chances = self.answer(h):softmax(2)
  confidence = chances:amax():item()
  local steps = 0
  while confidence < SETTLED and steps < MOST do
    h = self:again(h)
    chances = self.answer(h):softmax(2)
    confidence = chances:amax():item()
    steps = steps + 1
  end
  return chances:argmax():item(), confidence, true
end

local net = Net():to(options.device)
say(net)

-- ---- training: both heads at once ------------------------------------------------------------------------------

local started = kiln.clock()
local opt = optim.Adam(net:parameters(), { lr = 0.003 })
local schedule = optim.lr_scheduler.CosineAnnealingLR(opt, options.epochs, 1e-4)
local progress = not options.quiet and kiln.progress(options.epochs, { label = "training" })
for _ = 1, options.epochs do
  local sum, batches = 0, 0
  for _, x, y in data.batches(64, train_images, train_labels, { shuffle = true }) do
    opt:zero_grad()
    local cheap, deep = net(x)
    local loss = F.cross_entropy(cheap, y)
    for _, scores in ipairs(deep) do loss = loss + F.cross_entropy(scores, y) / #deep end
    loss:backward()
    opt:step()
    sum, batches = sum + loss:item(), batches + 1
  end
  schedule:step()
  if progress then progress:step(("loss %.3f"):format(sum / batches)) end
end
if progress then progress:done() end
say(("trained in %.1f s"):format(kiln.clock() - started))

-- ---- capture, print, verify, save, load ------------------------------------------------------------------------

net:eval()
local function predict(x) return net:predict(x) end
local graph = kiln.script(predict, { inputs = { kiln.spec("float32", { 1, 1, 8, 8 }, { device = options.device }) } })
say("\nthe captured graph:\n" .. graph:code())

local function default_path()
  local top = arg[0]:match "^(.*)/samples/[^/]*$" or arg[0]:find "^samples/" and "." or ".."
  local file = io.open(top .. "/build/digits.kiln", "ab")
  if not file then return "digits.kiln" end
  file:close()
  return top .. "/build/digits.kiln"
end
local path = options.save or default_path()
graph:save(path)
local loaded = kiln.load(path)
for i = 1, 20 do graph:verify(test_images[{ { i, i } }], { rtol = 1e-4, atol = 1e-5 }) end
say(("verified against eager on 20 images; saved as %s"):format(path))

-- ---- the test set, three ways ----------------------------------------------------------------------------------

local rows = {}
for i = 1, held_out do rows[i] = { image = test_images[{ { i, i } }], label = test_labels[i]:item() } end

-- Answers for all test images, and the seconds one takes (the fastest of three rounds).
local function run(f)
  local answers, best = {}, math.huge
  for _ = 1, 3 do
    local from = kiln.clock()
    kiln.no_grad(function()
      for i, row in ipairs(rows) do answers[i] = table.pack(f(row.image)) end
    end)
    best = math.min(best, (kiln.clock() - from) / #rows)
  end
  return answers, best
end

local function report(name, answers, seconds)
  local right, early = 0, 0
  for i, a in ipairs(answers) do
    if a[1] == rows[i].label then right = right + 1 end
    if not a[3] then early = early + 1 end
  end
  print(("%-15s %6.2f %%   %4d of %d   %7.1f us"):format(name, 100 * right / #rows, early, #rows, seconds * 1e6))
  return right / #rows, early
end

print(("%-15s %8s   %11s   %10s"):format("", "accuracy", "early exits", "an image"))
local eager, eager_seconds = run(predict)
local accuracy, early = report("eager", eager, eager_seconds)
local by_graph, graph_seconds = run(graph)
report("graph", by_graph, graph_seconds)
local by_loaded, loaded_seconds = run(loaded)
report("reloaded graph", by_loaded, loaded_seconds)

-- A confidence so close to where the branch or the loop decides may fall on either side when rounding differs.
local function near(x) return math.abs(x - SURE) < 1e-5 or math.abs(x - SETTLED) < 1e-5 end
local close, different = 0, 0
kiln.no_grad(function()
  for i, row in ipairs(rows) do
    local cheap, deep = net(row.image)
    local doubtful = near(cheap:softmax(2):amax():item())
    for _, scores in ipairs(deep) do doubtful = doubtful or near(scores:softmax(2):amax():item()) end
    if doubtful then close = close + 1 end
    for _, other in ipairs { by_graph[i], by_loaded[i] } do
      local same = other[1] == eager[i][1] and other[3] == eager[i][3] and math.abs(other[2] - eager[i][2]) < 1e-4
      if not same and not doubtful then different = different + 1 end
    end
  end
end)
print(("%d images within 1e-5 of a threshold; %d answers differ from eager"):format(close, different))

-- ---- for other programs ----------------------------------------------------------------------------------------

if options.predictions then
  local file = assert(io.open(options.predictions, "w"))
  for _, a in ipairs(eager) do file:write(("%d %.9g %s\n"):format(a[1], a[2], a[3])) end
  assert(file:close())
end

if options.export then
  local function write_idx(name, t)
    local file = assert(io.open(options.export .. "/" .. name, "wb"))
    file:write(string.pack(">I2BB", 0, 8, t:dim()))
    for _, size in ipairs(t.shape) do file:write(string.pack(">I4", size)) end
    for _, value in ipairs(t:reshape(-1):totable()) do file:write(string.char(value)) end
    assert(file:close())
  end
  write_idx("digits-images.idx3-ubyte", pixels[test_rows])
  write_idx("digits-labels.idx1-ubyte", digits[test_rows])
  kiln.to_npy(options.export .. "/images.npy", test_images)
end

assert(different == 0, "the graph and eager disagree")
if options.epochs >= 15 then
  assert(accuracy >= 0.97, "accuracy is below 97 %")
  assert(early > 0 and early < #rows, "both sides of the branch should be taken")
end

return { eager = eager_seconds, graph = graph_seconds, loaded = loaded_seconds } -- for spec/bench
