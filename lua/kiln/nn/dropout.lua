-- Dropout as modules: of elements, of whole channels, and the kinds that go with SELU. Only while training.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local Module = require("kiln.nn.module").Module

local part = {}

--- Dropout([p = 0.5]), Dropout2d([p = 0.5]) of whole channels, AlphaDropout([p = 0.5]), FeatureAlphaDropout([p = 0.5]): while
--- training, each element is 0 with that probability; the others grow, so that the mean stays.
for name, op in pairs {
  Dropout = kiln.dropout,
  Dropout1d = kiln.feature_dropout,
  Dropout2d = kiln.feature_dropout,
  Dropout3d = kiln.feature_dropout,
  AlphaDropout = kiln.alpha_dropout,
  FeatureAlphaDropout = kiln.feature_alpha_dropout,
} do
  local Layer = Module:extend(name)
  part[name] = Layer
  function Layer:init(...)
    self.p = arguments.probability(name, arguments.read(name, { "p", 0.5 }, ...).p)
  end
  function Layer:forward(x)
    if self.training then return op(x, self.p, true) end
    return x
  end
  function Layer:extra() return tostring(self.p) end
end

return part
