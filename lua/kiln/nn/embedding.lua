-- Rows of a table, picked by index.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local module = require "kiln.nn.module"
local Module, Parameter = module.Module, module.Parameter

--- Embedding(entries, width): rows of its weight at 1-based indices.
local Embedding = Module:extend "Embedding"
function Embedding:init(entries, width)
  arguments.count("Embedding", "the number of entries", entries)
  arguments.count("Embedding", "the width", width)
  self.weight = Parameter(kiln.randn(entries, width))
end
function Embedding:forward(index) return kiln.embedding(self.weight, index) end
function Embedding:extra() return ("%d x %d"):format(self.weight:size(1), self.weight:size(2)) end

return { Embedding = Embedding }
