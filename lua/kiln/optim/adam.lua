-- Adam and its relatives: running means of gradients (exp_avg) and of their squares or sizes. `betas = { b1, b2 }` is the same
-- as beta1 and beta2.
local kiln = require "kiln"
local define = require("kiln.optim.optimizer").define
local zeros_like = kiln.zeros_like

local betas = { betas = { "beta1", "beta2" } }

local function start(state, p, second)
  if not state.step then state.step, state.exp_avg, state[second] = 0, zeros_like(p), zeros_like(p) end
  state.step = state.step + 1
end

local function means(group, g, state)
  state.exp_avg:mul_(group.beta1):add_(g * (1 - group.beta1))
  state.exp_avg_sq:mul_(group.beta2):add_(g * g * (1 - group.beta2))
end

-- Kingma, Ba 2015; amsgrad: Reddi, Kale, Kumar 2018.
local function adam(group, p, g, state)
  start(state, p, "exp_avg_sq")
  means(group, g, state)
  local square = state.exp_avg_sq
  if group.amsgrad then
    state.max_exp_avg_sq = kiln.maximum(state.max_exp_avg_sq or zeros_like(p), square)
    square = state.max_exp_avg_sq
  end
  local size = group.lr / (1 - group.beta1 ^ state.step)
  local root = square:sqrt():mul_(1 / math.sqrt(1 - group.beta2 ^ state.step)):add_(group.eps)
  p:sub_(state.exp_avg / root * size)
end

local function adam_options(decay, decoupled)
  return { lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = decay, amsgrad = false,
    decoupled_weight_decay = decoupled }
end

-- Adam after the largest gradient there was.
local function adamax(group, p, g, state)
  start(state, p, "exp_inf")
  state.exp_avg:mul_(group.beta1):add_(g * (1 - group.beta1))
  state.exp_inf = kiln.maximum(state.exp_inf * group.beta2, g:abs():add_(group.eps))
  p:sub_(state.exp_avg / state.exp_inf * (group.lr / (1 - group.beta1 ^ state.step)))
end

-- Adam with Nesterov's momentum: Dozat 2016. mu_product is the product of the momenta so far.
local function nadam(group, p, g, state)
  start(state, p, "exp_avg_sq")
  means(group, g, state)
  local step, decay, lr = state.step, group.momentum_decay, group.lr
  local mu = group.beta1 * (1 - 0.5 * 0.96 ^ (step * decay))
  local next_mu = group.beta1 * (1 - 0.5 * 0.96 ^ ((step + 1) * decay))
  state.mu_product = (state.mu_product or 1.0) * mu
  local root = (state.exp_avg_sq / (1 - group.beta2 ^ step)):sqrt():add_(group.eps)
  p:sub_(g / root * (lr * (1 - mu) / (1 - state.mu_product)))
  p:sub_(state.exp_avg / root * (lr * next_mu / (1 - state.mu_product * next_mu)))
end

-- Adam that trusts the squares once there are enough of them: Liu and others 2020.
local function radam(group, p, g, state)
  start(state, p, "exp_avg_sq")
  means(group, g, state)
  local step, power = state.step, group.beta2 ^ state.step
  local size = group.lr / (1 - group.beta1 ^ step)
  local most = 2 / (1 - group.beta2) - 1
  local length = most - 2 * step * power / (1 - power)
  if length > 5 then
    local rectified = math.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length) * (1 - power))
    p:sub_(state.exp_avg / state.exp_avg_sq:sqrt():add_(group.eps) * (size * rectified))
  else
    p:sub_(state.exp_avg * size)
  end
end

return {
  --- Adam(parameters [, { lr = 0.001, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0, amsgrad = false }]): running means
  --- of gradients and of their squares.
  Adam = define { name = "Adam", pairs = betas, options = adam_options(0.0, false), update = adam },
  --- AdamW(parameters [, { lr = 0.001, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0.01, amsgrad = false }]): Adam whose
  --- weight decay shrinks the parameters themselves, not by way of the gradient.
  AdamW = define { name = "AdamW", pairs = betas, options = adam_options(0.01, true), update = adam },
  --- Adamax(parameters [, { lr = 0.002, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0 }]): Adam after the largest
  --- gradient there was.
  Adamax = define {
    name = "Adamax", pairs = betas, update = adamax,
    options = { lr = 0.002, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0 },
  },
  --- NAdam(parameters [, { lr = 0.002, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0, momentum_decay = 0.004,
  --- decoupled_weight_decay = false }]): Adam with Nesterov's momentum.
  NAdam = define {
    name = "NAdam", pairs = betas, update = nadam,
    options = { lr = 0.002, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0, momentum_decay = 0.004,
      decoupled_weight_decay = false },
  },
  --- RAdam(parameters [, { lr = 0.001, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0, decoupled_weight_decay = false }]):
  --- Adam that trusts the squares once there are enough of them.
  RAdam = define {
    name = "RAdam", pairs = betas, update = radam,
    options = { lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0, decoupled_weight_decay = false },
  },
}
