-- Every optimiser and every learning rate schedule against what PyTorch recorded in spec/golden/optim.txt, line after line.
-- Stopped half way and taken up by others through state_dict, each must give the same to the bit.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth
local optim, T = kiln.optim, kiln.tensor

local folder = (os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or ".") .. "/spec/golden/"
local TOLERANCE = { float64 = 1e-10, float32 = 1e-5 } -- of values near 1 or below; greater ones relatively
-- L-BFGS divides by differences of gradients, so roundings of float32 grow from step to step, tenfold in two or three.
local LOOSE = { LBFGS = 5e-4 }

local functions = {
  slower = function(e) return 0.95 ^ e end,
  less = function(e) return 1 - 1 / (e + 2) end,
  wave = function(e) return 1 / (1 + e % 5) end,
}

-- ---- the file --------------------------------------------------------------------------------------------------

local function numbers(line)
  local list = {}
  for word in line:gmatch "%S+" do list[#list + 1] = tonumber(word) end
  return list
end

-- Two tables written one behind the other.
local function two_tables(text)
  local first, second = text:match "^(%b{})%s*(.*)$"
  return assert(load("return " .. first))(), second ~= "" and assert(load("return " .. second))() or nil, text
end

local cases = {}
for line in io.lines(folder .. "optim.txt") do
  local word, rest = line:match "^(%a+) (.*)$"
  if word == "optimizer" or word == "scheduler" then
    local a, b, options = rest:match "^(%S+) (%S+) (.-)%s*$"
    cases[#cases + 1] = { kind = word, a, b, options }
  elseif word then
    cases[#cases][word] = numbers(rest)
  end
end

local function compare(what, got, want, tolerance)
  equal(#got, #want)
  for i, w in ipairs(want) do
    local scale = math.max(1, math.abs(w))
    truth(math.abs(got[i] - w) <= tolerance * scale, ("%s %d is %.17g, PyTorch's %.17g: that it is within %g"):format(what, i, got[i], w,
      tolerance))
  end
end

-- ---- optimisers ------------------------------------------------------------------------------------------------

local function problem(dtype)
  local o = { dtype = dtype }
  local a, b, c = T({ 1.0, -2.0, 0.5 }, o), T({ { 0.5, -1.0, 2.0 }, { 1.5, 0.25, -0.75 } }, o), T(0.3, o)
  local y = T({ 1.0, -0.5 }, o)
  for _, p in ipairs { a, b, c } do p:requires_grad_() end
  return { a, b, c }, function()
    local r = kiln.matmul(b, a) + c - y
    return (r * r):sum() + a:pow(4):sum() * 0.1 + kiln.sin(c)
  end
end

local function make(name, options, second, dtype)
  local params, loss_of = problem(dtype)
  local groups = params
  if second then
    local other = { params = { params[2], params[3] } }
    for k, v in pairs(second) do other[k] = v end
    groups = { { params = { params[1] } }, other }
  end
  local opt = optim[name](groups, options)
  local function step()
    return opt:step(function()
      opt:zero_grad()
      local loss = loss_of()
      loss:backward()
      return loss
    end):item()
  end
  return step, params, opt
end

local function flat(params)
  local out = {}
  for _, p in ipairs(params) do
    for _, v in ipairs(p:detach():reshape(-1):totable()) do out[#out + 1] = v end
  end
  return out
end

local function optimizer(case)
  local name, dtype = case[1], case[2]
  local options, second = two_tables(case[3])
  local tolerance = dtype == "float32" and LOOSE[name] or TOLERANCE[dtype]
  local step, params, opt = make(name, options, second, dtype)
  local losses, again = {}, nil
  for i = 1, #case.losses do
    losses[i] = step()
    if i == 7 then
      local other, others, opt2 = make(name, { lr = 9 }, second and {}, dtype)
      kiln.no_grad(function()
        for k, p in ipairs(others) do p:copy_(params[k]) end
      end)
      opt2:load_state_dict(opt:state_dict())
      again = { step = other, params = others }
    elseif again then
      equal(again.step(), losses[i])
    end
  end
  compare("loss", losses, case.losses, tolerance)
  compare("value", flat(params), case["end"], tolerance)
  equal(flat(again.params), flat(params))
end

-- ---- schedules -------------------------------------------------------------------------------------------------

local function named(value)
  if type(value) ~= "table" then return functions[value] end
  local list = {}
  for i, v in ipairs(value) do list[i] = functions[v] end
  return list
end

local function schedule(opt, name, arguments)
  local given = {}
  for key, value in pairs(arguments) do
    if key == "lr_lambda" or key == "scale_fn" then
      given[key] = named(value)
    elseif key == "parts" then
      given.schedulers = {}
      for i, part in ipairs(value) do given.schedulers[i] = schedule(opt, part[1], part[2]) end
    else
      given[key] = value
    end
  end
  if name == "ChainedScheduler" then return optim.lr_scheduler.ChainedScheduler(given.schedulers, opt) end
  return optim.lr_scheduler[name](opt, given)
end

local function with_schedule(case)
  local function parameter() return kiln.zeros(1):requires_grad_() end
  local opt = optim[case[1]]({ { params = { parameter() } }, { params = { parameter() }, lr = 0.02 } }, { lr = 0.1 })
  return opt, schedule(opt, case[2], (two_tables(case[3])))
end

local function scheduler(case)
  local opt, s = with_schedule(case)
  local opt2, s2
  local first, second, momenta = {}, {}, {}
  local function note(k)
    local one, two = opt.param_groups[1], opt.param_groups[2]
    first[k], second[k], momenta[k] = one.lr, two.lr, one.momentum or one.beta1
    if k > 1 then equal(s:get_last_lr(), { one.lr, two.lr }) end
    if opt2 then
      equal(opt2.param_groups[1].lr, one.lr)
      equal(opt2.param_groups[2].lr, two.lr)
      equal(opt2.param_groups[1].momentum or opt2.param_groups[1].beta1, momenta[k])
    end
  end
  note(1)
  for k = 1, #case.first - 1 do
    for _, one in ipairs { s, s2 } do
      if case[2] == "ReduceLROnPlateau" then one:step((k * 7919 % 31) / 31 + 1 / (k + 1)) else one:step() end
    end
    note(k + 1)
    if k == 17 then -- the order PyTorch asks for, and the other one
      opt2, s2 = with_schedule(case)
      s2:load_state_dict(s:state_dict())
      if #case[3] % 2 == 0 then opt2:load_state_dict(opt:state_dict()) end
    end
  end
  compare("rate", first, case.first, 1e-12)
  if case.second then
    compare("rate of group 2", second, case.second, 1e-12)
  else
    for k, v in ipairs(first) do truth(math.abs(second[k] - v / 5) < 1e-12, "a fifth in group 2") end
  end
  if case.momentum then compare("momentum", momenta, case.momentum, 1e-12) end
end

truth(#cases >= 90, "the file holds all cases")
for _, case in ipairs(cases) do
  test(table.concat(case, " ", 1, 3), function()
    if case.kind == "optimizer" then optimizer(case) else scheduler(case) end
  end)
end
