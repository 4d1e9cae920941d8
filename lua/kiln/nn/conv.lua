-- Convolutions as modules: Conv1d, Conv2d, Conv3d and their transposes, with padding as numbers or "same" and "valid", and
-- padding modes.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local F = require "kiln.nn.functional"
local init = require "kiln.nn.init"
local module = require "kiln.nn.module"
local Module, Parameter, fail = module.Module, module.Parameter, kiln.fail

local part = {}

local modes = { zeros = "constant", reflect = "reflect", replicate = "replicate", circular = "circular" }

-- What is padded by hand, for F.pad: the last dim first.
local function margins(padding, kernel, dilation)
  local list = {}
  for i = #kernel, 1, -1 do
    local before, after
    if padding == "same" then
      local all = dilation[i] * (kernel[i] - 1)
      before, after = all // 2, all - all // 2
    else
      before, after = padding[i], padding[i]
    end
    list[#list + 1], list[#list + 2] = before, after
  end
  return list
end

-- Makes the weight and the bias as PyTorch does. `first` and `second` are the weight's first sizes; one output is made of
-- `second` values for each place of the kernel.
local function parameters(self, first, second, kernel, outputs, options)
  local shape, fan = { first, second, table.unpack(kernel) }, second
  for _, n in ipairs(kernel) do fan = fan * n end
  self.weight = Parameter(init.kaiming_uniform(kiln.empty(shape), math.sqrt(5)))
  if options.bias ~= false then
    self.bias = Parameter(init.uniform(kiln.empty(outputs), -1 / math.sqrt(fan), 1 / math.sqrt(fan)))
  end
end

-- What all of them have: sets groups, stride and dilation, and returns the kernel's sizes.
local function begin(self, name, inputs, outputs, kernel, options, dims)
  arguments.count(name, "the number of inputs", inputs)
  arguments.count(name, "the number of outputs", outputs)
  local groups = arguments.count(name, "groups", options.groups or 1)
  if inputs % groups ~= 0 or outputs % groups ~= 0 then
    fail("%s: groups = %d does not divide %d inputs and %d outputs", name, groups, inputs, outputs)
  end
  self.groups = groups
  kernel = arguments.each(name, "kernel", kernel, dims)
  self.stride, self.dilation = arguments.each(name, "stride", options.stride or 1, dims), arguments.each(name, "dilation", options.dilation or 1, dims)
  return kernel
end

--- Conv2d(inputs, outputs, kernel [, { stride, padding, dilation, groups, bias, padding_mode }]) on [N, C, H, W]; padding
--- may be "same" or "valid". Conv1d and Conv3d the same.
for dims = 1, 3 do
  local name, op = ("Conv%dd"):format(dims), F[("conv%dd"):format(dims)]
  local Conv = Module:extend(name)
  part[name] = Conv

  function Conv:init(inputs, outputs, kernel, options)
    options = options or {}
    kernel = begin(self, name, inputs, outputs, kernel, options, dims)
    local padding, mode = options.padding or 0, options.padding_mode or "zeros"
    if padding == "valid" then padding = 0 end
    if padding == "same" then
      for _, s in ipairs(self.stride) do
        if s ~= 1 then fail("%s: padding = \"same\" needs a stride of 1", name) end
      end
    elseif type(padding) == "string" then
      fail("%s: padding must be numbers, \"same\" or \"valid\", got %q", name, padding)
    else
      padding = arguments.each(name, "padding", padding, dims)
    end
    if not modes[mode] then
      fail("%s: padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', got %s", name, tostring(mode))
    end
    if padding == "same" or mode ~= "zeros" then -- padded by hand, as the op pads with zeros and alike on both sides
      self.margins, self.mode = margins(padding, kernel, self.dilation), modes[mode]
      padding = 0
    end
    self.padding = padding
    parameters(self, outputs, inputs // self.groups, kernel, outputs, options)
  end

  function Conv:forward(x)
    if self.margins then x = kiln.pad(x, self.margins, self.mode) end
    return op(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
  end

  function Conv:extra()
    local shape = self.weight.shape
    return ("%d -> %d, %s"):format(shape[2] * self.groups, shape[1], arguments.text { table.unpack(shape, 3) })
  end
end

--- ConvTranspose2d(inputs, outputs, kernel [, { stride, padding, output_padding, groups, bias, dilation }]), and of 1 and 3
--- dims.
for dims = 1, 3 do
  local name, op = ("ConvTranspose%dd"):format(dims), kiln[("conv_transpose%dd"):format(dims)]
  local Conv = Module:extend(name)
  part[name] = Conv

  function Conv:init(inputs, outputs, kernel, options)
    options = options or {}
    kernel = begin(self, name, inputs, outputs, kernel, options, dims)
    self.padding = arguments.each(name, "padding", options.padding or 0, dims)
    self.output_padding = arguments.each(name, "output_padding", options.output_padding or 0, dims)
    parameters(self, inputs, outputs // self.groups, kernel, outputs, options)
  end

  function Conv:forward(x)
    return op(x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation)
  end

  function Conv:extra()
    local shape = self.weight.shape
    return ("%d -> %d, %s"):format(shape[1], shape[2] * self.groups, arguments.text { table.unpack(shape, 3) })
  end
end

return part
