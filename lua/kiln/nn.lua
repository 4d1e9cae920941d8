-- kiln.nn: layers, losses, and Module, which models extend. This file only gathers: what there is comes from the parts in the
-- folder nn, each of which returns a table of what it adds.
local nn = {
  functional = require "kiln.nn.functional",
  init = require "kiln.nn.init",
  utils = require "kiln.nn.utils",
}

for _, part in ipairs {
  "module",
  "container",
  "linear",
  "activation",
  "dropout",
  "padding",
  "pool",
  "fractional_pool",
  "conv",
  "embedding",
  "rnn",
  "resample",
  "norm",
  "attention",
  "transformer",
  "loss",
} do
  for name, value in pairs(require("kiln.nn." .. part)) do nn[name] = value end
end

return nn
