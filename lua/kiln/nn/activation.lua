-- Activations as modules: one op on one tensor each.
local kiln = require "kiln"
local Module = require("kiln.nn.module").Module

local part = {}

-- Layers without state: one op on one tensor.
for name, op in pairs { ReLU = kiln.relu, Tanh = kiln.tanh, Sigmoid = kiln.sigmoid, GELU = kiln.gelu, SiLU = kiln.silu,
                        Softplus = kiln.softplus } do
  local Layer = Module:extend(name)
  part[name] = Layer
  function Layer:forward(x) return op(x) end
end

--- Softmax([dim = -1]), LogSoftmax the same.
for name, op in pairs { Softmax = kiln.softmax, LogSoftmax = kiln.log_softmax } do
  local Layer = Module:extend(name)
  part[name] = Layer
  function Layer:init(dim) self.dim = dim or -1 end
  function Layer:forward(x) return op(x, self.dim) end
  function Layer:extra() return "dim " .. self.dim end
end

return part
