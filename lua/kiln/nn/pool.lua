-- Pooling as modules, of 1 to 3 dims: the largest, the mean, p-norms, a given size of result, and back from the largest.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local Module = require("kiln.nn.module").Module
local optional = arguments.optional

local part = {}

-- What all with a kernel do first: sizes checked, and the stride that of the kernel unless given.
local function set(self, name, dims, kernel, fields, ...)
  local given = arguments.read(name, fields, ...)
  self.kernel = arguments.sizes(name, "kernel", kernel, dims)
  self.stride = kernel
  for i = 1, #fields, 2 do
    local field = fields[i]
    local value = given[field]
    if field == "stride" or field == "padding" or field == "dilation" then
      if value == nil then value = kernel end
      arguments.sizes(name, field, value, dims)
    end
    self[field] = value
  end
end

for dims = 1, 3 do
  local suffix = ("%dd"):format(dims)
  local function class(name)
    local new = Module:extend(name .. suffix)
    function new:extra() return arguments.text(self.kernel) end
    part[new.name] = new
    return new, new.name
  end

  --- MaxPool2d(kernel [, stride = kernel, padding, dilation, return_indices, ceil_mode]); of 1 and 3 dims too, and so all
  --- that follow.
  local most, with_places = kiln["max_pool" .. suffix], kiln["max_pool" .. suffix .. "_with_indices"]
  local Max, max_name = class "MaxPool"
  local max_fields = { "stride", optional, "padding", 0, "dilation", 1, "return_indices", false, "ceil_mode", false }
  function Max:init(kernel, ...) set(self, max_name, dims, kernel, max_fields, ...) end
  function Max:forward(x)
    if self.return_indices then return with_places(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode) end
    return most(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)
  end

  --- AvgPool2d(kernel [, stride = kernel, padding, ceil_mode, count_include_pad = true, divisor_override])
  local mean = kiln["avg_pool" .. suffix]
  local Avg, avg_name = class "AvgPool"
  local avg_fields = { "stride", optional, "padding", 0, "ceil_mode", false, "count_include_pad", true, "divisor_override", optional }
  function Avg:init(kernel, ...) set(self, avg_name, dims, kernel, avg_fields, ...) end
  function Avg:forward(x)
    return mean(x, self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override or 0)
  end

  --- LPPool2d(p, kernel [, stride = kernel, ceil_mode])
  local norm = kiln["lp_pool" .. suffix]
  local LP, lp_name = class "LPPool"
  function LP:init(p, kernel, ...)
    if type(p) ~= "number" then kiln.fail("%s: p must be a number, got %s", lp_name, tostring(p)) end
    self.p = p
    set(self, lp_name, dims, kernel, { "stride", optional, "ceil_mode", false }, ...)
  end
  function LP:forward(x) return norm(x, self.p, self.kernel, self.stride, self.ceil_mode) end
  function LP:extra() return ("%s, %s"):format(self.p, arguments.text(self.kernel)) end

  --- MaxUnpool2d(kernel [, stride = kernel, padding]): called with the maxima, their places and, maybe, a size.
  local unpool = kiln["max_unpool" .. suffix]
  local Unpool, unpool_name = class "MaxUnpool"
  function Unpool:init(kernel, ...) set(self, unpool_name, dims, kernel, { "stride", optional, "padding", 0 }, ...) end
  function Unpool:forward(x, places, size)
    return unpool(x, places, { kernel_size = self.kernel, stride = self.stride, padding = self.padding, output_size = size or 0 })
  end

  --- AdaptiveAvgPool2d(size), AdaptiveMaxPool2d(size): -1 keeps a size.
  for kind, op in pairs { Avg = kiln["adaptive_avg_pool" .. suffix], Max = kiln["adaptive_max_pool" .. suffix] } do
    local Adaptive, name = class("Adaptive" .. kind .. "Pool")
    function Adaptive:init(size) self.size = arguments.sizes(name, "the size", size, dims) end
    function Adaptive:forward(x) return op(x, self.size) end
    function Adaptive:extra() return arguments.text(self.size) end
  end
end

return part
