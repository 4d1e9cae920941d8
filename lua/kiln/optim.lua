-- kiln.optim: optimisers. Each holds the parameters it was given and steps them in place from their grads, with gradient
-- recording off. State is kept by position, so state_dict is plain data and tensors.
local kiln = require "kiln"
local fail, no_grad = kiln.fail, kiln.no_grad

local optim = {}

-- ---- what they share -------------------------------------------------------------------------------------------

local Optimizer = {}
Optimizer.__index = Optimizer

local function check_parameters(name, parameters)
  if type(parameters) ~= "table" or #parameters == 0 then fail("%s: a list of parameters is needed", name) end
  for i, p in ipairs(parameters) do
    if not kiln.is_tensor(p) then fail("%s: parameter %d must be a tensor, got %s", name, i, type(p)) end
    if not p.is_leaf then fail("%s: parameter %d is computed from others, so it cannot be stepped", name, i) end
  end
end

-- The options given, over the defaults; an unknown one is an error.
local function with_defaults(name, options, defaults)
  local out = {}
  if options ~= nil and type(options) ~= "table" then
    fail("%s: options must be a table such as { lr = 0.1 }, got %s", name, type(options))
  end
  for key, value in pairs(defaults) do out[key] = value end
  for key, value in pairs(options or {}) do
    if defaults[key] == nil then
      local known = {}
      for k in pairs(defaults) do known[#known + 1] = k end
      table.sort(known)
      fail("%s: there is no option '%s'; there are %s", name, tostring(key), table.concat(known, ", "))
    end
    if type(value) ~= type(defaults[key]) then
      fail("%s: option '%s' must be a %s, got %s", name, key, type(defaults[key]), type(value))
    end
    out[key] = value
  end
  if out.nesterov and (out.momentum <= 0 or out.dampening ~= 0) then
    fail("%s: nesterov needs a momentum above 0 and no dampening", name)
  end
  if not (out.lr >= 0) then fail("%s: lr must not be negative, got %s", name, tostring(out.lr)) end
  return out
end

-- class.update(optimiser, parameter, gradient, state): one parameter, state is a table that starts empty.
local function define(name, defaults, update)
  local class = setmetatable({ name = name }, { __index = Optimizer })
  class.__index = class
  class.update = update
  optim[name] = function(parameters, options)
    check_parameters(name, parameters)
    local self = setmetatable({ parameters = {}, state = {} }, class)
    for i, p in ipairs(parameters) do
      self.parameters[i] = p
      self.state[i] = {}
    end
    for key, value in pairs(with_defaults(name, options, defaults)) do self[key] = value end
    self.defaults = defaults
    return self
  end
end

local function step_all(self)
  for i, p in ipairs(self.parameters) do
    local g = p.grad
    if g then self:update(p, g, self.state[i]) end
  end
end

--- One step from the grads. Parameters without a grad stay as they are.
function Optimizer:step() no_grad(step_all, self) end

function Optimizer:zero_grad()
  for _, p in ipairs(self.parameters) do p.grad = nil end
end

--- { options = {…}, state = { {…}, … } }: the live tensors.
function Optimizer:state_dict()
  local options = {}
  for key in pairs(self.defaults) do options[key] = self[key] end
  return { options = options, state = self.state }
end

function Optimizer:load_state_dict(dict)
  if type(dict) ~= "table" or type(dict.state) ~= "table" or type(dict.options) ~= "table" then
    fail("load_state_dict: what state_dict() gave is needed: a table with options and state")
  end
  if #dict.state ~= #self.parameters then
    fail("load_state_dict: it holds the state of %d parameters, not %d", #dict.state, #self.parameters)
  end
  for key in pairs(self.defaults) do
    if dict.options[key] ~= nil then self[key] = dict.options[key] end
  end
  for i, from in ipairs(dict.state) do
    local to = {}
    for key, value in pairs(from) do to[key] = kiln.is_tensor(value) and value:clone() or value end
    self.state[i] = to
  end
end

-- ---- the methods -----------------------------------------------------------------------------------------------

--- SGD(parameters, { lr = 0.01, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false })
define("SGD", { lr = 0.01, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false }, function(self, p, g, state)
  if self.weight_decay ~= 0 then g = g + p * self.weight_decay end
  if self.momentum ~= 0 then
    if state.velocity then
      state.velocity:mul_(self.momentum):add_(g * (1 - self.dampening))
    else
      state.velocity = g:clone()
    end
    g = self.nesterov and g + state.velocity * self.momentum or state.velocity
  end
  p:sub_(g * self.lr)
end)

-- Kingma, Ba 2015. `decoupled` weight decay: Loshchilov, Hutter 2019.
local function adam(decoupled)
  return function(self, p, g, state)
    if self.weight_decay ~= 0 then
      if decoupled then p:mul_(1 - self.lr * self.weight_decay) else g = g + p * self.weight_decay end
    end
    if not state.step then
      state.step, state.mean, state.square = 0, kiln.zeros_like(p), kiln.zeros_like(p)
    end
    state.step = state.step + 1
    state.mean:mul_(self.beta1):add_(g * (1 - self.beta1))
    state.square:mul_(self.beta2):add_(g * g * (1 - self.beta2))
    local size = self.lr / (1 - self.beta1 ^ state.step)
    local root = state.square:sqrt():mul_(1 / math.sqrt(1 - self.beta2 ^ state.step)):add_(self.eps)
    p:sub_(state.mean / root * size)
  end
end

--- Adam(parameters, { lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0 }); AdamW decays by 0.01.
define("Adam", { lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0 }, adam(false))
define("AdamW", { lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01 }, adam(true))

--- RMSprop(parameters, { lr = 0.01, alpha = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0 })
define("RMSprop", { lr = 0.01, alpha = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0 }, function(self, p, g, state)
  if self.weight_decay ~= 0 then g = g + p * self.weight_decay end
  state.square = state.square or kiln.zeros_like(p)
  state.square:mul_(self.alpha):add_(g * g * (1 - self.alpha))
  local d = g / state.square:sqrt():add_(self.eps)
  if self.momentum ~= 0 then
    state.velocity = state.velocity and state.velocity:mul_(self.momentum):add_(d) or d
    d = state.velocity
  end
  p:sub_(d * self.lr)
end)

optim.lr_scheduler = require "kiln.optim.lr_scheduler"

return optim
