-- kiln.optim.lr_scheduler: learning rates that change with the epoch. Call schedule:step() after each.
local fail = require("kiln").fail

local schedulers = {}

-- rate(first, epoch): the learning rate after so many steps, from the one the optimiser started with.
-- `wanted` says of each argument what it is; "number?" may be missing.
local function define(name, wanted, rate)
  schedulers[name] = function(optimizer, ...)
    if type(optimizer) ~= "table" or type(optimizer.lr) ~= "number" then
      fail("%s: an optimiser is needed, got %s", name, type(optimizer))
    end
    for i, kind in ipairs(wanted) do
      local got = type((select(i, ...)))
      local plain = kind:match "%a+"
      if got ~= plain and not (got == "nil" and kind ~= plain) then
        fail("%s: argument %d must be a %s, got %s", name, i + 1, plain, got)
      end
    end
    local self = { optimizer = optimizer, first = optimizer.lr, epoch = 0 }
    local arguments = table.pack(...)
    function self:step()
      self.epoch = self.epoch + 1
      optimizer.lr = rate(self.first, self.epoch, table.unpack(arguments, 1, arguments.n))
    end
    function self:state_dict() return { first = self.first, epoch = self.epoch } end
    function self:load_state_dict(dict) self.first, self.epoch = dict.first, dict.epoch end
    return self
  end
end

--- StepLR(optimizer, every [, factor = 0.1])
define("StepLR", { "number", "number?" }, function(first, epoch, every, factor) return first * (factor or 0.1) ^ (epoch // every) end)

--- ExponentialLR(optimizer, factor)
define("ExponentialLR", { "number" }, function(first, epoch, factor) return first * factor ^ epoch end)

--- CosineAnnealingLR(optimizer, epochs [, least = 0])
define("CosineAnnealingLR", { "number", "number?" }, function(first, epoch, epochs, least)
  least = least or 0
  return least + (first - least) * (1 + math.cos(math.pi * math.min(epoch, epochs) / epochs)) / 2
end)

--- LambdaLR(optimizer, function(epoch) return factor end)
define("LambdaLR", { "function" }, function(first, epoch, factor) return first * factor(epoch) end)

return schedulers
