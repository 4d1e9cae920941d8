-- Rprop, for gradients of all the data: a step size for each value, which grows (etaplus) while the sign of its gradient stays
-- and shrinks (etaminus) when it turns; only signs are used. etas = { minus, plus }, step_sizes = { least, most }.
local kiln = require "kiln"
local fail = kiln.fail
local define = require("kiln.optim.optimizer").define

--- Rprop(parameters [, { lr = 0.01, etas = { 0.5, 1.2 }, step_sizes = { 1e-6, 50 } }]): by the signs of gradients of all the
--- data, with a step size for each value.
local Rprop = define {
  name = "Rprop",
  options = { lr = 0.01, etaminus = 0.5, etaplus = 1.2, step_size_min = 1e-6, step_size_max = 50.0 },
  pairs = { etas = { "etaminus", "etaplus" }, step_sizes = { "step_size_min", "step_size_max" } },
  check = function(o)
    if o.step_size_min > o.step_size_max then fail("Rprop: the least step size is above the greatest") end
  end,
  update = function(group, p, g, state)
    if not state.prev then state.prev, state.step_size = kiln.zeros_like(p), kiln.full_like(p, group.lr) end
    local turn, step = g * state.prev, state.step_size
    step = kiln.where(turn:gt(0), step * group.etaplus, kiln.where(turn:lt(0), step * group.etaminus, step))
    state.step_size = step:clamp(group.step_size_min, group.step_size_max)
    g = kiln.where(turn:lt(0), 0.0, g) -- after a turn the value stays once
    p:sub_(g:sign() * state.step_size)
    state.prev = g:clone()
  end,
}

return { Rprop = Rprop }
