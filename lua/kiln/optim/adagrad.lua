-- Adagrad (the sum of all squares) and Adadelta (a running mean of them, and of the squares of the steps).
local kiln = require "kiln"
local define = require("kiln.optim.optimizer").define

--- Adagrad(parameters [, { lr = 0.01, lr_decay = 0, weight_decay = 0, initial_accumulator_value = 0, eps = 1e-10 }]): each
--- gradient divided by the root of the sum of its squares.
local Adagrad = define {
  name = "Adagrad",
  options = { lr = 0.01, lr_decay = 0.0, weight_decay = 0.0, initial_accumulator_value = 0.0, eps = 1e-10 },
  update = function(group, p, g, state)
    if not state.step then state.step, state.sum = 0, kiln.full_like(p, group.initial_accumulator_value) end
    state.step = state.step + 1
    state.sum:add_(g * g)
    local lr = group.lr / (1 + (state.step - 1) * group.lr_decay)
    p:sub_(g / state.sum:sqrt():add_(group.eps) * lr)
  end,
}

--- Adadelta(parameters [, { lr = 1, rho = 0.9, eps = 1e-6, weight_decay = 0 }]): steps in the unit of the parameters, by
--- running means of the squares of gradients and of steps.
local Adadelta = define {
  name = "Adadelta",
  options = { lr = 1.0, rho = 0.9, eps = 1e-6, weight_decay = 0.0 },
  update = function(group, p, g, state)
    if not state.square_avg then state.square_avg, state.acc_delta = kiln.zeros_like(p), kiln.zeros_like(p) end
    local rho = group.rho
    state.square_avg:mul_(rho):add_(g * g * (1 - rho))
    local delta = (state.acc_delta + group.eps):sqrt() / (state.square_avg + group.eps):sqrt() * g
    state.acc_delta:mul_(rho):add_(delta * delta * (1 - rho))
    p:sub_(delta * group.lr)
  end,
}

return { Adagrad = Adagrad, Adadelta = Adadelta }
