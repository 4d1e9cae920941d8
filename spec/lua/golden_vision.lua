-- kiln.vision against what torchvision answered (golden/vision.safetensors, vision_states.txt): transforms, models of reduced
-- size with made-up weights, names and sizes of the states of whole models. What was recorded is told in golden/vision.py.
local check = require "check"
local test, equal = check.test, check.equal
local M = kiln.vision.models

local here = debug.getinfo(1, "S").source:match "@(.*)/" or "."
local folder = os.getenv "KILN_SOURCE" and os.getenv "KILN_SOURCE" .. "/spec/golden/" or here .. "/../golden/"
local golden, about = kiln.from_safetensors(folder .. "vision.safetensors")

-- The largest difference, as a share of the largest value.
local function apart(a, b)
  equal(a.shape, b.shape)
  a, b = a:double(), b:double()
  return ((a - b):abs():max() / b:abs():max():clamp { min = 1e-6 }):item()
end

test("transforms give what torchvision's give", function()
  local names = { F = kiln.vision.functional, x = golden.x, u = golden.u, grey = golden.grey, tall = golden.tall }
  local loose, count = {}, 0
  for call in about["within one"]:gmatch "[^\n]+" do loose[call] = true end
  for call, want in pairs(golden) do
    if call:sub(1, 2) == "F." then
      local got = assert(load("return " .. call, call, "t", names))()
      equal(got.shape, want.shape)
      equal(got.dtype, want.dtype)
      if loose[call] then
        local off = (got:int() - want:int()):abs()
        check.truth(off:max():item() <= 1, call)
        check.truth(off:float():mean():item() < 0.25, call .. ": nearly all of it")
      elseif want.dtype == "float32" then
        local off = apart(got, want)
        check.truth(off < 2e-6, ("%s: off by %g of the largest; it"):format(call, off))
      else
        check.truth(got:equal(want), call)
      end
      count = count + 1
    end
  end
  check.truth(count > 60, "the number of calls")
end)

-- ---- models ----------------------------------------------------------------------------------------------------

-- The numbers of `noise` in vision.py.
local function noise(shape, key)
  local n = 1
  for _, s in ipairs(shape) do n = n * s end
  local i = (kiln.arange(1, n + 1) * 2654435761 + key * 97) % (1 << 32)
  i = (i ~ (i >> 15)) % (1 << 24) * 40503 % (1 << 31)
  i = (i ~ (i >> 13)) % (1 << 24) * 30011 % (1 << 31)
  return ((i >> 7) % (1 << 20)):double():reshape(shape) / (1 << 20)
end

-- What `weights` of vision.py puts into a state, by name and place.
local function made_up(state)
  local names, out = {}, {}
  for name in pairs(state) do names[#names + 1] = name end
  table.sort(names)
  for key, name in ipairs(names) do
    local t = state[name]
    if name:find "num_batches_tracked$" then
      out[name] = kiln.full(t.shape, key)
    else
      local shape, low, high = t.shape, -0.2, 0.2
      if #shape ~= 1 then
        local fan = #shape == 4 and shape[2] * shape[3] * shape[4] or shape[#shape]
        high = math.sqrt(3 / fan)
        low = -high
      elseif name:find "weight$" or name:find "running_var$" then
        low, high = 0.5, 1.5
      end
      out[name] = (noise(shape, key) * (high - low) + low):float()
    end
  end
  return out
end

local function parameter(model, name)
  for own, p in model:named_parameters() do
    if own == name then return p end
  end
  error("there is no " .. name)
end

for number = 1, 6 do
  local call = about["model " .. number]
  test("what torchvision's gives: " .. call, function()
    local model = assert(load("return " .. call, call, "t", { M = M }))()
    model:load_state_dict(made_up(model:state_dict()))
    local n, channels, size = about["images " .. number]:match "(%d+) (%d+) (%d+)"
    n, channels, size = math.tointeger(n), math.tointeger(channels), math.tointeger(size)
    local images = noise({ n, channels, size, size }, 12345):float() * 2 - 1
    local function compare(got, key, tolerance)
      local off = apart(got, golden[key])
      check.truth(off < tolerance, ("%s: off by %g of the largest; it"):format(key, off))
    end
    model:eval()
    local captured = kiln.script(model, { inputs = { kiln.spec("float32", { "N", channels, size, size }) } })
    kiln.no_grad(function()
      compare(model(images), number .. " eval", 1e-4)
      compare(captured(images), number .. " eval", 1e-4)
    end)
    model:train()
    local y = model(images)
    compare(y, number .. " train", 1e-4)
    local shares = kiln.linspace(-1, 1, y:numel()):reshape(y.shape);
    (y * shares):sum():backward()
    for key, want in pairs(golden) do
      local name = key:match("^" .. number .. " grad (.*)")
      if name then compare(parameter(model, name).grad, key, 1e-3) end
      name = key:match("^" .. number .. " buffer (.*)")
      if name then
        equal(model:state_dict()[name].dtype, want.dtype)
        compare(model:state_dict()[name], key, 1e-4)
      end
    end
  end)
end

test("states have torchvision's names and sizes", function()
  local wanted, order, at = {}, {}, nil
  for line in io.lines(folder .. "vision_states.txt") do
    local name, shape = line:match "^  (%S+) (.*)$"
    if name then
      at.state[name] = shape
    else
      local model, count = line:match "^(%S+) (%d+)$"
      at = { name = model, count = math.tointeger(count), state = {} }
      order[#order + 1], wanted[model] = at, at
    end
  end
  equal(#order, 5)
  for _, row in ipairs(order) do
    local model = M[row.name]()
    local parameters, seen = 0, 0
    for _, p in ipairs(model:parameters()) do parameters = parameters + p:numel() end
    equal(parameters, row.count)
    for name, t in pairs(model:state_dict()) do
      if row.state[name] ~= table.concat(t.shape, "x") then
        error(("%s: %s is %s, there %s"):format(row.name, name, table.concat(t.shape, "x"), tostring(row.state[name])))
      end
      seen = seen + 1
    end
    local all = 0
    for _ in pairs(row.state) do all = all + 1 end
    equal(seen, all)
  end
end)
