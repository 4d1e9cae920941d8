-- kiln.nn: modules. A module is a plain table: its tensors and its parts are ordinary fields, found by looking, in the
-- order of their names. Forward code is written so that it captures: no coroutines, no strings made on the way.
local kiln = require "kiln"
local F = require "kiln.nn.functional"
local init = require "kiln.nn.init"
local is_tensor, fail = kiln.is_tensor, kiln.fail

local nn = { functional = F, init = init }

-- ---- parameters ------------------------------------------------------------------------------------------------

-- Tensors made to be learnt, also while they are frozen (requires_grad = false).
local is_parameter = setmetatable({}, { __mode = "k" })

--- Marks a tensor as a parameter: a module that has it as a field lists it. Returns it.
function nn.Parameter(t)
  if not is_tensor(t) then fail("Parameter: a tensor is needed, got %s", type(t)) end
  if not t.is_leaf then t = t:detach() end
  is_parameter[t] = true
  return t:requires_grad_()
end

-- ---- the base class --------------------------------------------------------------------------------------------

local Module = { name = "Module" }
Module.__index = Module
nn.Module = Module

local function call(self, ...) return self:forward(...) end

local function construct(class, ...)
  local self = setmetatable({ training = true }, class)
  self:init(...)
  return self
end

local class_meta = { __index = Module, __call = construct }

--- A new class: `local Net = nn.Module:extend("Net")`. Calling it makes a module (init gets the arguments); calling the
--- module runs its forward.
function Module:extend(name)
  if type(self) ~= "table" then fail("extend: a class is needed in front of the colon, as in nn.Module:extend(\"Net\")") end
  local class = { name = name or self.name, __call = call, __tostring = Module.tostring }
  class.__index = class
  local meta = class_meta
  if self ~= Module then meta = { __index = self, __call = construct } end
  return setmetatable(class, meta)
end

function Module:init() end

function Module:forward()
  fail("%s: this module has no forward", self.name)
end

local function is_module(value)
  if type(value) ~= "table" then return false end
  local class = getmetatable(value)
  return class ~= nil and type(class) == "table" and class.__call == call
end
nn.is_module = is_module

-- Field names in a fixed order: the numbers of lists first, then names.
local function sorted_keys(t)
  local keys = {}
  for key in next, t do
    if math.type(key) == "integer" or type(key) == "string" then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b)
    local na, nb = type(a) == "number", type(b) == "number"
    if na ~= nb then return na end
    return a < b
  end)
  return keys
end

-- Calls visit(module, path) for this module and all below it, parents first, each once.
local function walk(module, path, seen, visit)
  if not is_module(module) then fail("a module is needed in front of the colon, as in net:parameters()") end
  if seen[module] then return end
  seen[module] = true
  visit(module, path)
  for _, key in ipairs(sorted_keys(module)) do
    local part = rawget(module, key)
    if is_module(part) then walk(part, path == "" and tostring(key) or path .. "." .. key, seen, visit) end
  end
end

local function full_name(path, key)
  return path == "" and tostring(key) or path .. "." .. tostring(key)
end

-- "parameter", "buffer" or nothing: what the field of a module is.
local function kind_of(module, key, value)
  if not is_tensor(value) then return nil end
  local buffers = rawget(module, "_buffers")
  if buffers and buffers[key] then return "buffer" end
  if is_parameter[value] or value.requires_grad and value.is_leaf then return "parameter" end
  return nil
end

-- A list of { name =, tensor =, module =, key = } of that kind. A tensor in two places is listed once unless `all`.
local function collect(module, kind, all)
  local list, seen = {}, {}
  walk(module, "", {}, function(part, path)
    for _, key in ipairs(sorted_keys(part)) do
      local value = rawget(part, key)
      local found = kind_of(part, key, value)
      if found and (not kind or found == kind) and (all or not seen[value]) then
        seen[value] = true
        list[#list + 1] = { name = full_name(path, key), tensor = value, module = part, key = key, kind = found }
      end
    end
  end)
  return list
end

local function tensors(list)
  local out = {}
  for i, entry in ipairs(list) do out[i] = entry.tensor end
  return out
end

local function iterator(list)
  local i = 0
  return function()
    i = i + 1
    if list[i] then return list[i].name, list[i].tensor end
  end
end

function Module:parameters() return tensors(collect(self, "parameter")) end
function Module:buffers() return tensors(collect(self, "buffer")) end
--- `for name, tensor in net:named_parameters() do`
function Module:named_parameters() return iterator(collect(self, "parameter")) end
function Module:named_buffers() return iterator(collect(self, "buffer")) end

--- This module and all below it, as a list, parents first.
function Module:modules()
  local list = {}
  walk(self, "", {}, function(part) list[#list + 1] = part end)
  return list
end

function Module:named_modules()
  local list = {}
  walk(self, "", {}, function(part, path) list[#list + 1] = { name = path, tensor = part } end)
  return iterator(list)
end

--- A tensor that belongs to the module's state but is not learnt.
function Module:register_buffer(name, t)
  if not is_tensor(t) then fail("register_buffer: a tensor is needed for '%s', got %s", tostring(name), type(t)) end
  local buffers = rawget(self, "_buffers") or {}
  buffers[name] = true
  self._buffers = buffers
  self[name] = t
  return t
end

function Module:train(on)
  on = on == nil or on
  walk(self, "", {}, function(part) part.training = on end)
  return self
end

function Module:eval() return self:train(false) end

function Module:zero_grad()
  for _, p in ipairs(self:parameters()) do p.grad = nil end
end

--- Moves parameters and buffers to a device or, where they are floating, to a dtype. Do it before making an optimiser:
--- it knows the tensors it was given.
function Module:to(target)
  local moved = {}
  for _, entry in ipairs(collect(self, nil, true)) do
    local old = entry.tensor
    if not moved[old] then
      local floating = old.dtype:find "float" ~= nil
      local new = kiln.no_grad(function() return floating and old:to(target) or old end)
      if new ~= old and entry.kind == "parameter" then
        new = nn.Parameter(new)
        new.requires_grad = old.requires_grad
      end
      moved[old] = new
    end
    entry.module[entry.key] = moved[old]
  end
  return self
end

--- Parameters and buffers by name: the live tensors.
function Module:state_dict()
  local out = {}
  for _, entry in ipairs(collect(self, nil, true)) do out[entry.name] = entry.tensor end
  return out
end

--- Copies values in. Names must match on both sides unless { strict = false }; sizes always. Nothing is changed when
--- something does not fit.
function Module:load_state_dict(state, options)
  if type(state) ~= "table" then fail("load_state_dict: a table of tensors by name is needed, got %s", type(state)) end
  local strict = not options or options.strict ~= false
  local own, problems = self:state_dict(), {}
  for _, name in ipairs(sorted_keys(own)) do
    local new, old = state[name], own[name]
    if new == nil then
      if strict then problems[#problems + 1] = "missing " .. name end
    elseif not is_tensor(new) then
      problems[#problems + 1] = name .. " is no tensor"
    elseif table.concat(new.shape, "x") ~= table.concat(old.shape, "x") then
      problems[#problems + 1] = ("%s is [%s] there and [%s] here"):format(name, table.concat(new.shape, ", "),
        table.concat(old.shape, ", "))
    end
  end
  for _, name in ipairs(sorted_keys(state)) do
    if strict and own[name] == nil then problems[#problems + 1] = "unexpected " .. tostring(name) end
  end
  if #problems > 0 then fail("load_state_dict: %s", table.concat(problems, "; ")) end
  kiln.no_grad(function()
    for name, t in pairs(own) do
      if state[name] ~= nil then t:copy_(state[name]) end
    end
  end)
  return self
end

local function count(module)
  local n = 0
  for _, p in ipairs(module:parameters()) do n = n + p:numel() end
  return n
end

local function with_commas(n)
  local text = tostring(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (text:gsub("^,", ""))
end

local function add_lines(lines, module, label, indent, seen)
  local detail = module.extra and module:extra() or ""
  local n = count(module)
  lines[#lines + 1] = ("%s%s%s%s%s"):format(("  "):rep(indent), label, module.name,
    detail ~= "" and "(" .. detail .. ")" or "",
    n > 0 and ("  %s parameter%s"):format(with_commas(n), n == 1 and "" or "s") or "")
  if seen[module] then
    lines[#lines] = lines[#lines] .. "  (shown above)"
    return
  end
  seen[module] = true
  for _, key in ipairs(sorted_keys(module)) do
    local part = rawget(module, key)
    if is_module(part) then add_lines(lines, part, tostring(key) .. ": ", indent + 1, seen) end
  end
end

--- The tree of parts with their parameter counts.
function Module:tostring()
  local lines = {}
  add_lines(lines, self, "", 0, {})
  return table.concat(lines, "\n")
end
Module.__call, Module.__tostring = call, Module.tostring
setmetatable(Module, { __call = construct })

-- ---- layers ----------------------------------------------------------------------------------------------------

local function need_count(class, what, n)
  if math.type(n) ~= "integer" or n < 1 then
    fail("%s: %s must be a positive integer, got %s", class, what, type(n) == "string" and ("%q"):format(n) or tostring(n))
  end
  return n
end

--- Linear(inputs, outputs [, { bias = true }]): x times weight transposed, plus bias.
local Linear = Module:extend "Linear"
nn.Linear = Linear
function Linear:init(inputs, outputs, options)
  need_count("Linear", "the number of inputs", inputs)
  need_count("Linear", "the number of outputs", outputs)
  self.weight = nn.Parameter(init.kaiming_uniform(kiln.empty(outputs, inputs), math.sqrt(5)))
  if not options or options.bias ~= false then
    self.bias = nn.Parameter(init.uniform(kiln.empty(outputs), -1 / math.sqrt(inputs), 1 / math.sqrt(inputs)))
  end
end
function Linear:forward(x) return kiln.linear(x, self.weight, self.bias) end
function Linear:extra() return ("%d -> %d%s"):format(self.weight:size(2), self.weight:size(1), self.bias and "" or ", no bias") end

-- Layers without state: one op on one tensor.
for name, op in pairs { ReLU = kiln.relu, Tanh = kiln.tanh, Sigmoid = kiln.sigmoid, GELU = kiln.gelu, SiLU = kiln.silu,
                        Softplus = kiln.softplus } do
  local Layer = Module:extend(name)
  nn[name] = Layer
  function Layer:forward(x) return op(x) end
end

--- Softmax([dim = -1]), LogSoftmax the same.
for name, op in pairs { Softmax = kiln.softmax, LogSoftmax = kiln.log_softmax } do
  local Layer = Module:extend(name)
  nn[name] = Layer
  function Layer:init(dim) self.dim = dim or -1 end
  function Layer:forward(x) return op(x, self.dim) end
  function Layer:extra() return "dim " .. self.dim end
end

--- Flatten([first = 2, last = -1]): those dimensions made one; the batch stays by default.
local Flatten = Module:extend "Flatten"
nn.Flatten = Flatten
function Flatten:init(first, last) self.first, self.last = first or 2, last or -1 end
function Flatten:forward(x) return kiln.flatten(x, self.first, self.last) end

--- Dropout([p = 0.5]): only while training.
local Dropout = Module:extend "Dropout"
nn.Dropout = Dropout
function Dropout:init(p)
  self.p = p or 0.5
  if type(self.p) ~= "number" or self.p < 0 or self.p >= 1 then
    fail("Dropout: the probability must be in [0, 1), got %s", tostring(p))
  end
end
function Dropout:forward(x)
  if self.training then return kiln.dropout(x, self.p, true) end
  return x
end
function Dropout:extra() return tostring(self.p) end

--- Embedding(entries, width): rows of its weight at 1-based indices.
local Embedding = Module:extend "Embedding"
nn.Embedding = Embedding
function Embedding:init(entries, width)
  need_count("Embedding", "the number of entries", entries)
  need_count("Embedding", "the width", width)
  self.weight = nn.Parameter(kiln.randn(entries, width))
end
function Embedding:forward(index) return kiln.embedding(self.weight, index) end
function Embedding:extra() return ("%d x %d"):format(self.weight:size(1), self.weight:size(2)) end

-- ---- containers ------------------------------------------------------------------------------------------------

local function fill_list(self, name, list, callable)
  if type(list) ~= "table" then fail("%s: a list of modules is needed, got %s", name, type(list)) end
  for i, part in ipairs(list) do
    if not is_module(part) and not (callable and type(part) == "function") then
      fail("%s: entry %d must be a module, got %s", name, i, type(part))
    end
    self[i] = part
  end
end

--- Sequential(a, b, …) or Sequential{ a, b, … }: one after the other. Entries may be plain functions too.
local Sequential = Module:extend "Sequential"
nn.Sequential = Sequential
function Sequential:init(first, ...)
  local list = { first, ... }
  if select("#", ...) == 0 and type(first) == "table" and not is_module(first) then list = first end
  fill_list(self, "Sequential", list, true)
end
function Sequential:forward(x)
  for i = 1, #self do x = self[i](x) end
  return x
end

--- ModuleList{ a, b, … }: modules in a list, for code that calls them itself.
local ModuleList = Module:extend "ModuleList"
nn.ModuleList = ModuleList
function ModuleList:init(list) fill_list(self, "ModuleList", list or {}) end
function ModuleList:append(part)
  if not is_module(part) then fail("ModuleList: a module is needed, got %s", type(part)) end
  self[#self + 1] = part
  return self
end

-- ---- losses ----------------------------------------------------------------------------------------------------

--- CrossEntropyLoss([{ reduction = "mean" }]) and the like: modules that call the function of the same name.
for name, op in pairs { CrossEntropyLoss = F.cross_entropy, NLLLoss = F.nll_loss, MSELoss = F.mse_loss, L1Loss = F.l1_loss,
                        BCELoss = F.binary_cross_entropy, BCEWithLogitsLoss = F.binary_cross_entropy_with_logits } do
  local Loss = Module:extend(name)
  nn[name] = Loss
  function Loss:init(options) self.reduction = options and options.reduction or "mean" end
  function Loss:forward(x, target) return op(x, target, self.reduction) end
end

-- ---- parts in files of their own -------------------------------------------------------------------------------

for _, part in ipairs { "conv", "pool", "rnn" } do require("kiln.nn." .. part)(nn) end

return nn
