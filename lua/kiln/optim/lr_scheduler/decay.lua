-- Schedules whose next rate is the current one times a factor, and those of a function of the epoch. Because they go on from
-- the current rate, they can be chained with others.
local fail = require("kiln").fail

local function need_positive(self, key)
  if not (self[key] > 0) then fail("%s: %s must be positive, got %s", self.name, key, tostring(self[key])) end
end

local function need_fraction(self, key, least)
  local v = self[key]
  if not (v >= 0 and v <= 1) or least and v == 0 then
    fail("%s: %s must be in %s0, 1], got %s", self.name, key, least and "(" or "[", tostring(v))
  end
end

-- One function for all groups, or a list of one for each.
local function functions(self)
  self.lambdas = self:by_group("lr_lambda", self.lr_lambda)
  for _, f in ipairs(self.lambdas) do
    if type(f) ~= "function" then fail("%s: lr_lambda must hold functions, got %s", self.name, type(f)) end
  end
end

return function(define)
  --- LambdaLR(optimizer, lr_lambda): the first rate times lr_lambda(epoch).
  local function first_times(self, _, base, i) return base * self.lambdas[i](self.last_epoch) end
  define("LambdaLR", { arguments = { { "lr_lambda", "function|table" } }, init = functions, start = first_times, rate = first_times })

  --- MultiplicativeLR(optimizer, lr_lambda): the current rate times lr_lambda(epoch), from epoch 1 on.
  local function times(self, current, _, i) return current * self.lambdas[i](self.last_epoch) end
  define("MultiplicativeLR", { arguments = { { "lr_lambda", "function|table" } }, init = functions, rate = times, restart = times })

  --- StepLR(optimizer, step_size, gamma = 0.1): times gamma every step_size epochs.
  define("StepLR", {
    arguments = { { "step_size", "integer" }, { "gamma", "number", 0.1 } },
    init = function(self) need_positive(self, "step_size") end,
    rate = function(self, current) return self.last_epoch % self.step_size == 0 and current * self.gamma or current end,
  })

  --- MultiStepLR(optimizer, milestones, gamma = 0.1): times gamma at these epochs.
  define("MultiStepLR", {
    arguments = { { "milestones", "table" }, { "gamma", "number", 0.1 } },
    rate = function(self, current)
      for _, epoch in ipairs(self.milestones) do
        if epoch == self.last_epoch then current = current * self.gamma end
      end
      return current
    end,
  })

  --- ExponentialLR(optimizer, gamma): times gamma at every epoch.
  define("ExponentialLR", {
    arguments = { { "gamma", "number" } },
    rate = function(self, current) return current * self.gamma end,
  })

  --- ConstantLR(optimizer, factor = 1/3, total_iters = 5): a part of the rate until epoch total_iters.
  define("ConstantLR", {
    arguments = { { "factor", "number", 1 / 3 }, { "total_iters", "integer", 5 } },
    init = function(self) need_fraction(self, "factor", true) end,
    start = function(self, current) return current * self.factor end,
    rate = function(self, current) return self.last_epoch == self.total_iters and current / self.factor or current end,
  })

  --- LinearLR(optimizer, start_factor = 1/3, end_factor = 1, total_iters = 5): from one part of the rate to another (warm-up).
  define("LinearLR", {
    arguments = { { "start_factor", "number", 1 / 3 }, { "end_factor", "number", 1.0 }, { "total_iters", "integer", 5 } },
    init = function(self)
      need_fraction(self, "start_factor", true)
      need_fraction(self, "end_factor")
      need_positive(self, "total_iters")
    end,
    start = function(self, current) return current * self.start_factor end,
    rate = function(self, current)
      local e, n, rise = self.last_epoch, self.total_iters, self.end_factor - self.start_factor
      if e > n then return current end
      return current * (1 + rise / (n * self.start_factor + (e - 1) * rise))
    end,
  })

  --- PolynomialLR(optimizer, total_iters = 5, power = 1): down to 0 at epoch total_iters.
  define("PolynomialLR", {
    arguments = { { "total_iters", "integer", 5 }, { "power", "number", 1.0 } },
    init = function(self) need_positive(self, "total_iters") end,
    rate = function(self, current)
      local e, n = self.last_epoch, self.total_iters
      if e > n then return current end
      return current * ((1 - e / n) / (1 - (e - 1) / n)) ^ self.power
    end,
  })
end
