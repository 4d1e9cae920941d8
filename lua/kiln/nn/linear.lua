-- Layers that are one product, or only another shape: Linear, Flatten.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local init = require "kiln.nn.init"
local module = require "kiln.nn.module"
local Module, Parameter = module.Module, module.Parameter

--- Linear(inputs, outputs [, { bias = true }]): x times weight transposed, plus bias.
local Linear = Module:extend "Linear"
function Linear:init(inputs, outputs, options)
  arguments.count("Linear", "the number of inputs", inputs)
  arguments.count("Linear", "the number of outputs", outputs)
  self.weight = Parameter(init.kaiming_uniform(kiln.empty(outputs, inputs), math.sqrt(5)))
  if not options or options.bias ~= false then
    self.bias = Parameter(init.uniform(kiln.empty(outputs), -1 / math.sqrt(inputs), 1 / math.sqrt(inputs)))
  end
end
function Linear:forward(x) return kiln.linear(x, self.weight, self.bias) end
function Linear:extra() return ("%d -> %d%s"):format(self.weight:size(2), self.weight:size(1), self.bias and "" or ", no bias") end

--- Flatten([first = 2, last = -1]): those dimensions made one; the batch stays by default.
local Flatten = Module:extend "Flatten"
function Flatten:init(first, last) self.first, self.last = first or 2, last or -1 end
function Flatten:forward(x) return kiln.flatten(x, self.first, self.last) end

return { Linear = Linear, Flatten = Flatten }
