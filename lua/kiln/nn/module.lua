-- Module, the class that all layers and models extend, and Parameter. A module is a plain table: its tensors and its
-- parts are ordinary fields, found by looking, in the order of their names. No layers here.
local kiln = require "kiln"
local is_tensor, fail = kiln.is_tensor, kiln.fail

-- ---- parameters ------------------------------------------------------------------------------------------------

-- Tensors made to be learnt, also while they are frozen (requires_grad = false).
local is_parameter = setmetatable({}, { __mode = "k" })

--- Marks a tensor as a parameter: a module that has it as a field lists it. Returns it.
local function Parameter(t)
  if not is_tensor(t) then fail("Parameter: a tensor is needed, got %s", type(t)) end
  if not t.is_leaf then t = t:detach() end
  is_parameter[t] = true
  return t:requires_grad_()
end

-- ---- the base class --------------------------------------------------------------------------------------------

local Module = { name = "Module" }
Module.__index = Module

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
        new = Parameter(new)
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

return { Module = Module, Parameter = Parameter, is_module = is_module }
