-- Layers that are one product, or only another shape: Linear, Bilinear, Identity, Flatten, Unflatten.
local kiln = require "kiln"
local F = require "kiln.nn.functional"
local arguments = require "kiln.nn.arguments"
local init = require "kiln.nn.init"
local module = require "kiln.nn.module"
local Module, Parameter, fail = module.Module, module.Parameter, kiln.fail

--- Linear(inputs, outputs [, bias = true]): x times weight transposed, plus bias.
local Linear = Module:extend "Linear"
function Linear:init(inputs, outputs, ...)
  arguments.count("Linear", "the number of inputs", inputs)
  arguments.count("Linear", "the number of outputs", outputs)
  local given = arguments.read("Linear", { "bias", true }, ...)
  self.weight = Parameter(init.kaiming_uniform(kiln.empty(outputs, inputs), math.sqrt(5)))
  if given.bias then
    self.bias = Parameter(init.uniform(kiln.empty(outputs), -1 / math.sqrt(inputs), 1 / math.sqrt(inputs)))
  end
end
function Linear:forward(x) return kiln.linear(x, self.weight, self.bias) end
function Linear:extra() return ("%d -> %d%s"):format(self.weight:size(2), self.weight:size(1), self.bias and "" or ", no bias") end

--- Bilinear(inputs1, inputs2, outputs [, bias = true]): for each output, x1 times a matrix times x2, plus bias.
local Bilinear = Module:extend "Bilinear"
function Bilinear:init(inputs1, inputs2, outputs, ...)
  arguments.count("Bilinear", "the number of first inputs", inputs1)
  arguments.count("Bilinear", "the number of second inputs", inputs2)
  arguments.count("Bilinear", "the number of outputs", outputs)
  local given, bound = arguments.read("Bilinear", { "bias", true }, ...), 1 / math.sqrt(inputs1)
  self.weight = Parameter(init.uniform(kiln.empty(outputs, inputs1, inputs2), -bound, bound))
  if given.bias then self.bias = Parameter(init.uniform(kiln.empty(outputs), -bound, bound)) end
end
function Bilinear:forward(x1, x2) return F.bilinear(x1, x2, self.weight, self.bias) end
function Bilinear:extra()
  local w = self.weight
  return ("%d, %d -> %d%s"):format(w:size(2), w:size(3), w:size(1), self.bias and "" or ", no bias")
end

--- Identity(…): gives what it gets; arguments of the constructor do not matter.
local Identity = Module:extend "Identity"
function Identity:forward(...) return ... end

--- Flatten([first = 2, last = -1]): those dimensions made one; the batch stays by default.
local Flatten = Module:extend "Flatten"
function Flatten:init(...)
  local given = arguments.read("Flatten", { "start_dim", 2, "end_dim", -1 }, ...)
  self.first, self.last = given.start_dim, given.end_dim
end
function Flatten:forward(x) return kiln.flatten(x, self.first, self.last) end

--- Unflatten(dim, sizes): a dimension made several, one of which may be -1.
local Unflatten = Module:extend "Unflatten"
function Unflatten:init(dim, sizes)
  if math.type(dim) ~= "integer" then fail("Unflatten: the dimension must be an integer, got %s", tostring(dim)) end
  if type(sizes) ~= "table" or #sizes == 0 then fail("Unflatten: sizes must be a table of integers, got %s", tostring(sizes)) end
  self.dim, self.sizes = dim, { table.unpack(sizes) }
end
function Unflatten:forward(x) return kiln.unflatten(x, self.dim, self.sizes) end
function Unflatten:extra() return ("%d: %s"):format(self.dim, table.concat(self.sizes, "x")) end

return { Linear = Linear, Bilinear = Bilinear, Identity = Identity, Flatten = Flatten, Unflatten = Unflatten }
