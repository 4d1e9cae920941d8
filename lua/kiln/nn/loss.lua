-- Losses as modules; what they compute is in functional.lua.
local F = require "kiln.nn.functional"
local Module = require("kiln.nn.module").Module

local part = {}

--- CrossEntropyLoss([{ reduction = "mean" }]) and the like: modules that call the function of the same name.
for name, op in pairs { CrossEntropyLoss = F.cross_entropy, NLLLoss = F.nll_loss, MSELoss = F.mse_loss, L1Loss = F.l1_loss,
                        BCELoss = F.binary_cross_entropy, BCEWithLogitsLoss = F.binary_cross_entropy_with_logits } do
  local Loss = Module:extend(name)
  part[name] = Loss
  function Loss:init(options) self.reduction = options and options.reduction or "mean" end
  function Loss:forward(x, target) return op(x, target, self.reduction) end
end

return part
