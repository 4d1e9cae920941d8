-- ReduceLROnPlateau: a lower rate when what is watched (a validation loss, an accuracy) has not got better for some epochs.
local kiln = require "kiln"
local fail = kiln.fail

local function init(self)
  if not (self.factor >= 0 and self.factor < 1) then
    fail("ReduceLROnPlateau: factor must be in [0, 1), got %s", tostring(self.factor))
  end
  if self.mode ~= "min" and self.mode ~= "max" then fail("ReduceLROnPlateau: mode must be 'min' or 'max', got '%s'", self.mode) end
  if self.threshold_mode ~= "rel" and self.threshold_mode ~= "abs" then
    fail("ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs', got '%s'", self.threshold_mode)
  end
  self:by_group("min_lr", self.min_lr)
  self.best = self.mode == "min" and math.huge or -math.huge
  self.cooldown_counter, self.num_bad_epochs = 0, 0
end

local function better(self, value)
  local sign = self.mode == "min" and -1 or 1
  local enough
  if self.threshold_mode == "rel" then
    enough = self.best * (1 + sign * self.threshold)
  else
    enough = self.best + sign * self.threshold
  end
  if sign < 0 then return value < enough end
  return value > enough
end

return function(define, note)
  --- ReduceLROnPlateau(optimizer, mode = "min", factor = 0.1, patience = 10, threshold = 1e-4, threshold_mode = "rel",
  --- cooldown = 0, min_lr = 0, eps = 1e-8). step(value) takes what is watched.
  define("ReduceLROnPlateau", {
    arguments = {
      { "mode", "string", "min" }, { "factor", "number", 0.1 }, { "patience", "integer", 10 }, { "threshold", "number", 1e-4 },
      { "threshold_mode", "string", "rel" }, { "cooldown", "integer", 0 }, { "min_lr", "number|table", 0.0 },
      { "eps", "number", 1e-8 },
    },
    state = { "best", "cooldown_counter", "num_bad_epochs" },
    init = init,
    methods = {
      step = function(self, value)
        if kiln.is_tensor(value) then value = value:item() end
        if type(value) ~= "number" then fail("ReduceLROnPlateau: step needs the value that is watched, got %s", type(value)) end
        self.last_epoch = self.last_epoch + 1
        if better(self, value) then
          self.best, self.num_bad_epochs = value, 0
        else
          self.num_bad_epochs = self.num_bad_epochs + 1
        end
        if self.cooldown_counter > 0 then self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0 end
        if self.num_bad_epochs > self.patience then
          self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
          local least = self:by_group("min_lr", self.min_lr)
          for i, group in ipairs(self.optimizer.param_groups) do
            local new = math.max(group.lr * self.factor, least[i])
            if group.lr - new > self.eps then group.lr = new end
          end
        end
        note(self)
      end,
    },
  })
end
