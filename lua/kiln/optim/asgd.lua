-- Averaged SGD (Polyak, Juditsky 1992): the steps shrink, and from step t0 on state.ax is the mean of the parameters.
local kiln = require "kiln"
local define = require("kiln.optim.optimizer").define

--- ASGD(parameters [, { lr = 0.01, lambd = 1e-4, alpha = 0.75, t0 = 1e6, weight_decay = 0 }]): steps that shrink; the mean of
--- the parameters from step t0 on is kept as `ax`.
local ASGD = define {
  name = "ASGD",
  options = { lr = 0.01, lambd = 1e-4, alpha = 0.75, t0 = 1e6, weight_decay = 0.0 },
  update = function(group, p, g, state)
    if not state.step then state.step, state.eta, state.mu, state.ax = 0, group.lr, 1.0, kiln.zeros_like(p) end
    state.step = state.step + 1
    p:mul_(1 - group.lambd * state.eta)
    p:sub_(g * state.eta)
    if state.mu == 1 then state.ax:copy_(p) else state.ax:add_((p - state.ax) * state.mu) end
    state.eta = group.lr / (1 + group.lambd * group.lr * state.step) ^ group.alpha
    state.mu = 1 / math.max(1, state.step - group.t0)
  end,
}

return { ASGD = ASGD }
