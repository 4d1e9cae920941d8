-- How often the host launches and waits for captured functions with branches and loops on a device: a call is one launch, and nobody waits
-- until somebody looks, but where an index may be out of range, which is an error of that call, or a result may be the very tensor that was
-- given. Runs where there is a device, and prints what it counted.
local check = require "check"
local loops = require "loops"
local test, equal = check.test, check.equal
if not kiln.cuda.is_available() then return end

local nn, F, on = kiln.nn, kiln.nn.functional, { device = "cuda" }

-- Launches and waits of one call, when the first ones are over; its results are not looked at. At most so many waits.
local function counts(name, most, f, ...)
  local graph = kiln.script(f)
  for _ = 1, 3 do graph(...) end
  kiln.cuda.synchronize()
  local before = kiln.cuda.launch_stats()
  graph(...)
  local after = kiln.cuda.launch_stats()
  local launches, waits = after.launches - before.launches, after.syncs - before.syncs
  print(("- %s: %d launch%s, %d wait%s"):format(name, launches, launches == 1 and "" or "es", waits, waits == 1 and "" or "s"))
  equal(launches, 1, name)
  check.truth(waits <= most, name .. " waits")
end

local function branches(x, y)
  if x:sum():item() > 0 then
    if y:amax():item() > 2 then x = x * 0.5 + y else x = (x + y):tanh() end
  else
    x = x:abs() + 1
  end
  local n = 0
  while n < 10 and x:sum():item() < 50 do
    if x[1]:item() > y[1]:item() then x = x * 1.5 + y else x = x + y:abs() + 0.5 end
    n = n + 1
  end
  return x * 2
end

test("branches and loops in each other", function()
  kiln.no_grad(counts, "a graph with branches and a loop", 0, branches, kiln.tensor({ 1.0, 2.0, 3.0 }, on), kiln.tensor({ 0.5, 1.0, 0.25 }, on))
end)

test("a loop of 1,000 trips", function()
  kiln.no_grad(counts, "a loop of 1,000 trips", 2, function(x)
    local n = 0
    while n < 1000 and x:sum():item() < 1e9 do
      x = x * 0.5 + 1
      n = n + 1
    end
    return x
  end, kiln.ones(4, on))
end)

test("greedy decoding that stops by itself", function()
  local decode = loops.decoder(8, 17, 32)
  kiln.no_grad(counts, "greedy decoding, at most 32 tokens", 2, function(token, h)
    token, h = decode(token, h)
    return token * 1, h * 1
  end, kiln.tensor({ 2 }, on), kiln.zeros(1, 8, on))
end)

test("a whole step of training", function()
  local net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)):to "cuda"
  local opt = kiln.optim.AdamW(net:parameters(), { lr = 0.01 })
  counts("a step of training by AdamW", 2, function(x, y)
    opt:zero_grad()
    local loss = F.cross_entropy(net(x), y)
    loss:backward()
    opt:step()
    return loss
  end, kiln.randn(6, 4, on), kiln.tensor({ 1, 2, 3, 1, 2, 3 }, on))
end)
