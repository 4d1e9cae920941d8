-- Padding as modules, in all modes and of 1 to 3 dims.
local kiln = require "kiln"
local fail = kiln.fail
local Module = require("kiln.nn.module").Module

local part = {}

--- ReflectionPad2d(padding), ReplicationPad2d(padding), CircularPad2d(padding), ZeroPad2d(padding), ConstantPad2d(padding, value):
--- a margin. padding is a number for all sides, or before and after the last dim, then the one before it.
for kind, mode in pairs {
  Reflection = "reflect",
  Replication = "replicate",
  Circular = "circular",
  Zero = "constant",
  Constant = "constant",
} do
  for dims = 1, 3 do
    local Pad = Module:extend(("%sPad%dd"):format(kind, dims))
    part[Pad.name] = Pad
    function Pad:init(padding, value)
      local sides = {}
      for i = 1, 2 * dims do
        sides[i] = type(padding) == "table" and #padding == 2 * dims and padding[i] or padding
        if math.type(sides[i]) ~= "integer" then fail("%s: padding must be an integer or a table of %d", Pad.name, 2 * dims) end
      end
      self.padding, self.value = sides, value or 0
    end
    function Pad:forward(x) return kiln.pad(x, self.padding, mode, self.value) end
    function Pad:extra() return table.concat(self.padding, ", ") end
  end
end

return part
