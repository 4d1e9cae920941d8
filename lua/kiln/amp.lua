-- kiln.amp: mixed precision with float16, whose gradients may be too small for it: the loss is scaled up, gradients down again.
-- kiln.autocast chooses the dtypes; bfloat16 needs no scaler. All of a scaler's state is tensors, so that steps can be captured.
local kiln = require "kiln"
local fail, no_grad, is_tensor = kiln.fail, kiln.no_grad, kiln.is_tensor

local Scaler = {}
Scaler.__index = Scaler

local defaults = { init_scale = 65536.0, growth_factor = 2.0, backoff_factor = 0.5, growth_interval = 2000, enabled = true, device = "cpu" }

--- GradScaler([{ init_scale = 65536, growth_factor = 2, backoff_factor = 0.5, growth_interval = 2000, enabled = true,
--- device = "cpu" }]): scaler:scale(loss):backward(), scaler:step(opt), scaler:update(). Steps whose gradients are not finite
--- are left out, and the scale goes down; it goes up after growth_interval steps that were not. device is the losses'.
local function make(given)
  if given ~= nil and type(given) ~= "table" then fail("GradScaler: options must be a table, got %s", type(given)) end
  local self = {}
  for key, value in pairs(defaults) do self[key] = value end
  for key, value in pairs(given or {}) do
    if defaults[key] == nil then fail("GradScaler: there is no option '%s'", tostring(key)) end
    if type(value) ~= type(defaults[key]) then fail("GradScaler: %s must be a %s, got %s", key, type(defaults[key]), type(value)) end
    self[key] = value
  end
  local on = { device = self.device }
  self.factor, self.streak, self.found = kiln.full({}, self.init_scale + 0.0, on), kiln.zeros({}, on), kiln.zeros({}, on)
  return setmetatable(self, Scaler)
end

local function parameters_of(name, opt)
  if type(opt) ~= "table" or type(opt.parameters) ~= "table" then fail("%s: an optimiser is needed, got %s", name, type(opt)) end
  return opt.parameters
end

--- The loss times the scale: what to call backward of. A list of losses gives a list.
function Scaler:scale(loss)
  if not self.enabled then return loss end
  if type(loss) == "table" then
    local out = {}
    for i, one in ipairs(loss) do out[i] = self:scale(one) end
    return out
  end
  if not is_tensor(loss) then fail("scale: a loss is needed, got %s", type(loss)) end
  if loss.device ~= self.device then
    fail("scale: the loss is on %s and the scaler on %s; make it with { device = \"%s\" }", loss.device, self.device, loss.device)
  end
  return loss * self.factor
end

--- The gradients of the optimiser's parameters over the scale, for who wants to clip them before step, which does it otherwise.
function Scaler:unscale_(opt)
  if not self.enabled then return end
  if rawget(parameters_of("unscale_", opt) and opt, "found_inf") then fail("unscale_: that was done since the last update()") end
  no_grad(function()
    local inverse, found = 1 / self.factor, kiln.zeros_like(self.found)
    for i, p in ipairs(opt.parameters) do
      if p.grad then
        if p.dtype == "float16" then
          fail("unscale_: parameter %d is float16: it must be float32, kiln.autocast casts what is computed with it", i)
        end
        p.grad = p.grad * inverse
        found = kiln.maximum(found, p.grad:isfinite():all():logical_not():to(found.dtype))
      end
    end
    opt.found_inf = found
    self.found:copy_(kiln.maximum(self.found, found))
  end)
end

--- opt:step(), unless a gradient is infinite or nan; unscales them first where that was not done.
function Scaler:step(opt)
  parameters_of("step", opt)
  if not self.enabled then return opt:step() end
  if not rawget(opt, "found_inf") then self:unscale_(opt) end
  local found = opt.found_inf
  opt.found_inf = nil
  if found:item() == 0 then opt:step() end
end

--- The scale for the next step: less where a gradient was not finite, more after growth_interval steps without that.
function Scaler:update()
  if not self.enabled then return end
  no_grad(function()
    local bad, streak = self.found:gt(0), self.streak + 1
    local grown, grows = self.factor * self.growth_factor, streak:ge(self.growth_interval)
    grown = kiln.where(grows:logical_and(grown:isfinite()), grown, self.factor)
    self.factor:copy_(kiln.where(bad, self.factor * self.backoff_factor, grown))
    self.streak:copy_(kiln.where(bad:logical_or(grows), 0.0, streak))
    self.found:zero_()
  end)
end

--- The scale, as a number.
function Scaler:get_scale() return self.enabled and self.factor:item() or 1.0 end

--- { scale =, growth_tracker = } and the options.
function Scaler:state_dict()
  return { scale = self.factor:item(), growth_tracker = self.streak:item(), growth_factor = self.growth_factor,
    backoff_factor = self.backoff_factor, growth_interval = self.growth_interval }
end

--- Takes up what state_dict gave.
function Scaler:load_state_dict(dict)
  if type(dict) ~= "table" or type(dict.scale) ~= "number" then fail("load_state_dict: what state_dict() of a GradScaler gave is needed") end
  self.growth_factor, self.backoff_factor, self.growth_interval = dict.growth_factor, dict.backoff_factor, dict.growth_interval
  no_grad(function()
    self.factor:fill_(dict.scale)
    self.streak:fill_(dict.growth_tracker)
  end)
end

return { GradScaler = make }
