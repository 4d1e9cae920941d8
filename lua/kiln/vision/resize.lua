-- Images in another size: kiln.vision.functional.resize, and how the new size is told. With antialias every new pixel is a
-- weighted mean of all the old ones that it covers: two products with a matrix of weights, one for each direction.
local kiln = require "kiln"
local arguments = require "kiln.vision.arguments"
local fail = kiln.fail

local part = {}

-- ---- the new size ----------------------------------------------------------------------------------------------

--- The height and width that an image of h x w gets: { height, width } as told; a number is the shorter edge, the ratio is
--- kept, and the longer edge is at most max_size.
local function new_size(name, h, w, size, max_size)
  if type(size) == "table" and #size == 1 then size = size[1] end
  if type(size) == "table" then
    if max_size then fail("%s: max_size goes with the size of the shorter edge, not with { height, width }", name) end
    return arguments.size(name, size)
  end
  arguments.positive(name, "the size", size)
  local short, long = math.min(h, w), math.max(h, w)
  if short == 0 then fail("%s: the image has no pixels: %d x %d", name, h, w) end
  local new_long = size * long // short
  if max_size then
    if max_size <= size then fail("%s: max_size must be above the size of the shorter edge, %d, got %d", name, size, max_size) end
    if new_long > max_size then size, new_long = max_size * size // new_long, max_size end
  end
  if w <= h then return new_long, size end
  return size, new_long
end

-- ---- weights ---------------------------------------------------------------------------------------------------

-- How much a pixel counts by its distance from the middle, in pixels of the coarser image.
local falls = {
  bilinear = function(d) return (1 - d):clamp { min = 0 } end,
  bicubic = function(d) -- Keys 1981 with a = -1/2
    local inner = (1.5 * d - 2.5) * d * d + 1
    local outer = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return kiln.where(d:lt(1), inner, kiln.where(d:lt(2), outer, 0.0))
  end,
}

-- 0.5, 1.5 … n - 0.5. A size that is free in a captured function is counted, since arange wants it known.
local function middles(n)
  return kiln.ones(n, { dtype = "float64" }):cumsum(1) - 0.5
end

-- [to, from]: the share of each old pixel in each new one. Rows sum to 1.
local function weights(from, to, fall, like)
  local scale = from / to
  local apart = (middles(from) - (middles(to) * scale):unsqueeze(2)):abs() / math.max(scale, 1.0)
  local share = fall(apart)
  return (share / share:sum(2, { keepdim = true })):to(like)
end

local function smooth(x, h, w, new_h, new_w, fall)
  local across = new_w ~= w and weights(w, new_w, fall, x):t()
  local down = new_h ~= h and weights(h, new_h, fall, x)
  if across and down and h * w * new_w + h * new_h * new_w > h * w * new_h + w * new_h * new_w then -- what is less work first
    return down:matmul(x):matmul(across)
  end
  if across then x = x:matmul(across) end
  if down then x = down:matmul(x) end
  return x
end

-- ---- resize ----------------------------------------------------------------------------------------------------

local kinds = { nearest = "nearest", ["nearest-exact"] = "nearest", bilinear = "linear", bicubic = "linear" }

--- resize(image, size [, { interpolation = "bilinear", max_size =, antialias = true }]): size is { height, width } or the
--- shorter edge. Interpolations: nearest, nearest-exact, bilinear, bicubic. Whole numbers are rounded.
function part.resize(x, size, options)
  local h, w = arguments.image("resize", x)
  options = arguments.options("resize", options, { "interpolation", "max_size", "antialias" })
  local mode = options.interpolation or "bilinear"
  local kind = arguments.choice("resize", "interpolation", mode, kinds)
  local new_h, new_w = new_size("resize", h, w, size, options.max_size)
  if new_h == h and new_w == w then return x end

  local dtype, shape = x.dtype, x.shape
  local floating = arguments.is_floating(x)
  local y = x
  if kind == "linear" and dtype ~= "float32" and dtype ~= "float64" then y = x:float() end
  if kind == "linear" and options.antialias ~= false then
    y = smooth(y, h, w, new_h, new_w, falls[mode])
  else
    y = kiln.interpolate(y:reshape(-1, shape[#shape - 2], h, w), { size = { new_h, new_w }, mode = mode })
    shape[#shape - 1], shape[#shape] = new_h, new_w
    y = y:reshape(shape)
  end
  if y.dtype == dtype then return y end
  if dtype == "uint8" then y = y:clamp(0, 255) end
  if not floating then y = y:round() end
  return y:to(dtype)
end

return part
