-- Activations as modules: one op on one tensor each, in rows. RReLU, PReLU and Softmax2d, which are more than that, follow.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local F = require "kiln.nn.functional"
local module = require "kiln.nn.module"
local Module, Parameter, fail = module.Module, module.Parameter, kiln.fail
local needed = arguments.needed

local part = {}

-- How a row is called, for kiln.help: "nn.ELU([alpha = 1.0])".
local function form(name, fields)
  local list = {}
  for i = 1, #fields, 2 do
    list[#list + 1] = fields[i + 1] == needed and fields[i] or ("[%s = %s]"):format(fields[i], tostring(fields[i + 1]))
  end
  return ("nn.%s(%s)"):format(name, table.concat(list, ", "))
end

-- name, op, then its arguments in order, each with its default
for _, row in ipairs {
  { "CELU", kiln.celu, "alpha", 1.0 },
  { "ELU", kiln.elu, "alpha", 1.0 },
  { "GELU", kiln.gelu, "approximate", "none" },
  { "GLU", kiln.glu, "dim", -1 },
  { "Hardshrink", kiln.hardshrink, "lambd", 0.5 },
  { "Hardsigmoid", kiln.hardsigmoid },
  { "Hardswish", kiln.hardswish },
  { "Hardtanh", kiln.hardtanh, "min_val", -1.0, "max_val", 1.0 },
  { "LeakyReLU", kiln.leaky_relu, "negative_slope", 0.01 },
  { "LogSigmoid", kiln.logsigmoid },
  { "LogSoftmax", kiln.log_softmax, "dim", -1 },
  { "Mish", kiln.mish },
  { "ReLU", kiln.relu },
  { "ReLU6", kiln.relu6 },
  { "SELU", kiln.selu },
  { "SiLU", kiln.silu },
  { "Sigmoid", kiln.sigmoid },
  { "Softmax", kiln.softmax, "dim", -1 },
  { "Softmin", F.softmin, "dim", -1 },
  { "Softplus", kiln.softplus, "beta", 1.0, "threshold", 20.0 },
  { "Softshrink", kiln.softshrink, "lambd", 0.5 },
  { "Softsign", kiln.softsign },
  { "Tanh", kiln.tanh },
  { "Tanhshrink", kiln.tanhshrink },
  { "Threshold", kiln.threshold, "threshold", needed, "value", needed },
} do
  local name, op = row[1], row[2]
  local fields = { table.unpack(row, 3) }
  local first, second = fields[1], fields[3]
  local Layer = Module:extend(name)
  part[name] = Layer
  Layer.about, Layer.computes = form(name, fields), op

  function Layer:init(...)
    local given = arguments.read(name, fields, ...)
    for i = 1, #fields, 2 do
      local value, kind = given[fields[i]], fields[i + 1] == needed and "number" or type(fields[i + 1])
      if type(value) ~= kind then fail("%s: %s must be a %s, got %s", name, fields[i], kind, tostring(value)) end
      self[fields[i]] = value
    end
  end

  if second then
    function Layer:forward(x) return op(x, self[first], self[second]) end
  elseif first then
    function Layer:forward(x) return op(x, self[first]) end
  else
    function Layer:forward(x) return op(x) end
  end

  function Layer:extra()
    local list = {}
    for i = 1, #fields, 2 do
      if self[fields[i]] ~= fields[i + 1] then list[#list + 1] = fields[i] .. " " .. tostring(self[fields[i]]) end
    end
    return table.concat(list, ", ")
  end
end

--- Softmax2d(): over the channels of [N,C,H,W] or [C,H,W].
local Softmax2d = Module:extend "Softmax2d"
function Softmax2d:forward(x)
  if x:dim() ~= 3 and x:dim() ~= 4 then fail("Softmax2d: x must be [N,C,H,W] or [C,H,W], got %d dims", x:dim()) end
  return kiln.softmax(x, -3)
end

--- PReLU([num_parameters = 1, init = 0.25]): a slope that is learnt, one or one for each channel.
local PReLU = Module:extend "PReLU"
function PReLU:init(...)
  local given = arguments.read("PReLU", { "num_parameters", 1, "init", 0.25 }, ...)
  arguments.count("PReLU", "num_parameters", given.num_parameters)
  self.weight = Parameter(kiln.full({ given.num_parameters }, given.init, { dtype = "float32" }))
end
function PReLU:forward(x) return kiln.prelu(x, self.weight) end
function PReLU:extra() return tostring(self.weight:size(1)) end

--- RReLU([lower = 1/8, upper = 1/3]): a negative slope drawn for each element while training, else the mean of both.
local RReLU = Module:extend "RReLU"
function RReLU:init(...)
  local given = arguments.read("RReLU", { "lower", 1 / 8, "upper", 1 / 3 }, ...)
  self.lower, self.upper = given.lower, given.upper
  if type(self.lower) ~= "number" or type(self.upper) ~= "number" or not (self.lower <= self.upper) then
    fail("RReLU: two slopes are needed, the lower one first, got %s and %s", tostring(self.lower), tostring(self.upper))
  end
end
function RReLU:forward(x) return F.rrelu(x, self.lower, self.upper, self.training) end
function RReLU:extra() return ("%.4g, %.4g"):format(self.lower, self.upper) end

part.Softmax2d, part.PReLU, part.RReLU = Softmax2d, PReLU, RReLU
return part
