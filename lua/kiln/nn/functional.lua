-- kiln.nn.functional: what layers and losses compute, as functions. Most are ops of the engine; the rest is written with
-- them.
local kiln = require "kiln"
local fail = kiln.fail

local F = {}

-- Ops that are used as functions of networks.
for _, name in ipairs { "relu", "tanh", "sigmoid", "gelu", "silu", "softplus", "softmax", "log_softmax", "linear", "conv2d",
                        "max_pool2d", "avg_pool2d", "embedding", "dropout", "cross_entropy", "nll_loss", "mse_loss" } do
  F[name] = kiln[name]
end

local function reduce(x, reduction)
  if reduction == nil or reduction == "mean" then return x:mean() end
  if reduction == "sum" then return x:sum() end
  if reduction == "none" then return x end
  fail("reduction must be 'none', 'mean' or 'sum', not '%s'", tostring(reduction))
end

--- Absolute difference.
function F.l1_loss(x, target, reduction) return reduce((x - target):abs(), reduction) end

--- Minus the log likelihood of target (0 … 1) under the probabilities p; logarithms are kept above -100.
function F.binary_cross_entropy(p, target, reduction)
  local yes = p:log():clamp { min = -100 }
  local no = (1 - p):log():clamp { min = -100 }
  return reduce(-(target * yes + (1 - target) * no), reduction)
end

--- The same from logits, without the detour through probabilities: stable for large ones.
function F.binary_cross_entropy_with_logits(x, target, reduction)
  return reduce(x:relu() - x * target + kiln.softplus(-x:abs()), reduction)
end

--- Squared below beta, linear beyond (Huber): smooth_l1_loss(x, target, reduction, beta = 1).
function F.smooth_l1_loss(x, target, reduction, beta)
  beta = beta or 1.0
  local d = (x - target):abs()
  return reduce(kiln.where(d:lt(beta), d * d * (0.5 / beta), d - 0.5 * beta), reduction)
end

--- one_hot(index, classes): float32 rows with a 1 at the 1-based index.
function F.one_hot(index, classes)
  return kiln.embedding(kiln.eye(classes), index)
end

return F
