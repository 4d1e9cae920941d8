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
local function parameters(self, first, second, kernel, outputs, bias)
  local shape, fan = { first, second, table.unpack(kernel) }, second
  for _, n in ipairs(kernel) do fan = fan * n end
  self.weight = Parameter(init.kaiming_uniform(kiln.empty(shape), math.sqrt(5)))
  if bias then
    self.bias = Parameter(init.uniform(kiln.empty(outputs), -1 / math.sqrt(fan), 1 / math.sqrt(fan)))
  end
end

-- What all of them have: sets groups, stride and dilation, and returns the kernel's sizes.
local function begin(self, name, inputs, outputs, kernel, given, dims)
  arguments.count(name, "the number of inputs", inputs)
  arguments.count(name, "the number of outputs", outputs)
  local groups = arguments.count(name, "groups", given.groups)
  if inputs % groups ~= 0 or outputs % groups ~= 0 then
    fail("%s: groups = %d does not divide %d inputs and %d outputs", name, groups, inputs, outputs)
  end
  self.groups = groups
  self.stride = arguments.each(name, "stride", given.stride, dims)
  self.dilation = arguments.each(name, "dilation", given.dilation, dims)
  kernel = arguments.each(name, "kernel", kernel, dims)
  for _, n in ipairs(kernel) do arguments.count(name, "a size of the kernel", n) end
  return kernel
end

local fields = { "stride", 1, "padding", 0, "dilation", 1, "groups", 1, "bias", true, "padding_mode", "zeros" }

--- Conv2d(inputs, outputs, kernel [, stride, padding, dilation, groups, bias, padding_mode]) on [N,C,H,W] or [C,H,W]; padding
--- may be "same" or "valid". Conv1d and Conv3d the same.
for dims = 1, 3 do
  local name, op = ("Conv%dd"):format(dims), F[("conv%dd"):format(dims)]
  local Conv = Module:extend(name)
  part[name] = Conv

  function Conv:init(inputs, outputs, kernel, ...)
    local given = arguments.read(name, fields, ...)
    kernel = begin(self, name, inputs, outputs, kernel, given, dims)
    local padding, mode = given.padding, given.padding_mode
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
    parameters(self, outputs, inputs // self.groups, kernel, outputs, given.bias)
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

local transposed_fields = {
  "stride", 1, "padding", 0, "output_padding", 0, "groups", 1, "bias", true, "dilation", 1, "padding_mode", "zeros",
}

--- ConvTranspose2d(inputs, outputs, kernel [, stride, padding, output_padding, groups, bias, dilation]), and of 1 and 3 dims.
for dims = 1, 3 do
  local name, op = ("ConvTranspose%dd"):format(dims), F[("conv_transpose%dd"):format(dims)]
  local Conv = Module:extend(name)
  part[name] = Conv

  function Conv:init(inputs, outputs, kernel, ...)
    local given = arguments.read(name, transposed_fields, ...)
    kernel = begin(self, name, inputs, outputs, kernel, given, dims)
    if given.padding_mode ~= "zeros" then fail("%s: padding_mode can only be 'zeros'", name) end
    self.padding = arguments.each(name, "padding", given.padding, dims)
    self.output_padding = arguments.each(name, "output_padding", given.output_padding, dims)
    parameters(self, inputs, outputs // self.groups, kernel, outputs, given.bias)
  end

  -- The output_padding that gives a result of this size.
  local function padding_for(self, x, size)
    local list, skip = {}, x:dim() - dims
    if #size ~= dims and #size ~= dims + skip then fail("%s: output_size must have %d sizes", name, dims) end
    for i = 1, dims do
      local least = (x:size(skip + i) - 1) * self.stride[i] - 2 * self.padding[i]
        + self.dilation[i] * (self.weight:size(2 + i) - 1) + 1
      list[i] = size[#size - dims + i] - least
      if list[i] < 0 or list[i] >= math.max(self.stride[i], self.dilation[i]) then
        fail("%s: output_size %d is not between %d and %d in dimension %d", name, least + list[i], least,
          least + math.max(self.stride[i], self.dilation[i]) - 1, skip + i)
      end
    end
    return list
  end

  --- forward(x [, output_size]): which of the sizes that give x when they are convolved.
  function Conv:forward(x, output_size)
    local output_padding = self.output_padding
    if output_size then output_padding = padding_for(self, x, output_size) end
    return op(x, self.weight, self.bias, self.stride, self.padding, output_padding, self.groups, self.dilation)
  end

  function Conv:extra()
    local shape = self.weight.shape
    return ("%d -> %d, %s"):format(shape[1], shape[2] * self.groups, arguments.text { table.unpack(shape, 3) })
  end
end

return part
