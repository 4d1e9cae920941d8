-- Which pixel stands where: cropping, padding, flipping, turning, as functions. They work on [..., C, H, W] of any dtype.
-- Positions of rows and columns count from 1. Sizes that change by interpolation: resize.lua.
local kiln = require "kiln"
local arguments = require "kiln.vision.arguments"
local resize = require("kiln.vision.resize").resize
local fail = kiln.fail

local part = {}

--- hflip(image), horizontal_flip(image): left is right.
function part.hflip(x)
  arguments.image("hflip", x)
  return x:flip(-1)
end

--- vflip(image), vertical_flip(image): top is bottom.
function part.vflip(x)
  arguments.image("vflip", x)
  return x:flip(-2)
end
part.horizontal_flip, part.vertical_flip = part.hflip, part.vflip

-- ---- padding ---------------------------------------------------------------------------------------------------

local modes = { constant = "constant", edge = "replicate", reflect = "reflect", symmetric = "symmetric" }

-- The edges mirrored with the last pixel twice: places along one dimension.
local function symmetric(x, dim, before, after)
  if before == 0 and after == 0 then return x end
  local n, places = x:size(dim), {}
  if before > n or after > n then fail("pad: %d and %d pixels cannot be mirrored from %d", before, after, n) end
  for i = 1 - before, n + after do places[#places + 1] = i < 1 and 1 - i or i > n and 2 * n + 1 - i or i end
  return x:index_select(kiln.tensor(places, { device = x.device }), dim)
end

-- A fill for each channel: added where a padded image of ones is zero.
local function pad_colours(x, margins, fill, channels)
  if #fill ~= channels then fail("pad: %d fill values for %d channels", #fill, channels) end
  local inside = kiln.pad(kiln.ones(x.shape, { dtype = "bool", device = x.device }):to "uint8", margins, "constant", 0):to "bool"
  return kiln.where(inside, kiln.pad(x, margins, "constant", 0), kiln.tensor(fill):to(x):reshape(-1, 1, 1))
end

--- pad(image, padding [, { fill = 0, padding_mode = "constant" }]): padding is a number, { left and right, top and bottom } or
--- { left, top, right, bottom }; modes: constant, edge, reflect, symmetric. A constant may be a list, one for each channel.
function part.pad(x, padding, options)
  local _, _, channels = arguments.image("pad", x)
  options = arguments.options("pad", options, { "fill", "padding_mode" })
  local left, top, right, bottom = arguments.padding("pad", padding)
  local mode = arguments.choice("pad", "padding_mode", options.padding_mode or "constant", modes)
  local fill, margins = options.fill or 0, { left, right, top, bottom }
  if mode == "symmetric" then return symmetric(symmetric(x, -1, left, right), -2, top, bottom) end
  if mode ~= "constant" then return kiln.pad(x, margins, mode) end
  if type(fill) == "table" and #fill > 1 then return pad_colours(x, margins, fill, channels) end
  return kiln.pad(x, margins, "constant", type(fill) == "table" and fill[1] or fill)
end

-- ---- cropping --------------------------------------------------------------------------------------------------

--- crop(image, top, left, height, width): from that row and column on. What lies outside the image is 0.
function part.crop(x, top, left, height, width)
  local h, w = arguments.image("crop", x)
  arguments.size("crop", { height, width })
  if math.type(top) ~= "integer" or math.type(left) ~= "integer" then
    fail("crop: top and left must be whole numbers, got %s and %s", tostring(top), tostring(left))
  end
  local above, below = math.max(1 - top, 0), math.max(top + height - 1 - h, 0)
  local before, after = math.max(1 - left, 0), math.max(left + width - 1 - w, 0)
  if above + below + before + after > 0 then x = kiln.pad(x, { before, after, above, below }) end
  return x:narrow(-2, top + above, height):narrow(-1, left + before, width)
end

-- Half of a whole number, rounded to the even one.
local function half(n)
  local down = n // 2
  return n % 2 == 1 and down % 2 == 1 and down + 1 or down
end

--- center_crop(image, size): the middle; what the image lacks is 0.
function part.center_crop(x, size)
  local h, w = arguments.image("center_crop", x)
  local height, width = arguments.size("center_crop", size)
  local down, across = math.max(height - h, 0), math.max(width - w, 0)
  if down > 0 or across > 0 then
    x = kiln.pad(x, { across // 2, (across + 1) // 2, down // 2, (down + 1) // 2 })
    h, w = h + down, w + across
  end
  return x:narrow(-2, half(h - height) + 1, height):narrow(-1, half(w - width) + 1, width)
end

local function corner(name, last_row, last_column)
  return function(x, height, width)
    local h, w = arguments.image(name, x)
    return part.crop(x, last_row and h - height + 1 or 1, last_column and w - width + 1 or 1, height, width)
  end
end
local top_left, top_right = corner("five_crop"), corner("five_crop", false, true)
local bottom_left, bottom_right = corner("five_crop", true), corner("five_crop", true, true)

--- five_crop(image, size): a list of the four corners and the middle.
function part.five_crop(x, size)
  local h, w = arguments.image("five_crop", x)
  local height, width = arguments.size("five_crop", size)
  if height > h or width > w then fail("five_crop: %d x %d is more than the image has, %d x %d", height, width, h, w) end
  return { top_left(x, height, width), top_right(x, height, width), bottom_left(x, height, width),
    bottom_right(x, height, width), part.center_crop(x, size) }
end

--- resized_crop(image, top, left, height, width, size [, options of resize]).
function part.resized_crop(x, top, left, height, width, size, options)
  return resize(part.crop(x, top, left, height, width), size, options)
end

-- ---- turning ---------------------------------------------------------------------------------------------------

-- Where in the image the pixels of the result lie, from -1 to 1: a turn by the angle around a centre that is (cx, cy) away
-- from the middle.
local function turned_grid(angle, cx, cy, h, w, out_h, out_w, like)
  local a, b = math.cos(angle), math.sin(angle)
  local kind = { dtype = like.dtype, device = like.device }
  local x = (kiln.arange(out_w, kind) - (out_w - 1) / 2 - cx):unsqueeze(1)
  local y = (kiln.arange(out_h, kind) - (out_h - 1) / 2 - cy):unsqueeze(2)
  local from_x, from_y = x * a - y * b + cx, x * b + y * a + cy
  return kiln.stack({ from_x / (w / 2), from_y / (h / 2) }, 3):unsqueeze(1)
end

-- The size that holds the whole turned image. A ten thousandth of a pixel is rounding.
local function turned_size(angle, h, w)
  local a, b = math.abs(math.cos(angle)), math.abs(math.sin(angle))
  local function whole(extent, old)
    local low, high = (old - extent) / 2, (old + extent) / 2
    local function cut(v) return (v < 0 and math.ceil(v * 1e4 - 1e-3) or math.floor(v * 1e4 + 1e-3)) * 1e-4 end
    return (math.ceil(cut(high)) - math.floor(cut(low))) | 0 -- whole, which a graph does not see
  end
  return whole(h * a + w * b, h), whole(w * a + h * b, w)
end

--- rotate(image, angle [, { interpolation = "nearest", expand = false, center = { x, y }, fill = 0 }]): by degrees against the
--- clock. `center` is in pixels from the upper left corner; `expand` makes room for the whole turned image.
function part.rotate(x, angle, options)
  local h, w, channels = arguments.image("rotate", x)
  options = arguments.options("rotate", options, { "interpolation", "expand", "center", "fill" })
  local mode = arguments.choice("rotate", "interpolation", options.interpolation or "nearest",
    { nearest = "nearest", bilinear = "bilinear" })
  angle = angle % 360
  if not options.center then
    if angle == 0 then return x:clone() end
    if angle == 180 then return x:rot90(2, { -2, -1 }) end
    if (options.expand or h == w) and angle == 90 then return x:rot90(1, { -2, -1 }) end
    if (options.expand or h == w) and angle == 270 then return x:rot90(3, { -2, -1 }) end
  end
  local cx = options.center and options.center[1] - w / 2 or 0
  local cy = options.center and options.center[2] - h / 2 or 0
  angle = angle * (math.pi / 180)
  local out_h, out_w = h, w
  if options.expand then out_h, out_w = turned_size(angle, h, w) end

  local dtype, shape = x.dtype, x.shape
  local y = x
  if dtype ~= "float32" and dtype ~= "float64" then y = x:float() end
  y = y:reshape(-1, channels, h, w)
  local grid = turned_grid(angle, cx, cy, h, w, out_h, out_w, y):expand(y:size(1), -1, -1, -1)
  local sampling = { mode = mode, padding_mode = "zeros", align_corners = false }
  local fill = options.fill
  if fill then -- the share of the image in each pixel decides how much of the fill it gets
    local inside = kiln.ones(y:size(1), 1, h, w, { dtype = y.dtype, device = y.device }):grid_sample(grid, sampling)
    local colour = kiln.tensor(type(fill) == "table" and fill or { fill }):to(y):reshape(-1, 1, 1)
    y = y:grid_sample(grid, sampling)
    if mode == "nearest" then
      y = kiln.where(inside:lt(0.5), colour, y)
    else
      y = (y - colour) * inside + colour
    end
  else
    y = y:grid_sample(grid, sampling)
  end
  shape[#shape - 1], shape[#shape] = out_h, out_w
  y = y:reshape(shape)
  if y.dtype == dtype then return y end
  if not arguments.is_floating(x) then y = y:round() end
  return y:to(dtype)
end

return part
