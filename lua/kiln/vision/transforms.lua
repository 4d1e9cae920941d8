-- kiln.vision.transforms: what is done to images on their way into a model, as objects that are called with an image
-- [..., C, H, W]. Those without chance are here, those with it in transforms/random.lua; both call kiln.vision.functional.
local kiln = require "kiln"
local F = require "kiln.vision.functional"
local arguments = require "kiln.vision.arguments"
local nn = require "kiln.nn.module"
local Module, is_module, fail = nn.Module, nn.is_module, kiln.fail

local part = { functional = F }

local function numbers(list)
  if type(list) ~= "table" then return tostring(list) end
  local words = {}
  for i, v in ipairs(list) do words[i] = tostring(v) end
  return table.concat(words, ", ")
end

--- Compose{ a, b, … }: one after the other; plain functions too.
local Compose = Module:extend "Compose"
part.Compose = Compose
function Compose:init(list)
  if type(list) ~= "table" or is_module(list) then fail("Compose: a list of transforms is needed, got %s", type(list)) end
  for i, step in ipairs(list) do
    if not is_module(step) and type(step) ~= "function" then fail("Compose: entry %d must be a transform or a function, got %s", i, type(step)) end
    self[i] = step
  end
end
function Compose:forward(x)
  for i = 1, #self do x = self[i](x) end
  return x
end

--- Lambda(f): a function as a transform.
local Lambda = Module:extend "Lambda"
part.Lambda = Lambda
function Lambda:init(f)
  if type(f) ~= "function" then fail("Lambda: a function is needed, got %s", type(f)) end
  self.f = f
end
function Lambda:forward(x) return self.f(x) end

--- Resize(size [, { interpolation = "bilinear", max_size =, antialias = true }]): { height, width } or the shorter edge.
local Resize = Module:extend "Resize"
part.Resize = Resize
function Resize:init(size, options)
  self.size, self.options = size, arguments.options("Resize", options, { "interpolation", "max_size", "antialias" })
  if type(size) == "table" then arguments.size("Resize", size) else arguments.positive("Resize", "the size", size) end
end
function Resize:forward(x) return F.resize(x, self.size, self.options) end
function Resize:extra() return numbers(self.size) end

--- CenterCrop(size)
local CenterCrop = Module:extend "CenterCrop"
part.CenterCrop = CenterCrop
function CenterCrop:init(size) self.size = { arguments.size("CenterCrop", size) } end
function CenterCrop:forward(x) return F.center_crop(x, self.size) end
function CenterCrop:extra() return numbers(self.size) end

--- FiveCrop(size): a list of the four corners and the middle.
local FiveCrop = Module:extend "FiveCrop"
part.FiveCrop = FiveCrop
function FiveCrop:init(size) self.size = { arguments.size("FiveCrop", size) } end
function FiveCrop:forward(x) return F.five_crop(x, self.size) end
function FiveCrop:extra() return numbers(self.size) end

--- Pad(padding [, { fill = 0, padding_mode = "constant" }])
local Pad = Module:extend "Pad"
part.Pad = Pad
function Pad:init(padding, options)
  self.padding = { arguments.padding("Pad", padding) }
  self.options = arguments.options("Pad", options, { "fill", "padding_mode" })
end
function Pad:forward(x) return F.pad(x, self.padding, self.options) end
function Pad:extra() return numbers(self.padding) end

--- Grayscale([num_output_channels = 1])
local Grayscale = Module:extend "Grayscale"
part.Grayscale = Grayscale
function Grayscale:init(outputs) self.outputs = outputs or 1 end
function Grayscale:forward(x) return F.rgb_to_grayscale(x, self.outputs) end

--- Normalize(mean, std): numbers for each channel, of floating images.
local Normalize = Module:extend "Normalize"
part.Normalize = Normalize
function Normalize:init(mean, std)
  for what, value in pairs { mean = mean or false, std = std or false } do
    if type(value) ~= "table" and type(value) ~= "number" then fail("Normalize: %s must be a list of numbers", what) end
  end
  self.mean, self.std = mean, std
end
function Normalize:forward(x) return F.normalize(x, self.mean, self.std) end
function Normalize:extra() return ("mean %s; std %s"):format(numbers(self.mean), numbers(self.std)) end

--- ToTensor([{ layout = "CHW" }]): float32 from 0 to 1, [C, H, W].
local ToTensor = Module:extend "ToTensor"
part.ToTensor = ToTensor
function ToTensor:init(options) self.options = arguments.options("ToTensor", options, { "layout" }) end
function ToTensor:forward(x) return F.to_tensor(x, self.options) end

--- ConvertImageDtype([dtype = "float32"]): the range changes with the dtype.
local ConvertImageDtype = Module:extend "ConvertImageDtype"
part.ConvertImageDtype = ConvertImageDtype
function ConvertImageDtype:init(dtype) self.dtype = dtype or "float32" end
function ConvertImageDtype:forward(x) return F.convert_image_dtype(x, self.dtype) end
function ConvertImageDtype:extra() return self.dtype end

--- ToDtype(dtype [, { scale = false }])
local ToDtype = Module:extend "ToDtype"
part.ToDtype = ToDtype
function ToDtype:init(dtype, options)
  self.dtype, self.options = dtype or "float32", arguments.options("ToDtype", options, { "scale" })
end
function ToDtype:forward(x) return F.to_dtype(x, self.dtype, self.options) end
function ToDtype:extra() return self.dtype end

for name, value in pairs(require "kiln.vision.transforms.random") do part[name] = value end

return part
