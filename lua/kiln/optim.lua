-- kiln.optim: optimisers. Each holds the parameters it was given, in groups, and steps them in place from their grads, with
-- gradient recording off. optim/optimizer.lua is what they share, the files beside it the methods.
local Optimizer = require "kiln.optim.optimizer"

local optim = { define = Optimizer.define }

for _, part in ipairs { "sgd", "adam", "adagrad", "rmsprop", "rprop", "asgd", "lbfgs" } do
  for name, make in pairs(require("kiln.optim." .. part)) do optim[name] = make end
end

optim.lr_scheduler = require "kiln.optim.lr_scheduler"

return optim
