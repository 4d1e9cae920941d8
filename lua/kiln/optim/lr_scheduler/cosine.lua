-- Schedules along a cosine (Loshchilov, Hutter 2017).
local fail = require("kiln").fail
local cos, pi = math.cos, math.pi

return function(define)
  --- CosineAnnealingLR(optimizer, T_max, eta_min = 0): down to eta_min at epoch T_max, then up again.
  define("CosineAnnealingLR", {
    arguments = { { "T_max", "integer" }, { "eta_min", "number", 0.0 } },
    init = function(self)
      if self.T_max < 1 then fail("CosineAnnealingLR: T_max must be positive, got %d", self.T_max) end
    end,
    rate = function(self, current, base)
      local e, n, least = self.last_epoch, self.T_max, self.eta_min
      if (e - 1 - n) % (2 * n) == 0 then return current + (base - least) * (1 - cos(pi / n)) / 2 end
      return (1 + cos(pi * e / n)) / (1 + cos(pi * (e - 1) / n)) * (current - least) + least
    end,
  })

  --- CosineAnnealingWarmRestarts(optimizer, T_0, T_mult = 1, eta_min = 0): down to eta_min in T_0 epochs, again from the first
  --- rate in T_0 * T_mult, and so on.
  local function warm(self, _, base)
    return self.eta_min + (base - self.eta_min) * (1 + cos(pi * self.T_cur / self.T_i)) / 2
  end
  define("CosineAnnealingWarmRestarts", {
    arguments = { { "T_0", "integer" }, { "T_mult", "integer", 1 }, { "eta_min", "number", 0.0 } },
    state = { "T_cur", "T_i" },
    init = function(self)
      if self.T_0 < 1 or self.T_mult < 1 then fail("CosineAnnealingWarmRestarts: T_0 and T_mult must be positive") end
      self.T_cur, self.T_i = 0, self.T_0
    end,
    start = warm,
    rate = function(self, current, base, i)
      if i == 1 then
        self.T_cur = self.T_cur + 1
        if self.T_cur >= self.T_i then self.T_cur, self.T_i = self.T_cur - self.T_i, self.T_i * self.T_mult end
      end
      return warm(self, current, base)
    end,
  })
end
