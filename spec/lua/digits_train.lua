-- The training run of samples/digits.lua, once with functions as they are and once with the step captured: every loss,
-- weight, gradient and number of the optimiser is the same to the bit, and so is the random stream. The suite trains a
-- few epochs on a part of the images; KILN_SWEEP=whole ./dev run spec/lua/run.lua digits_train does the whole of it.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth
local nn, F, optim, data = kiln.nn, kiln.nn.functional, kiln.optim, kiln.data

local whole = os.getenv "KILN_SWEEP" == "whole"
local EPOCHS = whole and 25 or 3
local KEPT = whole and math.huge or 200 -- images to learn from
local folder = (os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or ".") .. "/samples/data/"

local Net = nn.Module:extend "Net"

function Net:init()
  self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2))
  self.cheap = nn.Sequential(nn.Flatten(), nn.Linear(12 * 4 * 4, 10))
  self.deepen = nn.Sequential(nn.Conv2d(12, 32, 3, { padding = 1 }), nn.ReLU())
  self.refine = nn.Conv2d(32, 32, 3, { padding = 1 })
  self.answer = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 4 * 4, 10))
end

function Net:forward(x)
  local features = self.stem(x)
  local h = self.deepen(features)
  local deep = { self.answer(h) }
  for step = 1, 3 do
    h = h + self.refine(h):relu()
    deep[step + 1] = self.answer(h)
  end
  return self.cheap(features), deep
end

-- All that the run leaves behind, and the seconds its steps took.
local function train(script)
  kiln.manual_seed(1)
  local pixels = data.read_idx(folder .. "digits-images.idx3-ubyte")
  local count = #pixels
  local images = (pixels:float() / 16.0):reshape(count, 1, 8, 8)
  local labels = data.read_idx(folder .. "digits-labels.idx1-ubyte") + 1
  local order, held_out = kiln.randperm(count), count // 5
  local rows = order[{ { held_out + 1, math.min(count, held_out + KEPT) } }]
  local train_images, train_labels = images[rows], labels[rows]

  local net = Net()
  local opt = optim.Adam(net:parameters(), { lr = 0.003 })
  local schedule = optim.lr_scheduler.CosineAnnealingLR(opt, EPOCHS, 1e-4)
  local step = script(function(x, y)
    opt:zero_grad()
    local cheap, deep = net(x)
    local loss = F.cross_entropy(cheap, y)
    for _, scores in ipairs(deep) do loss = loss + F.cross_entropy(scores, y) / #deep end
    loss:backward()
    opt:step()
    return loss
  end)
  local left, started = {}, kiln.clock()
  for _ = 1, EPOCHS do
    for _, x, y in data.batches(64, train_images, train_labels, { shuffle = true }) do left[#left + 1] = step(x, y):item() end
    schedule:step()
  end
  local seconds, steps = kiln.clock() - started, #left
  for i, p in ipairs(net:parameters()) do
    left[#left + 1] = p:totable()
    left[#left + 1] = p.grad:totable()
    local s = opt.state[i]
    for _, v in ipairs { s.step, s.exp_avg:totable(), s.exp_avg_sq:totable() } do left[#left + 1] = v end
  end
  left[#left + 1] = opt.lr
  left[#left + 1] = kiln.rand(1):item()
  return left, seconds, steps, step
end

test(whole and "the whole run" or "a short run", function()
  local threads = kiln.get_num_threads()
  kiln.set_num_threads(1)
  kiln.use_deterministic_algorithms(true)
  local want, eager, steps = train(function(f) return f end)
  local got, captured, _, step = train(kiln.script)
  kiln.use_deterministic_algorithms(false)
  kiln.set_num_threads(threads)
  if whole then
    print(("  %d steps: eager %.2f s, captured %.2f s, first loss %.6f, last %.6f"):format(steps, eager, captured, want[1], want[steps]))
  end
  truth(want[steps] < want[1] * 0.9, "it learns")
  truth(step:captures().n <= 6, ("%d captures"):format(step:captures().n))
  local function differ(a, b, path) -- where they first differ: all of it would be megabytes of text
    if type(a) ~= "table" then return a ~= b and ("%s: %s, eager %s"):format(path, a, b) or nil end
    for i = 1, #b do
      local found = differ(a[i], b[i], path .. "." .. i)
      if found then return found end
    end
  end
  equal(differ(got, want, "result"), nil)
  truth(check.identical(got, want), "they are the same to the bit")
end)
