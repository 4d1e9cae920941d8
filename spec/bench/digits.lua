-- The early-exit network of samples/digits.lua, with fixed random weights: an image that the cheap head answers, and
-- one that goes through the deep head and three refinements, eager and captured, with oneDNN and with ref; and one
-- training step. The thresholds are arguments, so each road can be forced.
local nn, optim, F = kiln.nn, kiln.optim, kiln.nn.functional

local function best(repeats, f)
  for _ = 1, 10 do f() end
  local least = math.huge
  for _ = 1, 7 do
    local from = kiln.clock()
    for _ = 1, repeats do f() end
    least = math.min(least, (kiln.clock() - from) / repeats)
  end
  return least * 1e6
end

kiln.manual_seed(7)
local stem = nn.Sequential(nn.Conv2d(1, 12, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2))
local cheap = nn.Sequential(nn.Flatten(), nn.Linear(12 * 4 * 4, 10))
local deepen = nn.Sequential(nn.Conv2d(12, 32, 3, { padding = 1 }), nn.ReLU())
local refine = nn.Conv2d(32, 32, 3, { padding = 1 })
local answer = nn.Sequential(nn.Flatten(), nn.Linear(32 * 4 * 4, 10))

local function predict(x, sure, settled)
  local features = stem(x)
  local chances = cheap(features):softmax(2)
  local confidence = chances:amax():item()
  if confidence >= sure then return chances:argmax():item(), 0 end
  local h = deepen(features)
  chances = answer(h):softmax(2)
  confidence = chances:amax():item()
  local steps = 0
  while confidence < settled and steps < 3 do
    h = h + refine(h):relu()
    chances = answer(h):softmax(2)
    confidence = chances:amax():item()
    steps = steps + 1
  end
  return chances:argmax():item(), steps
end

local backend = os.getenv "KILN_BACKEND" or kiln.backends()[1].name
local image = kiln.rand(1, 1, 8, 8)
local graph = kiln.script(predict, { inputs = { kiln.spec("float32", { 1, 1, 8, 8 }), "float", "float" } })

for _, road in ipairs { { "early exit", 0.0 }, { "deep, 3 rounds", 2.0 } } do
  local name, threshold = table.unpack(road)
  local function eager() return predict(image, threshold, threshold) end
  local function captured() return graph(image, threshold, threshold) end
  local class, steps
  kiln.no_grad(function() class, steps = eager() end)
  local class2, steps2 = captured()
  assert(class == class2 and steps == steps2, "eager and captured disagree")
  local base
  kiln.no_grad(function() base = best(300, eager) end)
  local ours
  kiln.no_grad(function() ours = best(300, captured) end)
  print(("%-8s %-16s eager    %8.1f us"):format(backend, name, base))
  print(("%-8s %-16s captured %8.1f us   %5.2f x as fast"):format(backend, name, ours, base / ours))
end

do
  local x, y = kiln.rand(64, 1, 8, 8), kiln.randint(1, 11, { 64 })
  local parameters = {}
  for _, part in ipairs { stem, cheap, deepen, answer } do
    for _, p in ipairs(part:parameters()) do parameters[#parameters + 1] = p end
  end
  local opt = optim.SGD(parameters, { lr = 0.01, momentum = 0.9 })
  local function step()
    opt:zero_grad()
    local features = stem(x)
    local loss = F.cross_entropy(cheap(features), y) + F.cross_entropy(answer(deepen(features)), y)
    loss:backward()
    opt:step()
  end
  print(("%-8s %-16s eager    %8.1f us"):format(backend, "step, batch 64", best(20, step)))
end

-- The same with the reference backend, in a process of its own.
if backend ~= "ref" then
  local pipe = assert(io.popen(("KILN_BACKEND=ref '%s' '%s'"):format(arg[-1], arg[0])))
  for line in pipe:lines() do print(line) end
  assert(pipe:close(), "the run with ref failed")
end
