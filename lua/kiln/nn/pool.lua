-- Pooling, padding and resampling as modules.
local kiln = require "kiln"
local F = require "kiln.nn.functional"
local fail = kiln.fail

-- An integer, or a table of `dims` of them, as given.
local function checked(class, what, v, dims)
  local list = type(v) == "table" and v or { v }
  if #list ~= 1 and #list ~= dims then fail("%s: %s must be an integer or a table of %d", class, what, dims) end
  for i = 1, #list do
    if math.type(list[i]) ~= "integer" then
      fail("%s: %s must be an integer or a table of %s", class, what, ({ "one", "two", "three" })[dims])
    end
  end
  return v
end

local function text(v)
  if type(v) ~= "table" then return tostring(v) end
  for i = 2, #v do
    if v[i] ~= v[1] then return table.concat(v, "x") end
  end
  return tostring(v[1])
end

return function(nn)
  for dims = 1, 3 do
    local suffix = ("%dd"):format(dims)

    --- MaxPool2d(kernel [, { stride = kernel, padding, dilation, return_indices, ceil_mode }]); of 1 and 3 dims too, and so
    --- all that follow.
    local name, most, with_places = "MaxPool" .. suffix, kiln["max_pool" .. suffix], kiln["max_pool" .. suffix .. "_with_indices"]
    local Max = nn.Module:extend(name)
    nn[name] = Max
    function Max:init(kernel, options)
      options = options or {}
      self.kernel = checked(Max.name, "kernel", kernel, dims)
      self.stride, self.padding, self.dilation = options.stride or kernel, options.padding or 0, options.dilation or 1
      self.ceil_mode, self.return_indices = options.ceil_mode or false, options.return_indices or false
    end
    function Max:forward(x)
      if self.return_indices then return with_places(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode) end
      return most(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)
    end
    function Max:extra() return text(self.kernel) end

    --- AvgPool2d(kernel [, { stride = kernel, padding, ceil_mode, count_include_pad = true, divisor_override }])
    local mean = kiln["avg_pool" .. suffix]
    local Avg = nn.Module:extend("AvgPool" .. suffix)
    nn["AvgPool" .. suffix] = Avg
    function Avg:init(kernel, options)
      options = options or {}
      self.kernel = checked(Avg.name, "kernel", kernel, dims)
      self.stride, self.padding, self.ceil_mode = options.stride or kernel, options.padding or 0, options.ceil_mode or false
      self.count_include_pad, self.divisor = options.count_include_pad ~= false, options.divisor_override or 0
    end
    function Avg:forward(x)
      return mean(x, self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor)
    end
    function Avg:extra() return text(self.kernel) end

    --- LPPool2d(p, kernel [, { stride = kernel, ceil_mode }])
    local norm = kiln["lp_pool" .. suffix]
    local LP = nn.Module:extend("LPPool" .. suffix)
    nn["LPPool" .. suffix] = LP
    function LP:init(p, kernel, options)
      options = options or {}
      self.p, self.kernel = p, checked(LP.name, "kernel", kernel, dims)
      self.stride, self.ceil_mode = options.stride or kernel, options.ceil_mode or false
    end
    function LP:forward(x) return norm(x, self.p, self.kernel, self.stride, self.ceil_mode) end
    function LP:extra() return ("%s, %s"):format(self.p, text(self.kernel)) end

    --- MaxUnpool2d(kernel [, { stride = kernel, padding }]): called with the maxima, their places and, maybe, a size.
    local unpool = kiln["max_unpool" .. suffix]
    local Unpool = nn.Module:extend("MaxUnpool" .. suffix)
    nn["MaxUnpool" .. suffix] = Unpool
    function Unpool:init(kernel, options)
      options = options or {}
      self.kernel = checked(Unpool.name, "kernel", kernel, dims)
      self.stride, self.padding = options.stride or kernel, options.padding or 0
    end
    function Unpool:forward(x, places, size)
      return unpool(x, places, { kernel_size = self.kernel, stride = self.stride, padding = self.padding, output_size = size or 0 })
    end
    function Unpool:extra() return text(self.kernel) end

    --- AdaptiveAvgPool2d(size), AdaptiveMaxPool2d(size): -1 keeps a size.
    for kind, op in pairs { Avg = kiln["adaptive_avg_pool" .. suffix], Max = kiln["adaptive_max_pool" .. suffix] } do
      local Adaptive = nn.Module:extend("Adaptive" .. kind .. "Pool" .. suffix)
      nn[Adaptive.name] = Adaptive
      function Adaptive:init(size) self.size = checked(Adaptive.name, "the size", size, dims) end
      function Adaptive:forward(x) return op(x, self.size) end
      function Adaptive:extra() return text(self.size) end
    end

    --- Dropout2d([p = 0.5]): whole channels, only while training.
    local Dropout = nn.Module:extend("Dropout" .. suffix)
    nn["Dropout" .. suffix] = Dropout
    function Dropout:init(p)
      self.p = p or 0.5
      if type(self.p) ~= "number" or self.p < 0 or self.p > 1 then
        fail("%s: the probability must be in [0, 1], got %s", Dropout.name, tostring(p))
      end
    end
    function Dropout:forward(x)
      if self.training then return kiln.feature_dropout(x, self.p, true) end
      return x
    end
    function Dropout:extra() return tostring(self.p) end

    --- ReflectionPad2d(padding), ReplicationPad2d, ConstantPad2d(padding, value), ZeroPad2d, CircularPad2d: a number for all
    --- sides, or before and after the last dim, then the one before it.
    for kind, mode in pairs { Reflection = "reflect", Replication = "replicate", Constant = "constant", Zero = "constant",
                              Circular = "circular" } do
      local Pad = nn.Module:extend(kind .. "Pad" .. suffix)
      nn[Pad.name] = Pad
      function Pad:init(padding, value)
        if math.type(padding) == "integer" then
          local n = padding
          padding = {}
          for i = 1, 2 * dims do padding[i] = n end
        end
        if type(padding) ~= "table" or #padding ~= 2 * dims then
          fail("%s: padding must be an integer or a table of %d", Pad.name, 2 * dims)
        end
        self.padding, self.value = padding, value or 0
      end
      function Pad:forward(x) return kiln.pad(x, self.padding, mode, self.value) end
      function Pad:extra() return table.concat(self.padding, ", ") end
    end
  end

  --- Upsample{ size =, scale_factor =, mode = "nearest", align_corners = }
  local Upsample = nn.Module:extend "Upsample"
  nn.Upsample = Upsample
  function Upsample:init(options)
    options = options or {}
    self.options = { size = options.size, scale_factor = options.scale_factor, mode = options.mode or "nearest",
                     align_corners = options.align_corners or false }
  end
  function Upsample:forward(x) return F.interpolate(x, self.options) end
  function Upsample:extra() return self.options.mode end
end
