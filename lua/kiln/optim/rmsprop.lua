-- RMSprop. Centered, the square of the mean gradient is taken off the mean square: what is left is the variance.
local kiln = require "kiln"
local define = require("kiln.optim.optimizer").define

--- RMSprop(parameters [, { lr = 0.01, alpha = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0, centered = false }]): each
--- gradient divided by the root of the running mean of its squares.
local RMSprop = define {
  name = "RMSprop",
  options = { lr = 0.01, alpha = 0.99, eps = 1e-8, weight_decay = 0.0, momentum = 0.0, centered = false },
  update = function(group, p, g, state)
    local alpha = group.alpha
    state.square_avg = state.square_avg or kiln.zeros_like(p)
    state.square_avg:mul_(alpha):add_(g * g * (1 - alpha))
    local square = state.square_avg
    if group.centered then
      state.grad_avg = state.grad_avg or kiln.zeros_like(p)
      state.grad_avg:lerp_(g, 1 - alpha)
      square = square - state.grad_avg * state.grad_avg
    end
    local d = g / square:sqrt():add_(group.eps)
    if group.momentum ~= 0 then
      state.momentum_buffer = state.momentum_buffer and state.momentum_buffer:mul_(group.momentum):add_(d) or d
      d = state.momentum_buffer
    end
    p:sub_(d * group.lr)
  end,
}

return { RMSprop = RMSprop }
