-- kiln.nn.init: starting values, written into a tensor and returned. Limits are those that are usual for each scheme.
local kiln = require "kiln"

local init = {}

local function set(t, make)
  return kiln.no_grad(function() return t:copy_(make()) end)
end

--- Uniform in [low, high).
function init.uniform(t, low, high)
  low, high = low or 0, high or 1
  return set(t, function() return kiln.rand_like(t) * (high - low) + low end)
end

function init.normal(t, mean, deviation)
  mean, deviation = mean or 0, deviation or 1
  return set(t, function() return kiln.randn_like(t) * deviation + mean end)
end

function init.constant(t, value)
  return kiln.no_grad(function() return t:fill_(value) end)
end
function init.zeros(t) return init.constant(t, 0) end
function init.ones(t) return init.constant(t, 1) end

-- Inputs and outputs of one unit: [outputs, inputs, kernel …].
local function fans(t)
  local shape = t.shape
  if #shape < 2 then kiln.fail("init: a tensor of at least 2 dimensions is needed, got %d", #shape) end
  local field = 1
  for i = 3, #shape do field = field * shape[i] end
  return shape[2] * field, shape[1] * field
end

--- He, Zhang, Ren, Sun 2015; `slope` is the negative slope of the leaky ReLU that follows (sqrt(5) is the usual default of
--- linear and convolution layers: bound 1 / sqrt(inputs)).
function init.kaiming_uniform(t, slope)
  local inputs = fans(t)
  local bound = math.sqrt(6 / ((1 + (slope or 0) ^ 2) * inputs))
  return init.uniform(t, -bound, bound)
end

function init.kaiming_normal(t, slope)
  local inputs = fans(t)
  return init.normal(t, 0, math.sqrt(2 / ((1 + (slope or 0) ^ 2) * inputs)))
end

--- Glorot, Bengio 2010.
function init.xavier_uniform(t, gain)
  local inputs, outputs = fans(t)
  local bound = (gain or 1) * math.sqrt(6 / (inputs + outputs))
  return init.uniform(t, -bound, bound)
end

function init.xavier_normal(t, gain)
  local inputs, outputs = fans(t)
  return init.normal(t, 0, (gain or 1) * math.sqrt(2 / (inputs + outputs)))
end

return init
