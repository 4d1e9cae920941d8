-- Stochastic gradient descent, with momentum.
local define = require("kiln.optim.optimizer").define

--- SGD(parameters [, { lr = 0.01, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false }]): against the gradient, or
--- against the running sum of gradients that momentum keeps.
local SGD = define {
  name = "SGD",
  options = { lr = 0.01, momentum = 0.0, dampening = 0.0, weight_decay = 0.0, nesterov = false },
  update = function(group, p, g, state)
    local momentum = group.momentum
    if momentum ~= 0 then
      if state.momentum_buffer then
        state.momentum_buffer:mul_(momentum):add_(g * (1 - group.dampening))
      else
        state.momentum_buffer = g:clone()
      end
      g = group.nesterov and g + state.momentum_buffer * momentum or state.momentum_buffer
    end
    p:sub_(g * group.lr)
  end,
}

return { SGD = SGD }
