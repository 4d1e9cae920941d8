-- kiln.nn.init: starting values, written into a tensor, which is returned. Names and arguments are PyTorch's, in order or by name
-- in a table; most names work without the underscore too. No gradient flows.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local fail, needed, optional = kiln.fail, arguments.needed, arguments.optional

local init = {}

local function set(t, make)
  return kiln.no_grad(function() return t:copy_(make()) end)
end

local function check(name, t, least, most)
  if not kiln.is_tensor(t) then fail("%s: a tensor is needed, got %s", name, type(t)) end
  local dims = t:dim()
  if least and dims < least or most and dims > most then
    local wanted = most == nil and "at least " .. least or most > least and least .. " to " .. most or tostring(least)
    fail("%s: a tensor of %s dimensions is needed, got %d", name, wanted, dims)
  end
  return t
end

-- init[name](t, …): fields as arguments.read wants them; body(t, given) writes.
local function define(name, fields, body, least, most)
  init[name] = function(t, ...)
    check(name, t, least, most)
    return body(t, arguments.read(name, fields, ...))
  end
end

local function uniform(t, low, high)
  return set(t, function() return kiln.rand_like(t) * (high - low) + low end)
end

local function normal(t, mean, deviation)
  return set(t, function() return kiln.randn_like(t) * deviation + mean end)
end

local function constant(t, value)
  return kiln.no_grad(function() return t:fill_(value) end)
end

-- ---- plain values ----------------------------------------------------------------------------------------------

--- uniform_(t [, a = 0, b = 1]): in [a, b).
define("uniform_", { "a", 0, "b", 1 }, function(t, o) return uniform(t, o.a, o.b) end)
--- normal_(t [, mean = 0, std = 1])
define("normal_", { "mean", 0, "std", 1 }, function(t, o) return normal(t, o.mean, o.std) end)
--- constant_(t, val), zeros_(t), ones_(t)
define("constant_", { "val", needed }, function(t, o) return constant(t, o.val) end)
define("zeros_", {}, function(t) return constant(t, 0) end)
define("ones_", {}, function(t) return constant(t, 1) end)

local function below(z) return kiln.erfc(kiln.tensor(-z / math.sqrt(2), { dtype = "float64" })):item() / 2 end

--- trunc_normal_(t [, mean = 0, std = 1, a = -2, b = 2]): normal, none of it outside [a, b], which are values, not deviations.
define("trunc_normal_", { "mean", 0, "std", 1, "a", -2, "b", 2 }, function(t, o)
  local low, high = below((o.a - o.mean) / o.std), below((o.b - o.mean) / o.std)
  if not (o.std > 0 and high > low) then
    fail("trunc_normal_: std must be positive and [a, b] must hold a part of the distribution, got std %g and [%g, %g]", o.std, o.a, o.b)
  end
  return set(t, function()
    local p = kiln.rand(t.shape, { dtype = "float64", device = t.device }) * (high - low) + low
    local x = kiln.erfinv((p * 2 - 1):clamp(-1 + 2 ^ -53, 1 - 2 ^ -53)) * (o.std * math.sqrt(2)) + o.mean
    return x:clamp(o.a, o.b)
  end)
end)

--- eye_(t): the identity matrix.
define("eye_", {}, function(t)
  return set(t, function() return kiln.eye(t:size(1), t:size(2), { dtype = t.dtype, device = t.device }) end)
end, 2, 2)

--- dirac_(t [, groups = 1]): weights of a convolution that lets as many channels as possible through as they are.
define("dirac_", { "groups", 1 }, function(t, o)
  local shape = t.shape
  arguments.count("dirac_", "groups", o.groups)
  if shape[1] % o.groups ~= 0 then fail("dirac_: groups = %d does not divide %d outputs", o.groups, shape[1]) end
  local each = shape[1] // o.groups
  constant(t, 0)
  return kiln.no_grad(function()
    for g = 0, o.groups - 1 do
      for d = 1, math.min(each, shape[2]) do
        local place = { g * each + d, d }
        for i = 3, #shape do place[i] = shape[i] // 2 + 1 end
        t[place] = 1
      end
    end
    return t
  end)
end, 3, 5)

-- ---- by the number of inputs and outputs -----------------------------------------------------------------------

-- Of one unit: [outputs, inputs, kernel …].
local function fans(t)
  local shape, field = t.shape, 1
  for i = 3, #shape do field = field * shape[i] end
  return shape[2] * field, shape[1] * field
end

local gains = {
  linear = 1, conv1d = 1, conv2d = 1, conv3d = 1, conv_transpose1d = 1, conv_transpose2d = 1, conv_transpose3d = 1, sigmoid = 1,
  tanh = 5 / 3, relu = math.sqrt(2), selu = 3 / 4,
}

--- calculate_gain(nonlinearity [, param]): how much a layer in front of it is to enlarge; param is the slope of leaky_relu.
function init.calculate_gain(nonlinearity, param)
  if nonlinearity == "leaky_relu" then
    if param == nil then param = 0.01 end
    if type(param) ~= "number" then fail("calculate_gain: the slope must be a number, got %s", tostring(param)) end
    return math.sqrt(2 / (1 + param ^ 2))
  end
  if not gains[nonlinearity] then fail("calculate_gain: there is no nonlinearity %s", tostring(nonlinearity)) end
  return gains[nonlinearity]
end

-- The deviation that He, Zhang, Ren, Sun 2015 derive.
local function kaiming(name, t, o)
  local inputs, outputs = fans(t)
  if o.mode ~= "fan_in" and o.mode ~= "fan_out" then
    fail("%s: mode must be 'fan_in' or 'fan_out', got %s", name, tostring(o.mode))
  end
  return init.calculate_gain(o.nonlinearity, o.a) / math.sqrt(o.mode == "fan_in" and inputs or outputs)
end

local kaiming_fields = { "a", 0, "mode", "fan_in", "nonlinearity", "leaky_relu" }

--- kaiming_uniform_(t [, a = 0, mode = "fan_in", nonlinearity = "leaky_relu"]): a is the slope of a leaky_relu that follows
--- (sqrt(5) is what linear and convolution layers start with: bound 1 / sqrt(inputs)).
define("kaiming_uniform_", kaiming_fields, function(t, o)
  local bound = math.sqrt(3) * kaiming("kaiming_uniform_", t, o)
  return uniform(t, -bound, bound)
end, 2)
--- kaiming_normal_(t [, a = 0, mode = "fan_in", nonlinearity = "leaky_relu"])
define("kaiming_normal_", kaiming_fields, function(t, o) return normal(t, 0, kaiming("kaiming_normal_", t, o)) end, 2)

--- xavier_uniform_(t [, gain = 1]), xavier_normal_(t [, gain = 1]): Glorot, Bengio 2010.
define("xavier_uniform_", { "gain", 1 }, function(t, o)
  local inputs, outputs = fans(t)
  local bound = o.gain * math.sqrt(6 / (inputs + outputs))
  return uniform(t, -bound, bound)
end, 2)
define("xavier_normal_", { "gain", 1 }, function(t, o)
  local inputs, outputs = fans(t)
  return normal(t, 0, o.gain * math.sqrt(2 / (inputs + outputs)))
end, 2)

--- orthogonal_(t [, gain = 1]): the rows, or columns if there are more rows, are orthogonal and of length gain (Saxe,
--- McClelland, Ganguli 2014). Dimensions after the first count as one.
define("orthogonal_", { "gain", 1 }, function(t, o)
  if t:numel() == 0 then return t end
  return set(t, function()
    local rows, tall = t:size(1), t:numel() // t:size(1)
    local flip = rows < tall
    local x = kiln.randn(flip and { tall, rows } or { rows, tall }, { dtype = t.dtype == "float64" and "float64" or "float32" })
    local q, r = kiln.linalg.qr(x)
    q = q * r:diag():sign() -- so that all orthogonal matrices are as likely
    if flip then q = q:t() end
    return q:reshape(t.shape) * o.gain
  end)
end, 2)

--- sparse_(t, sparsity [, std = 0.01]): normal, but that part of each column zero (Martens 2010).
define("sparse_", { "sparsity", needed, "std", 0.01 }, function(t, o)
  if type(o.sparsity) ~= "number" or not (o.sparsity >= 0 and o.sparsity <= 1) then
    fail("sparse_: sparsity must be in [0, 1], got %s", tostring(o.sparsity))
  end
  local zeros = math.ceil(o.sparsity * t:size(1))
  normal(t, 0, o.std)
  return kiln.no_grad(function()
    if zeros == 0 then return t end
    for column = 1, t:size(2) do
      local part, rows = t:select(2, column), kiln.randperm(t:size(1), { device = t.device }):narrow(1, 1, zeros)
      part:copy_(part:index_fill(1, rows, 0))
    end
    return t
  end)
end, 2, 2)

-- The names of before.
for _, name in ipairs {
  "uniform", "normal", "constant", "zeros", "ones", "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal",
} do
  init[name] = init[name .. "_"]
end

return init
