-- What all optimisers share: groups of parameters with options of their own, the step over them, state by position.
-- `define` makes one from its options and the update of one parameter; the files beside this one hold these.
local kiln = require "kiln"
local options = require "kiln.optim.options"
local fail, no_grad, is_tensor = kiln.fail, kiln.no_grad, kiln.is_tensor

local Optimizer = {}
local not_options = { params = true, param_names = true, initial_lr = true }

-- ---- groups ----------------------------------------------------------------------------------------------------

-- The parameters and, where they came with names, the names: from a list of tensors, a list of { name, tensor }, what
-- net:named_parameters() gives.
local function listed(class, given)
  local name = class.name
  local params, names = {}, {}
  if type(given) == "function" then
    for n, p in given do params[#params + 1], names[#names + 1] = p, n end
  elseif type(given) == "table" and not getmetatable(given) then
    for i, p in ipairs(given) do
      if type(p) == "table" and #p == 2 and type(p[1]) == "string" then p, names[i] = p[2], p[1] end
      params[i] = p
    end
  elseif type(given) == "table" and type(given.parameters) == "function" then
    fail("%s: a list of parameters is needed, got a module: pass net:parameters()", name)
  end
  if type(given) ~= "table" and type(given) ~= "function" then fail("%s: a list of parameters is needed, got %s", name, type(given)) end
  if #params == 0 then
    fail("%s: the list of parameters is empty (layers in a plain table are not found: nn.ModuleList holds them)", name)
  end
  if #names ~= 0 and #names ~= #params then fail("%s: either all parameters have names or none", name) end
  for i, p in ipairs(params) do
    if not is_tensor(p) then fail("%s: parameter %d must be a tensor, got %s", name, i, type(p)) end
    if not p.is_leaf then fail("%s: parameter %d is computed from others, so it cannot be stepped", name, i) end
  end
  return params, names[1] and names or nil
end

--- Adds { params = list, lr = …, … }: what is not said is as the optimiser was made with.
function Optimizer:add_param_group(group)
  if type(group) ~= "table" or group.params == nil then
    fail("%s: a group is a table { params = list, … }, got %s", self.name, type(group))
  end
  if self.single and #self.param_groups == 1 then fail("%s: there can be one group of parameters only", self.name) end
  local params, names = listed(self, group.params)
  local seen = {}
  for _, p in ipairs(self.parameters) do seen[p] = "is in a group already" end
  for i, p in ipairs(params) do
    if seen[p] then fail("%s: parameter %d %s", self.name, i, seen[p]) end
    seen[p] = "is listed twice"
  end
  local new = options.merge(self, self.defaults, group, not_options)
  new.params, new.param_names = params, names
  table.insert(self.param_groups, new)
  for _, p in ipairs(params) do
    table.insert(self.parameters, p)
    table.insert(self.state, {})
  end
end

local function is_groups(given)
  return type(given) == "table" and not getmetatable(given) and type(given[1]) == "table" and given[1].params ~= nil
end

local function construct(class, parameters, given)
  if parameters == nil then fail("%s: a list of parameters is needed, got nil", class.name) end
  if given ~= nil and type(given) ~= "table" then
    fail("%s: options must be a table such as { lr = 0.1 }, got %s", class.name, type(given))
  end
  if type(parameters) == "function" then -- it can be walked once only
    local pairs_of = {}
    for n, p in parameters do pairs_of[#pairs_of + 1] = { n, p } end
    parameters = pairs_of
  end
  local groups = is_groups(parameters) and parameters or { { params = parameters } }
  local self = { param_groups = {}, parameters = {}, state = {}, defaults = {}, name = class.name }
  setmetatable(self, class)
  if groups ~= parameters then listed(class, groups[1].params) end -- a bad parameter is told before a bad option
  self.defaults = options.merge(class, class.options, given or {})
  for _, group in ipairs(groups) do self:add_param_group(group) end
  return self
end

-- ---- the step --------------------------------------------------------------------------------------------------

-- Weight decay is decoupled (Loshchilov, Hutter 2019), or part of the gradient.
local function step_all(self)
  local update, states, i = self.update, self.state, 0
  for _, group in ipairs(self.param_groups) do
    for _, p in ipairs(group.params) do
      i = i + 1
      local g = p.grad
      if g then
        if group.maximize then g = -g end
        local decay = group.weight_decay
        if decay and decay ~= 0 then
          if group.decoupled_weight_decay then p:mul_(1 - group.lr * decay) else g = g + p * decay end
        end
        update(group, p, g, states[i])
      end
    end
  end
end

--- One step from the grads. Parameters without a grad stay as they are. A closure is called first, with recording on: it
--- computes the loss and the grads; its loss is returned.
function Optimizer:step(closure)
  if type(self) ~= "table" then fail("step: an optimiser is needed in front of the colon, as in opt:step()") end
  local loss
  if closure ~= nil then loss = kiln.enable_grad(closure) end
  no_grad(step_all, self)
  return loss
end

--- Takes the grads away, or with set_to_none = false fills them with zeros.
function Optimizer:zero_grad(set_to_none)
  if type(self) ~= "table" then fail("zero_grad: an optimiser is needed in front of the colon, as in opt:zero_grad()") end
  for _, p in ipairs(self.parameters) do
    if set_to_none ~= false then
      p.grad = nil
    elseif p.grad then
      p.grad = kiln.zeros_like(p)
    end
  end
end

-- ---- state -----------------------------------------------------------------------------------------------------

--- { state = { {…}, … }, param_groups = { { lr = …, params = { 1, 2, … } }, … } }: the live tensors; parameters by number.
function Optimizer:state_dict()
  local dict, n = { state = table.move(self.state, 1, #self.state, 1, {}), param_groups = {} }, 0
  for i, group in ipairs(self.param_groups) do
    local out = {}
    for key, value in pairs(group) do out[key] = value end
    out.params = {}
    for k in ipairs(group.params) do out.params[k] = n + k end
    n = n + #group.params
    dict.param_groups[i] = out
  end
  return dict
end

-- A copy that shares nothing, on the parameter's device, floating tensors in its dtype.
local function copy(value, p)
  if is_tensor(value) then
    local new = value:detach():clone()
    if new.device ~= p.device then new = new:to(p.device) end
    if new.dtype ~= p.dtype and new.dtype:find "float" then new = new:to(p.dtype) end
    return new
  end
  if type(value) ~= "table" then return value end
  local out = {}
  for k, v in pairs(value) do out[k] = copy(v, p) end
  return out
end

local function shape_text(t) return "[" .. table.concat(t.shape, ", ") .. "]" end

local function check_state(self, dict)
  if type(dict) ~= "table" or type(dict.state) ~= "table" or type(dict.param_groups) ~= "table" then
    fail("load_state_dict: what state_dict() gave is needed: a table with state and param_groups")
  end
  if #dict.param_groups ~= #self.param_groups then
    fail("load_state_dict: it holds %d groups of parameters, not %d", #dict.param_groups, #self.param_groups)
  end
  if #dict.state ~= #self.parameters then
    fail("load_state_dict: it holds the state of %d parameters, not %d", #dict.state, #self.parameters)
  end
  for i, group in ipairs(self.param_groups) do
    local from = dict.param_groups[i]
    if type(from) ~= "table" or type(from.params) ~= "table" or #from.params ~= #group.params then
      fail("load_state_dict: group %d has %d parameters, not as many as there", i, #group.params)
    end
  end
  for i, p in ipairs(self.parameters) do
    local state = dict.state[i]
    if type(state) ~= "table" then fail("load_state_dict: the state of parameter %d must be a table, got %s", i, type(state)) end
    for key, value in pairs(state) do
      if not self.single and is_tensor(value) and shape_text(value) ~= shape_text(p) then
        fail("load_state_dict: %s of parameter %d is %s there and the parameter %s", tostring(key), i, shape_text(value),
          shape_text(p))
      end
    end
  end
end

--- Takes up what state_dict gave: options and copies of the state. Nothing is changed when something does not fit.
function Optimizer:load_state_dict(dict)
  check_state(self, dict)
  local groups = {}
  for i, from in ipairs(dict.param_groups) do groups[i] = options.merge(self, self.options, from, not_options) end
  for i, group in ipairs(self.param_groups) do
    for key, value in pairs(groups[i]) do group[key] = value end
    for key in pairs(self.optional) do group[key] = groups[i][key] end
    group.initial_lr = dict.param_groups[i].initial_lr
  end
  for i, p in ipairs(self.parameters) do
    self.state[i] = no_grad(copy, dict.state[i], p)
  end
end

-- ---- classes ---------------------------------------------------------------------------------------------------

local function text(self)
  local lines = {}
  for i, group in ipairs(self.param_groups) do
    local parts, count = {}, 0
    for name in pairs(self.options) do parts[#parts + 1] = name .. " = " .. tostring(group[name]) end
    for name in pairs(self.optional) do
      if group[name] ~= nil then parts[#parts + 1] = name .. " = " .. tostring(group[name]) end
    end
    table.sort(parts)
    for _, p in ipairs(group.params) do count = count + p:numel() end
    lines[i] = ("  group %d: %d tensors, %d values; %s"):format(i, #group.params, count, table.concat(parts, ", "))
  end
  return self.name .. "\n" .. table.concat(lines, "\n")
end

--- A new optimiser: define{ name =, options = defaults by name, update = function(group, p, g, state) … end }. update steps one
--- parameter p from its gradient g; group holds the options, state is a table that starts empty. Further: optional = kinds of
--- options without default, pairs = lists of two that stand for two options, check = function(options), single = one group
--- and a step of its own. Gives what makes one: function(parameters, options).
function Optimizer.define(row)
  local class = {}
  for key, value in pairs(Optimizer) do class[key] = value end
  for key, value in pairs(row) do class[key] = value end
  class.options = {}
  for name, value in pairs(row.options) do class.options[name] = value end
  if class.options.maximize == nil then class.options.maximize = false end
  class.optional, class.pairs = row.optional or {}, row.pairs or {}
  class.__tostring = text
  -- opt.lr is that of the first group; setting it is for optimisers of one group.
  function class.__index(self, key)
    local method = class[key]
    if method ~= nil or not_options[key] then return method end
    local group = self.param_groups[1]
    return group and group[key]
  end
  function class.__newindex(self, key, value)
    if not options.has(class, key) then
      rawset(self, key, value)
    elseif #self.param_groups ~= 1 then
      fail("%s: there are %d groups: set param_groups[i].%s", class.name, #self.param_groups, key)
    else
      self.param_groups[1][key] = value
    end
  end
  return function(parameters, given) return construct(class, parameters, given) end
end

return Optimizer
