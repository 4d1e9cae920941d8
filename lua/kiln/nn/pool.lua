-- Pooling as modules, of 1 to 3 dims: the largest, the mean, p-norms, a given size of result, and back from the largest.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local Module = require("kiln.nn.module").Module

local part = {}

for dims = 1, 3 do
  local suffix = ("%dd"):format(dims)

  --- MaxPool2d(kernel [, { stride = kernel, padding, dilation, return_indices, ceil_mode }]); of 1 and 3 dims too, and so
  --- all that follow.
  local name, most, with_places = "MaxPool" .. suffix, kiln["max_pool" .. suffix], kiln["max_pool" .. suffix .. "_with_indices"]
  local Max = Module:extend(name)
  part[name] = Max
  function Max:init(kernel, options)
    options = options or {}
    self.kernel = arguments.sizes(Max.name, "kernel", kernel, dims)
    self.stride, self.padding, self.dilation = options.stride or kernel, options.padding or 0, options.dilation or 1
    self.ceil_mode, self.return_indices = options.ceil_mode or false, options.return_indices or false
  end
  function Max:forward(x)
    if self.return_indices then return with_places(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode) end
    return most(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)
  end
  function Max:extra() return arguments.text(self.kernel) end

  --- AvgPool2d(kernel [, { stride = kernel, padding, ceil_mode, count_include_pad = true, divisor_override }])
  local mean = kiln["avg_pool" .. suffix]
  local Avg = Module:extend("AvgPool" .. suffix)
  part["AvgPool" .. suffix] = Avg
  function Avg:init(kernel, options)
    options = options or {}
    self.kernel = arguments.sizes(Avg.name, "kernel", kernel, dims)
    self.stride, self.padding, self.ceil_mode = options.stride or kernel, options.padding or 0, options.ceil_mode or false
    self.count_include_pad, self.divisor = options.count_include_pad ~= false, options.divisor_override or 0
  end
  function Avg:forward(x)
    return mean(x, self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor)
  end
  function Avg:extra() return arguments.text(self.kernel) end

  --- LPPool2d(p, kernel [, { stride = kernel, ceil_mode }])
  local norm = kiln["lp_pool" .. suffix]
  local LP = Module:extend("LPPool" .. suffix)
  part["LPPool" .. suffix] = LP
  function LP:init(p, kernel, options)
    options = options or {}
    self.p, self.kernel = p, arguments.sizes(LP.name, "kernel", kernel, dims)
    self.stride, self.ceil_mode = options.stride or kernel, options.ceil_mode or false
  end
  function LP:forward(x) return norm(x, self.p, self.kernel, self.stride, self.ceil_mode) end
  function LP:extra() return ("%s, %s"):format(self.p, arguments.text(self.kernel)) end

  --- MaxUnpool2d(kernel [, { stride = kernel, padding }]): called with the maxima, their places and, maybe, a size.
  local unpool = kiln["max_unpool" .. suffix]
  local Unpool = Module:extend("MaxUnpool" .. suffix)
  part["MaxUnpool" .. suffix] = Unpool
  function Unpool:init(kernel, options)
    options = options or {}
    self.kernel = arguments.sizes(Unpool.name, "kernel", kernel, dims)
    self.stride, self.padding = options.stride or kernel, options.padding or 0
  end
  function Unpool:forward(x, places, size)
    return unpool(x, places, { kernel_size = self.kernel, stride = self.stride, padding = self.padding, output_size = size or 0 })
  end
  function Unpool:extra() return arguments.text(self.kernel) end

  --- AdaptiveAvgPool2d(size), AdaptiveMaxPool2d(size): -1 keeps a size.
  for kind, op in pairs { Avg = kiln["adaptive_avg_pool" .. suffix], Max = kiln["adaptive_max_pool" .. suffix] } do
    local Adaptive = Module:extend("Adaptive" .. kind .. "Pool" .. suffix)
    part[Adaptive.name] = Adaptive
    function Adaptive:init(size) self.size = arguments.sizes(Adaptive.name, "the size", size, dims) end
    function Adaptive:forward(x) return op(x, self.size) end
    function Adaptive:extra() return arguments.text(self.size) end
  end
end

return part
