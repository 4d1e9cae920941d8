-- Replays spec/golden/layers.safetensors: every layer and loss of kiln.nn against PyTorch, outputs and gradients; then the
-- same layer captured, in train and in eval, against itself eagerly. spec/golden/layers.py tells how the file is written.
-- LAYER=Conv2d runs the cases of one class.
local check = require "check"
local nn = kiln.nn
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local golden = os.getenv "KILN_SOURCE" and os.getenv "KILN_SOURCE" .. "/spec/golden/" or here .. "/../golden/"

-- Classes that have no case, and why.
local WITHOUT = {
  Module = "no layer", Sequential = "spec/lua/nn.lua", ModuleList = "spec/lua/nn.lua", ModuleDict = "spec/lua/nn_module.lua",
  ParameterList = "spec/lua/nn_module.lua", ParameterDict = "spec/lua/nn_module.lua",
}

-- Calls, by what their text has, that a graph cannot make, or of whose results it has no gradient, and what it says.
local REFUSED = { ["nn.CTCLoss({blank"] = "concatenated targets cannot be recorded" }
local NO_GRADIENT = { max_norm = "the graph overwrites 'self.weight', which requires grad" }

local tensors, metadata = kiln.from_safetensors(golden .. "layers.safetensors")
local cases = load(metadata.cases, "=cases", "t", {})()

-- ---- a case ----------------------------------------------------------------------------------------------------

local Case = {}
Case.__index = Case

function Case:tensor(name) return tensors[self.number .. "." .. name] end

--- c1, c2 … or x1, x2 …
function Case:list(letter)
  local list = {}
  while self:tensor(letter .. #list + 1) do list[#list + 1] = self:tensor(letter .. #list + 1) end
  return list
end

--- Tensors by what stands behind the prefix.
function Case:named(prefix)
  local out = {}
  prefix = self.number .. "." .. prefix
  for name, t in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then out[name:sub(#prefix + 1)] = t end
  end
  return out
end

function Case:make()
  local env = { nn = nn, kiln = kiln }
  for i, t in ipairs(self:list "c") do env["c" .. i] = t end
  local m = load("return " .. self.constructor, "=constructor", "t", env)()
  m:load_state_dict(self.state)
  return m
end

--- What calls it, with the inputs as arguments.
function Case:caller(m)
  local names = {}
  for i = 1, #self.inputs do names[i] = "x" .. i end
  names = table.concat(names, ", ")
  if self.call == ("m(%s)"):format(names) then return m end
  return load(("local m = ... return function(%s) return %s end"):format(names, self.call), "=call", "t", {})(m)
end

local function flatten(list, n, out)
  for i = 1, n do
    if type(list[i]) == "table" then flatten(list[i], #list[i], out) else out[#out + 1] = list[i] end
  end
  return out
end

local function cotangent(t, j)
  local w = {}
  for k = 0, t:numel() - 1 do w[k + 1] = ((7 * (k + 3 * j)) % 11 - 5) / 4 + 0.1 end
  return kiln.tensor(w, { dtype = t.dtype }):reshape(t.shape)
end

--- What `list` has for this case, or nil.
function Case:listed(list)
  for text, what in pairs(list) do
    if self.constructor:find(text, 1, true) then return what end
  end
end

-- Runs f: the results, and gradients by the names in the file.
function Case:run(f, m)
  local xs, leaves, names = {}, {}, {}
  for i, t in ipairs(self.inputs) do xs[i] = t end
  for _, i in ipairs(self.wants) do
    xs[i] = xs[i]:detach():clone():requires_grad_()
    leaves[#leaves + 1], names[#names + 1] = xs[i], "gx" .. i
  end
  for name, p in pairs(m:state_dict()) do
    if p.requires_grad then leaves[#leaves + 1], names[#names + 1] = p, "g:" .. name end
  end
  local packed = table.pack(f(table.unpack(xs)))
  local results, heads, weights, gradients = flatten(packed, packed.n, {}), {}, {}, {}
  for j, y in ipairs(results) do
    if y.requires_grad then heads[#heads + 1], weights[#weights + 1] = y, cotangent(y, j - 1) end
  end
  if #heads > 0 and #leaves > 0 then
    local list = kiln.grad(heads, leaves, { grad_outputs = weights, allow_unused = true })
    for i, name in ipairs(names) do gradients[name] = list[i] end
  end
  return results, gradients
end

local function close(what, got, want, tolerance)
  if got.dtype ~= want.dtype or table.concat(got.shape, ",") ~= table.concat(want.shape, ",") then
    error(("%s is %s[%s], wanted %s[%s]"):format(what, got.dtype, table.concat(got.shape, ","), want.dtype,
      table.concat(want.shape, ",")), 0)
  end
  if got:allclose(want, { rtol = tolerance, atol = tolerance, equal_nan = true }) then return end
  local far = (got:double() - want:double()):abs():max():item()
  error(("%s is off by %.3g"):format(what, far), 0)
end

local function compare(case, mode, results, gradients, recorded)
  for j, y in ipairs(results) do
    local want = case:tensor(recorded .. ".y" .. j)
    if not want then error(("%s: result %d is not in the file"):format(mode, j), 0) end
    close(("%s: result %d"):format(mode, j), y:detach(), want, 1e-5)
  end
  if case:tensor(("%s.y%d"):format(recorded, #results + 1)) then error(mode .. ": a result is missing", 0) end
  for name, want in pairs(case:named(recorded .. ".g")) do
    local got = gradients["g" .. name]
    if not got then error(("%s: no gradient g%s"):format(mode, name), 0) end
    close(("%s: gradient g%s"):format(mode, name), got, want, 1e-4)
  end
end

-- ---- against PyTorch -------------------------------------------------------------------------------------------

local function replay(case)
  local m = case:make()
  if case.modes ~= "e" then
    local results, gradients = case:run(case:caller(m), m)
    compare(case, "train", results, gradients, "t")
    local now, changed = m:state_dict(), case:named "t.a:"
    for name, before in pairs(case.state) do
      close("after training " .. name, now[name]:detach(), changed[name] or before, 1e-5)
    end
  end
  m:eval()
  local results, gradients = case:run(case:caller(m), m)
  compare(case, "eval", results, gradients, case.modes == "te" and "t" or "e")
end

-- ---- captured against eager ------------------------------------------------------------------------------------

local function same(what, a, b)
  if (a == nil) ~= (b == nil) then error(what .. (a and ": only eager has it" or ": only captured has it"), 0) end
  if a and not (a.dtype == b.dtype and a:allclose(b, { rtol = 1e-6, atol = 1e-6, equal_nan = true })) then
    error(("%s: eager and captured are off by %.3g"):format(what, (a:double() - b:double()):abs():max():item()), 0)
  end
end

local function values(case, training)
  local mode = training and "train" or "eval"
  local eager, other = case:make(), case:make()
  eager:train(training)
  other:train(training)
  local f, g = case:caller(eager), kiln.script(case:caller(other))
  for run = 1, 2 do -- once to capture, once more to run
    kiln.manual_seed(run)
    local want, want_gradients = case:run(f, eager)
    kiln.manual_seed(run)
    local got, got_gradients = case:run(g, other)
    if #want ~= #got then error(("%s: %d results eager, %d captured"):format(mode, #want, #got), 0) end
    for j in ipairs(want) do same(("%s: result %d"):format(mode, j), want[j]:detach(), got[j]:detach()) end
    for name, w in pairs(want_gradients) do same(mode .. ": gradient " .. name, w, got_gradients[name]) end
    local a, b = eager:state_dict(), other:state_dict()
    for name in pairs(a) do same(("%s: %s afterwards"):format(mode, name), a[name]:detach(), b[name]:detach()) end
  end
end

local function captured(case, training)
  local refused, none = case:listed(REFUSED), case:listed(NO_GRADIENT)
  if refused then
    local m = case:make()
    check.raises(function() case:run(kiln.script(case:caller(m)), m) end, refused)
    return
  end
  if none then
    local m = case:make():train(training)
    check.raises(function() case:run(kiln.script(case:caller(m)), m) end, none)
    kiln.no_grad(values, case, training)
    return
  end
  values(case, training)
end

-- ---- all of them -----------------------------------------------------------------------------------------------

local chosen, covered = os.getenv "LAYER", {}
local groups, order = {}, {}
for number, row in ipairs(cases) do
  local case = setmetatable({ number = number, class = row[1], constructor = row[2], call = row[3], modes = row[4], wants = row[5] }, Case)
  case.inputs, case.state = case:list "x", case:named "s:"
  if not groups[case.class] then
    groups[case.class] = {}
    order[#order + 1] = case.class
  end
  table.insert(groups[case.class], case)
end

-- Runs f on every case of a class; an error tells which it was.
local function all(class, f)
  for _, case in ipairs(groups[class]) do
    local ok, why = xpcall(f, function(why) return type(why) == "string" and why or tostring(why) end, case)
    if not ok then error(("case %d, %s %s: %s"):format(case.number, case.constructor, case.call, why), 0) end
  end
end

for _, class in ipairs(order) do
  covered[class] = true
  if not chosen or chosen == class then
    check.test(class .. " is PyTorch's", function() all(class, replay) end)
    check.test(class .. " captured", function()
      all(class, function(case) captured(case, true) captured(case, false) end)
    end)
  end
end

check.test("every class of kiln.nn is here", function()
  for name, class in pairs(nn) do
    if type(class) == "table" and rawget(class, "extend") == nil and class.extend == nn.Module.extend and not covered[name]
      and not WITHOUT[name] then
      error("kiln.nn." .. name .. " has no case in spec/golden/layers_cases.py", 0)
    end
  end
  for name in pairs(WITHOUT) do check.truth(nn[name], "kiln.nn has " .. name) end
end)
