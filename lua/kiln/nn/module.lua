-- Module, the class that all layers and models extend, and Parameter. A module is a plain table: its tensors and its
-- parts are ordinary fields, found by looking, in the order of their names. State, hooks and text are in files of these
-- names; no layers here.
local kiln = require "kiln"
local hooks = require "kiln.nn.hooks"
local is_tensor, fail = kiln.is_tensor, kiln.fail

-- ---- parameters ------------------------------------------------------------------------------------------------

-- Tensors made to be learnt, also while they are frozen (requires_grad = false).
local is_parameter = setmetatable({}, { __mode = "k" })

--- Parameter(t [, requires_grad = true]): marks a tensor as a parameter: a module that has it as a field lists it. Returns it.
local function Parameter(t, requires_grad)
  if not is_tensor(t) then fail("Parameter: a tensor is needed, got %s", type(t)) end
  if not t.is_leaf then t = t:detach() end
  is_parameter[t] = true
  return t:requires_grad_(requires_grad ~= false)
end

-- ---- the base class --------------------------------------------------------------------------------------------

--- Module: what all layers and models are. `local Net = nn.Module:extend "Net"` makes a class; its `init` makes tensors and parts
--- as fields, its `forward` is what calling the module runs.
local Module = { name = "Module" }
Module.__index = Module

local function call(self, ...)
  if hooks.any and rawget(self, "_hooks") then return hooks.call(self, ...) end
  return self:forward(...)
end

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

--- is_module(value): whether it is a module.
local function is_module(value)
  if type(value) ~= "table" then return false end
  local class = getmetatable(value)
  return class ~= nil and type(class) == "table" and class.__call == call
end

--- module_of(value): the module that it is, or that kiln.script made a Graph of; nil for other values.
local function module_of(value)
  if is_module(value) then return value end
  if type(value) ~= "userdata" or is_tensor(value) then return nil end
  local source = kiln.graph_source(value)
  return is_module(source) and source or nil
end

-- ---- names -----------------------------------------------------------------------------------------------------

-- Field names in a fixed order: the numbers of lists first, then names.
local function sorted_keys(t)
  local keys, names = {}, {}
  for key in next, t do
    if math.type(key) == "integer" then
      keys[#keys + 1] = key
    elseif type(key) == "string" then
      names[#names + 1] = key
    end
  end
  table.sort(keys)
  table.sort(names)
  for _, name in ipairs(names) do keys[#keys + 1] = name end
  return keys
end

-- The only place that knows how fields are called in paths: entries of lists count from 0 there, as in PyTorch's states,
-- which so go from one to the other. net.layers[1].weight is "layers.0.weight".
local function full_name(path, key)
  if math.type(key) == "integer" then key = key - 1 end
  return path == "" and tostring(key) or path .. "." .. key
end

-- The field that a part of a path names.
local function field_of(module, name)
  local value = rawget(module, name)
  local number = math.tointeger(tonumber(name))
  if value == nil and number then value = rawget(module, number + 1) end
  return value
end

-- Calls visit(module, path) for this module and all below it, parents first, each once.
local function walk(module, path, seen, visit)
  if not is_module(module) then fail("a module is needed in front of the colon, as in net:parameters()") end
  if seen[module] then return end
  seen[module] = true
  visit(module, path)
  for _, key in ipairs(sorted_keys(module)) do
    local part = module_of(rawget(module, key))
    if part then walk(part, full_name(path, key), seen, visit) end
  end
end

-- "parameter", "buffer" or nothing: what the field of a module is.
local function kind_of(module, key, value)
  if not is_tensor(value) then return nil end
  local buffers = rawget(module, "_buffers")
  if buffers and buffers[key] ~= nil then return "buffer" end
  if is_parameter[value] or value.requires_grad and value.is_leaf then return "parameter" end
  return nil
end

-- A list of { name =, tensor =, module =, key =, kind = } of that kind. A tensor in two places is listed once unless `all`.
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

-- ---- looking ---------------------------------------------------------------------------------------------------

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

local function own_parts(self)
  local list, seen = {}, {}
  for _, key in ipairs(sorted_keys(self)) do
    local part = module_of(rawget(self, key))
    if part and not seen[part] then
      seen[part] = true
      list[#list + 1] = { name = full_name("", key), tensor = part, key = key }
    end
  end
  return list
end

--- The parts of this module, not those below them.
function Module:children() return tensors(own_parts(self)) end
function Module:named_children() return iterator(own_parts(self)) end

--- How many numbers the parameters hold; with `trainable`, only those that are not frozen.
function Module:num_parameters(trainable)
  local n = 0
  for _, p in ipairs(self:parameters()) do
    if p.requires_grad or not trainable then n = n + p:numel() end
  end
  return n
end

-- What is at a path from here, which has to be a module, a parameter or a buffer.
local function find(self, name, path, what)
  if type(path) ~= "string" then fail("%s: a path such as \"layers.0.weight\" is needed, got %s", name, type(path)) end
  local at, last, key = self, nil, nil
  local from = 1
  while from <= #path do
    local dot = path:find(".", from, true) or #path + 1
    local word = path:sub(from, dot - 1)
    from = dot + 1
    local found = is_module(at) and field_of(at, word)
    if not found then fail("%s: there is no '%s' in '%s'", name, word, path) end
    at, last, key = module_of(found) or found, at, word
  end
  if what == "module" and not is_module(at) then fail("%s: '%s' is no module", name, path) end
  if what ~= "module" and not (last and kind_of(last, key, at) == what) then fail("%s: '%s' is no %s", name, path, what) end
  return at
end

--- By the names that named_modules, named_parameters and named_buffers give.
function Module:get_submodule(path) return find(self, "get_submodule", path, "module") end
function Module:get_parameter(path) return find(self, "get_parameter", path, "parameter") end
function Module:get_buffer(path) return find(self, "get_buffer", path, "buffer") end

-- ---- changing --------------------------------------------------------------------------------------------------

--- A tensor that belongs to the module's state but is not learnt. { persistent = false }: not part of state_dict.
function Module:register_buffer(name, t, options)
  if not is_tensor(t) then fail("register_buffer: a tensor is needed for '%s', got %s", tostring(name), type(t)) end
  if type(options) == "table" then options = options.persistent end
  local buffers = rawget(self, "_buffers") or {}
  buffers[name] = options ~= false
  self._buffers = buffers
  self[name] = t
  return t
end

--- A parameter under a name: what an assignment does too.
function Module:register_parameter(name, t)
  self[name] = t ~= nil and Parameter(t) or nil
  return self[name]
end

--- Calls fn(module) for all parts, those below first, then for this module.
function Module:apply(fn)
  local list = self:modules()
  for i = #list, 1, -1 do fn(list[i]) end
  return self
end

function Module:train(on)
  on = on == nil or on
  walk(self, "", {}, function(part) part.training = on end)
  return self
end

function Module:eval() return self:train(false) end

function Module:requires_grad_(on)
  for _, p in ipairs(self:parameters()) do p.requires_grad = on ~= false end
  return self
end

function Module:zero_grad()
  for _, p in ipairs(self:parameters()) do p.grad = nil end
end

-- A new tensor of the same kind in the place of an old one.
local function replacement(entry, new)
  local old = entry.tensor
  if new == old or entry.kind ~= "parameter" then return new end
  new = Parameter(new, old.requires_grad)
  if old.grad then new.grad = old.grad:to(new) end
  return new
end

--- Moves parameters and buffers to a device and, those that are floating, to a dtype: to("float64"), to("cuda", "float16"),
--- to{ dtype = }. Do it before making an optimiser: it knows the tensors it was given.
function Module:to(...)
  local like = kiln.empty(0):to(...)
  if not like.dtype:find "float" then fail("to: modules are moved to floating dtypes, not to %s", like.dtype) end
  local moved = {}
  for _, entry in ipairs(collect(self, nil, true)) do
    local old = entry.tensor
    if not moved[old] then
      local new
      if old.dtype:find "float" then
        new = kiln.no_grad(old.to, old, ...)
      else
        new = old:to(like.device)
      end
      moved[old] = replacement(entry, new)
    end
    entry.module[entry.key] = moved[old]
  end
  return self
end

function Module:cuda() return self:to "cuda" end
function Module:cpu() return self:to "cpu" end
function Module:float() return self:to "float32" end
function Module:double() return self:to "float64" end
function Module:half() return self:to "float16" end
function Module:bfloat16() return self:to "bfloat16" end

local function copy_of(value, seen)
  if seen[value] then return seen[value] end
  local new = value
  if is_tensor(value) then
    new = kiln.no_grad(value.clone, value)
    if is_parameter[value] then
      new = Parameter(new, value.requires_grad)
    elseif value.requires_grad and value.is_leaf then
      new:requires_grad_()
    end
  elseif module_of(value) and not is_module(value) then
    fail("clone: there is a Graph of a %s in it, which goes on computing with that one; clone first, then kiln.script", module_of(value).name)
  elseif type(value) == "table" then
    new = setmetatable({}, getmetatable(value))
    seen[value] = new
    for key, field in next, value do new[key] = copy_of(field, seen) end
  end
  seen[value] = new
  return new
end

--- A module with its own copy of everything: tensors, parts, tables. What was shared within stays shared.
function Module:clone() return copy_of(self, {}) end

require "kiln.nn.state" (Module, collect)
Module.tostring = require("kiln.nn.text")(is_module, module_of, sorted_keys)
for name, method in pairs(hooks.methods) do Module[name] = method end
Module.__call, Module.__tostring = call, Module.tostring
setmetatable(Module, { __call = construct })

return {
  Module = Module,
  Parameter = Parameter,
  is_module = is_module,
  module_of = module_of,
  --- is_parameter(t): whether it is a tensor made to be learnt, by nn.Parameter.
  is_parameter = function(t) return is_parameter[t] or false end,
}
