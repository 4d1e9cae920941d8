-- Schedules that raise the rate and lower it again, and the momentum the other way round (Smith 2017, 2018). The momentum is
-- the option `momentum` of an optimiser, or its beta1.
local fail = require("kiln").fail

-- Which option of the optimiser is cycled, if any; both ends of it for each group.
local function momenta(self)
  if not self.cycle_momentum then return end
  local group = self.optimizer.param_groups[1]
  self.momentum_option = group.momentum and "momentum" or group.beta1 and "beta1"
  if not self.momentum_option then
    fail("%s: %s has neither momentum nor beta1: set cycle_momentum = false", self.name, self.optimizer.name)
  end
  self.base_momenta = self:by_group("base_momentum", self.base_momentum)
  self.max_momenta = self:by_group("max_momentum", self.max_momentum)
end

local function set_momentum(self, i, value)
  if self.cycle_momentum then self.optimizer.param_groups[i][self.momentum_option] = value end
end

-- ---- one cycle -------------------------------------------------------------------------------------------------

local function cosine(from, to, part) return to + (from - to) / 2 * (math.cos(math.pi * part) + 1) end
local function linear(from, to, part) return (to - from) * part + from end

local one_cycle = {
  { "max_lr", "number|table" }, { "total_steps", "integer?" }, { "epochs", "integer?" }, { "steps_per_epoch", "integer?" },
  { "pct_start", "number", 0.3 }, { "anneal_strategy", "string", "cos" }, { "cycle_momentum", "boolean", true },
  { "base_momentum", "number|table", 0.85 }, { "max_momentum", "number|table", 0.95 }, { "div_factor", "number", 25.0 },
  { "final_div_factor", "number", 1e4 }, { "three_phase", "boolean", false },
}

-- The phases: the last step of each, the rates and momenta it goes between.
local function phases(self, i)
  local high, up = self.max_lrs[i], self.pct_start * self.total_steps
  local low = high / self.div_factor
  local least = low / self.final_div_factor
  local slow, fast = 0, 0
  if self.cycle_momentum then slow, fast = self.base_momenta[i], self.max_momenta[i] end
  local last = self.total_steps - 1
  if self.three_phase then
    return { { up - 1, low, high, fast, slow }, { 2 * up - 2, high, low, slow, fast }, { last, low, least, fast, fast } }
  end
  return { { up - 1, low, high, fast, slow }, { last, high, least, slow, fast } }
end

local function one_cycle_rate(self, _, _, i)
  local step, from, list = self.last_epoch, 0, phases(self, i)
  if step > self.total_steps then
    fail("OneCycleLR: this is step %d, it was made for %d", step, self.total_steps)
  end
  local anneal = self.anneal_strategy == "cos" and cosine or linear
  for k, phase in ipairs(list) do
    local till = phase[1]
    if step <= till or k == #list then
      local part = (step - from) / (till - from)
      set_momentum(self, i, anneal(phase[4], phase[5], part))
      return anneal(phase[2], phase[3], part)
    end
    from = till
  end
end

local function one_cycle_init(self)
  if not self.total_steps then
    if not (self.epochs and self.steps_per_epoch) then
      fail("OneCycleLR: total_steps is needed, or epochs and steps_per_epoch")
    end
    self.total_steps = self.epochs * self.steps_per_epoch
  end
  if self.total_steps < 1 then fail("OneCycleLR: total_steps must be positive, got %d", self.total_steps) end
  if not (self.pct_start >= 0 and self.pct_start <= 1) then
    fail("OneCycleLR: pct_start must be in [0, 1], got %s", tostring(self.pct_start))
  end
  if self.anneal_strategy ~= "cos" and self.anneal_strategy ~= "linear" then
    fail("OneCycleLR: anneal_strategy must be 'cos' or 'linear', got '%s'", self.anneal_strategy)
  end
  self.max_lrs = self:by_group("max_lr", self.max_lr)
  momenta(self)
  for i, group in ipairs(self.optimizer.param_groups) do
    group.initial_lr = self.max_lrs[i] / self.div_factor
  end
end

-- ---- many cycles -----------------------------------------------------------------------------------------------

local cyclic = {
  { "base_lr", "number|table" }, { "max_lr", "number|table" }, { "step_size_up", "integer", 2000 },
  { "step_size_down", "integer?" }, { "mode", "string", "triangular" }, { "gamma", "number", 1.0 }, { "scale_fn", "function?" },
  { "scale_mode", "string", "cycle" }, { "cycle_momentum", "boolean", true }, { "base_momentum", "number|table", 0.8 },
  { "max_momentum", "number|table", 0.9 },
}

-- How high a cycle reaches, by its number or by the step.
local modes = {
  triangular = { "cycle", function() return 1 end },
  triangular2 = { "cycle", function(cycle) return 1 / 2 ^ (cycle - 1) end },
  exp_range = { "iterations", function(step, gamma) return gamma ^ step end },
}

local function cyclic_rate(self, _, base, i)
  local up = self.step_size_up
  local whole = up + (self.step_size_down or up)
  local cycle = self.last_epoch // whole + 1
  local part, ratio = self.last_epoch / whole + 1 - cycle, up / whole
  local height = part <= ratio and part / ratio or (part - 1) / (ratio - 1)
  local mode = modes[self.mode]
  local scale = self.scale_fn or mode[2]
  local by = self.scale_fn and self.scale_mode or mode[1]
  height = height * scale(by == "cycle" and cycle or self.last_epoch, self.gamma)
  if self.cycle_momentum then
    local most = self.max_momenta[i]
    set_momentum(self, i, most - (most - self.base_momenta[i]) * height)
  end
  return base + (self.max_lrs[i] - base) * height
end

local function cyclic_init(self)
  if not modes[self.mode] then
    fail("CyclicLR: mode must be 'triangular', 'triangular2' or 'exp_range', got '%s'", self.mode)
  end
  if self.scale_mode ~= "cycle" and self.scale_mode ~= "iterations" then
    fail("CyclicLR: scale_mode must be 'cycle' or 'iterations', got '%s'", self.scale_mode)
  end
  if self.step_size_up < 1 or (self.step_size_down or 1) < 1 then
    fail("CyclicLR: step_size_up and step_size_down must be positive")
  end
  self.base_lrs = self:by_group("base_lr", self.base_lr)
  self.max_lrs = self:by_group("max_lr", self.max_lr)
  momenta(self)
  for i, group in ipairs(self.optimizer.param_groups) do
    group.lr = self.base_lrs[i] + 0.0
  end
end

return function(define)
  --- OneCycleLR(optimizer, max_lr, total_steps, …): up to max_lr, down to far below the first rate. Step it after every batch.
  define("OneCycleLR", {
    arguments = one_cycle, init = one_cycle_init, start = one_cycle_rate, rate = one_cycle_rate, closed = true,
    state = { "max_lrs", "base_momenta", "max_momenta" },
  })

  --- CyclicLR(optimizer, base_lr, max_lr, step_size_up = 2000, …): up and down again and again.
  define("CyclicLR", {
    arguments = cyclic, init = cyclic_init, start = cyclic_rate, rate = cyclic_rate, closed = true,
    state = { "max_lrs", "base_momenta", "max_momenta" },
  })
end
