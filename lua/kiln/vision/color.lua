-- What colour pixels have: dtype and range, normalising, grey, brightness, contrast, saturation and hue, as functions on
-- [..., C, H, W]. Colours are red, green, blue; floating images reach from 0 to 1, whole ones from 0 to their dtype's largest.
local kiln = require "kiln"
local arguments = require "kiln.vision.arguments"
local fail = kiln.fail

local part = {}

-- ---- dtypes ----------------------------------------------------------------------------------------------------

-- Bits that hold the value of whole dtypes.
local bits = { uint8 = 8, int8 = 7, int16 = 15, int32 = 31, int64 = 63, bool = 1 }

local function largest(dtype) return bits[dtype] and (bits[dtype] == 63 and math.maxinteger or (1 << bits[dtype]) - 1) or 1 end

--- to_dtype(image, dtype [, { scale = false }]): with scale the range changes with the dtype: 255 as uint8 is 1 as a float.
function part.to_dtype(x, dtype, options)
  if not kiln.is_tensor(x) then fail("to_dtype: an image is needed, got %s", type(x)) end
  options = arguments.options("to_dtype", options, { "scale" })
  dtype = dtype or "float32"
  local from = x.dtype
  if from == dtype or not options.scale then return x:to(dtype) end
  local from_bits, to_bits = bits[from], bits[dtype]
  if not from_bits and not to_bits then return x:to(dtype) end
  if not to_bits then return x:to(dtype) * (1 / largest(from)) end
  if not from_bits then
    if to_bits > 16 and (from ~= "float64" or to_bits > 32) then
      fail("to_dtype: %s is too coarse for the range of %s", from, dtype)
    end
    return (x * (largest(dtype) + 1 - 1e-3)):to(dtype) -- so that each whole number gets an equal part of 0 to 1
  end
  if from_bits > to_bits then return x:bitwise_right_shift(from_bits - to_bits):to(dtype) end
  return x:to(dtype):bitwise_left_shift(to_bits - from_bits)
end

--- convert_image_dtype(image [, dtype = "float32"]): to_dtype with its range.
function part.convert_image_dtype(x, dtype) return part.to_dtype(x, dtype, { scale = true }) end

local layouts = { CHW = "CHW", HWC = "HWC" }

--- to_tensor(image [, { layout = "CHW" }]): float32 [C, H, W], uint8 divided by 255. read_image gives [C, H, W]; pixels that lie
--- with their channels together are told by layout = "HWC". An image [H, W] gets one channel.
function part.to_tensor(x, options)
  if not kiln.is_tensor(x) then fail("to_tensor: an image is needed, got %s", type(x)) end
  options = arguments.options("to_tensor", options, { "layout" })
  local layout = arguments.choice("to_tensor", "layout", options.layout or "CHW", layouts)
  local dims = x:dim()
  if dims ~= 2 and dims ~= 3 then fail("to_tensor: an image of 2 or 3 dimensions is needed, got %d", dims) end
  if dims == 2 then
    x = x:unsqueeze(1)
  elseif layout == "HWC" then
    x = x:permute(3, 1, 2):contiguous()
  end
  if x.dtype == "uint8" then return x:float() / 255 end
  return arguments.is_floating(x) and x or x:float()
end

-- ---- channels --------------------------------------------------------------------------------------------------

local function per_channel(name, what, value, channels, like)
  local list = type(value) == "table" and value or { value }
  if #list ~= 1 and #list ~= channels then fail("%s: %s has %d values, the image %d channels", name, what, #list, channels) end
  for _, v in ipairs(list) do
    if type(v) ~= "number" then fail("%s: %s must be numbers, got %s", name, what, type(v)) end
  end
  return kiln.tensor(list, { dtype = like.dtype, device = like.device }):reshape(-1, 1, 1)
end

--- normalize(image, mean, std): (image - mean) / std, a number for each channel.
function part.normalize(x, mean, std)
  local _, _, channels = arguments.image("normalize", x)
  if not arguments.is_floating(x) then fail("normalize: a floating image is needed, got %s; use to_tensor first", x.dtype) end
  for _, v in ipairs(type(std) == "table" and std or { std }) do
    if v == 0 then fail("normalize: std must not be 0") end
  end
  return (x - per_channel("normalize", "mean", mean, channels, x)) / per_channel("normalize", "std", std, channels, x)
end

local function need_colours(name, channels)
  if channels ~= 1 and channels ~= 3 then fail("%s: an image of 1 or 3 channels is needed, got %d", name, channels) end
end

local function need_factor(name, factor)
  if type(factor) ~= "number" or not (factor >= 0) then fail("%s: the factor must be a number from 0 on, got %s", name, tostring(factor)) end
end

local function channel(x, i) return x:narrow(-3, i, 1) end

-- Brightness as eyes see it, one channel, not rounded.
local function luminance(x)
  return channel(x, 1) * 0.2989 + channel(x, 2) * 0.587 + channel(x, 3) * 0.114
end

--- rgb_to_grayscale(image [, num_output_channels = 1]), to_grayscale(…): 1 channel, or 3 equal ones.
function part.rgb_to_grayscale(x, outputs)
  local h, w, channels = arguments.image("rgb_to_grayscale", x)
  outputs = outputs or 1
  if outputs ~= 1 and outputs ~= 3 then fail("rgb_to_grayscale: num_output_channels must be 1 or 3, got %s", tostring(outputs)) end
  need_colours("rgb_to_grayscale", channels)
  local grey = channels == 1 and x or luminance(x):to(x.dtype)
  if outputs == 1 then return grey end
  local shape = x.shape
  shape[#shape - 2], shape[#shape - 1], shape[#shape] = 3, h, w
  return grey:expand(shape)
end
part.to_grayscale = part.rgb_to_grayscale

-- ---- brightness, contrast, saturation --------------------------------------------------------------------------

-- As much of `x` as the factor says, the rest of `other`; above 1 away from it.
local function blend(x, other, factor)
  local y = (x * factor + other * (1 - factor)):clamp(0, largest(x.dtype))
  return y:to(x.dtype)
end

-- The grey image that blending starts from: whole numbers for whole images.
local function grey_of(x)
  local grey = luminance(x)
  return arguments.is_floating(x) and grey or grey:floor()
end

--- adjust_brightness(image, factor): 0 is black, 1 the image.
function part.adjust_brightness(x, factor)
  local _, _, channels = arguments.image("adjust_brightness", x)
  need_colours("adjust_brightness", channels)
  need_factor("adjust_brightness", factor)
  return (x * (factor + 0.0)):clamp(0, largest(x.dtype)):to(x.dtype)
end

--- adjust_contrast(image, factor): 0 is the mean grey, 1 the image.
function part.adjust_contrast(x, factor)
  local _, _, channels = arguments.image("adjust_contrast", x)
  need_colours("adjust_contrast", channels)
  need_factor("adjust_contrast", factor)
  local grey = channels == 3 and grey_of(x) or arguments.is_floating(x) and x or x:float()
  return blend(x, grey:mean({ -3, -2, -1 }, { keepdim = true }), factor + 0.0)
end

--- adjust_saturation(image, factor): 0 is grey, 1 the image.
function part.adjust_saturation(x, factor)
  local _, _, channels = arguments.image("adjust_saturation", x)
  need_colours("adjust_saturation", channels)
  need_factor("adjust_saturation", factor)
  if channels == 1 then return x end
  return blend(x, grey_of(x), factor + 0.0)
end

-- ---- hue -------------------------------------------------------------------------------------------------------

-- Hue (0 to 1, once round), saturation and value of floating colours.
local function to_hsv(x)
  local r, g, b = channel(x, 1), channel(x, 2), channel(x, 3)
  local high, low = x:amax(-3, { keepdim = true }), x:amin(-3, { keepdim = true })
  local grey = high:eq(low)
  local range = kiln.where(grey, 1.0, high - low)
  local hue = kiln.where(high:eq(r), (g - b) / range, kiln.where(high:eq(g), (b - r) / range + 2, (r - g) / range + 4))
  return kiln.where(grey, 0.0, hue / 6) % 1, (high - low) / kiln.where(grey, 1.0, high), high
end

-- One colour of hue, saturation and value: how far its sixth of the circle is from the hue decides.
local function from_hsv(hue, saturation, value, start)
  local k = (hue * 6 + start) % 6
  return value - value * saturation * kiln.minimum(k, 4 - k):clamp(0, 1)
end

--- adjust_hue(image, factor): colours moved round their circle by -0.5 to 0.5 of it.
function part.adjust_hue(x, factor)
  local _, _, channels = arguments.image("adjust_hue", x)
  need_colours("adjust_hue", channels)
  if type(factor) ~= "number" or not (factor >= -0.5 and factor <= 0.5) then
    fail("adjust_hue: the factor must be from -0.5 to 0.5, got %s", tostring(factor))
  end
  if channels == 1 then return x end
  local dtype = x.dtype
  local hue, saturation, value = to_hsv(arguments.is_floating(x) and x or part.convert_image_dtype(x))
  hue = (hue + factor) % 1
  local y = kiln.cat({ from_hsv(hue, saturation, value, 5), from_hsv(hue, saturation, value, 3), from_hsv(hue, saturation, value, 1) }, -3)
  return part.to_dtype(y, dtype, { scale = true })
end

--- invert(image): white becomes black.
function part.invert(x)
  arguments.image("invert", x)
  return (largest(x.dtype) - x):to(x.dtype)
end

return part
