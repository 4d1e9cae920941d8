-- Transforms that leave something to chance. They draw from kiln's stream, so kiln.manual_seed repeats them, and treat all
-- images of a batch alike. What they do with what was drawn is in kiln.vision.functional.
local kiln = require "kiln"
local F = require "kiln.vision.functional"
local arguments = require "kiln.vision.arguments"
local nn = require "kiln.nn.module"
local Module, is_module, fail = nn.Module, nn.is_module, kiln.fail

local part = {}

-- ---- draws -----------------------------------------------------------------------------------------------------

local function uniform(low, high) return kiln.rand(1):item() * (high - low) + low end

-- A whole number from 1 to n.
local function whole(n) return kiln.randint(1, n + 1, { 1 }):item() end

-- The nearest whole number. `| 0` says so where only a graph knows the number.
local function rounded(v) return math.floor(v + 0.5) | 0 end

local function probability(name, p, default)
  if p == nil then return default end
  if type(p) ~= "number" or not (p >= 0 and p <= 1) then fail("%s: the probability must be from 0 to 1, got %s", name, tostring(p)) end
  return p
end

-- { low, high } with low <= high in the bounds.
local function range(name, what, value, low, high)
  if type(value) ~= "table" or #value ~= 2 or type(value[1]) ~= "number" or type(value[2]) ~= "number" then
    fail("%s: %s must be { least, most }", name, what)
  end
  if not (low <= value[1] and value[1] <= value[2] and value[2] <= high) then
    fail("%s: %s must rise within %g and %g, got %g and %g", name, what, low, high, value[1], value[2])
  end
  return value
end

-- ---- with a probability ----------------------------------------------------------------------------------------

--- RandomHorizontalFlip([p = 0.5]), RandomVerticalFlip([p = 0.5]), RandomInvert([p = 0.5]), RandomGrayscale([p = 0.1]): the
--- image, or with that probability the other one.
local function sometimes(name, default, change)
  local Layer = Module:extend(name)
  part[name] = Layer
  function Layer:init(p) self.p = probability(name, p, default) end
  function Layer:forward(x)
    if kiln.rand(1):item() < self.p then return change(x) end
    return x
  end
  function Layer:extra() return tostring(self.p) end
end
sometimes("RandomHorizontalFlip", 0.5, F.hflip)
sometimes("RandomVerticalFlip", 0.5, F.vflip)
sometimes("RandomInvert", 0.5, F.invert)
sometimes("RandomGrayscale", 0.1, function(x)
  local shape = x.shape
  return F.rgb_to_grayscale(x, shape[#shape - 2])
end)

local function fill_list(self, name, list)
  if type(list) ~= "table" or is_module(list) or #list == 0 then fail("%s: a list of transforms is needed", name) end
  for i, step in ipairs(list) do
    if not is_module(step) and type(step) ~= "function" then fail("%s: entry %d must be a transform or a function, got %s", name, i, type(step)) end
    self[i] = step
  end
end

--- RandomApply({ a, b, … } [, p = 0.5]): all of them or none.
local RandomApply = Module:extend "RandomApply"
part.RandomApply = RandomApply
function RandomApply:init(list, p)
  fill_list(self, "RandomApply", list)
  self.p = probability("RandomApply", p, 0.5)
end
function RandomApply:forward(x)
  if kiln.rand(1):item() < self.p then
    for i = 1, #self do x = self[i](x) end
  end
  return x
end
function RandomApply:extra() return tostring(self.p) end

--- RandomChoice({ a, b, … } [, p]): one of them; p are weights.
local RandomChoice = Module:extend "RandomChoice"
part.RandomChoice = RandomChoice
function RandomChoice:init(list, p)
  fill_list(self, "RandomChoice", list)
  if p ~= nil and (type(p) ~= "table" or #p ~= #list) then fail("RandomChoice: %d weights are needed, one for each transform", #list) end
  local total, upto = 0, {}
  for i = 1, #list do
    local weight = p and p[i] or 1
    if type(weight) ~= "number" or not (weight >= 0) then fail("RandomChoice: weight %d must be a number from 0 on", i) end
    total = total + weight
    upto[i] = total
  end
  if total <= 0 then fail("RandomChoice: a weight must be above 0") end
  self.upto = upto
end
function RandomChoice:forward(x)
  local upto = self.upto
  local drawn = uniform(0, upto[#upto])
  for i = 1, #upto do
    if drawn < upto[i] then return self[i](x) end
  end
  return self[#upto](x)
end

--- RandomOrder{ a, b, … }: all of them, in any order.
local RandomOrder = Module:extend "RandomOrder"
part.RandomOrder = RandomOrder
function RandomOrder:init(list) fill_list(self, "RandomOrder", list) end
function RandomOrder:forward(x)
  local order, list = kiln.randperm(#self), {}
  for i = 1, #self do list[i] = self[i] end -- a plain list may be indexed by what a graph draws
  for i = 1, #list do x = list[order[i]:item()](x) end
  return x
end

-- ---- cropping --------------------------------------------------------------------------------------------------

--- RandomCrop(size [, { padding =, pad_if_needed = false, fill = 0, padding_mode = "constant" }])
local RandomCrop = Module:extend "RandomCrop"
part.RandomCrop = RandomCrop
function RandomCrop:init(size, options)
  options = arguments.options("RandomCrop", options, { "padding", "pad_if_needed", "fill", "padding_mode" })
  self.height, self.width = arguments.size("RandomCrop", size)
  if options.padding then self.padding = { arguments.padding("RandomCrop", options.padding) } end
  self.pad_if_needed = options.pad_if_needed or false
  self.margin = { fill = options.fill, padding_mode = options.padding_mode }
end
function RandomCrop:forward(x)
  if self.padding then x = F.pad(x, self.padding, self.margin) end
  local h, w = arguments.image("RandomCrop", x)
  if self.pad_if_needed and (h < self.height or w < self.width) then
    local down, across = math.max(self.height - h, 0), math.max(self.width - w, 0)
    x = F.pad(x, { across, down }, self.margin)
    h, w = h + 2 * down, w + 2 * across
  end
  if h < self.height or w < self.width then
    fail("RandomCrop: %d x %d is more than the image has, %d x %d", self.height, self.width, h, w)
  end
  local top, left = whole(h - self.height + 1), whole(w - self.width + 1)
  return F.crop(x, top, left, self.height, self.width)
end
function RandomCrop:extra() return ("%d x %d"):format(self.height, self.width) end

-- The part of an image of h x w with an area and a ratio of width to height out of these ranges: ten tries, then the middle.
local function draw_part(h, w, scale, ratio)
  local low, high = math.log(ratio[1]), math.log(ratio[2])
  for _ = 1, 10 do
    local area, aspect = h * w * uniform(scale[1], scale[2]), math.exp(uniform(low, high))
    local width, height = rounded(math.sqrt(area * aspect)), rounded(math.sqrt(area / aspect))
    if width > 0 and width <= w and height > 0 and height <= h then
      return whole(h - height + 1), whole(w - width + 1), height, width
    end
  end
  local width, height = w, h
  if w / h < ratio[1] then height = rounded(w / ratio[1]) end
  if w / h > ratio[2] then width = rounded(h * ratio[2]) end
  width, height = math.max(width, 1), math.max(height, 1)
  return (h - height) // 2 + 1, (w - width) // 2 + 1, height, width
end

--- RandomResizedCrop(size [, { scale = { 0.08, 1 }, ratio = { 3/4, 4/3 }, interpolation = "bilinear", antialias = true }]): a part
--- of the image of any such area and shape, in that size.
local RandomResizedCrop = Module:extend "RandomResizedCrop"
part.RandomResizedCrop = RandomResizedCrop
function RandomResizedCrop:init(size, options)
  options = arguments.options("RandomResizedCrop", options, { "scale", "ratio", "interpolation", "antialias" })
  self.size = { arguments.size("RandomResizedCrop", size) }
  self.scale = range("RandomResizedCrop", "scale", options.scale or { 0.08, 1 }, 0, math.huge)
  self.ratio = range("RandomResizedCrop", "ratio", options.ratio or { 3 / 4, 4 / 3 }, 1e-9, math.huge)
  self.resizing = { interpolation = options.interpolation, antialias = options.antialias }
end
function RandomResizedCrop:forward(x)
  local h, w = arguments.image("RandomResizedCrop", x)
  if h == 0 or w == 0 then fail("RandomResizedCrop: the image has no pixels: %d x %d", h, w) end
  local top, left, height, width = draw_part(h, w, self.scale, self.ratio)
  return F.resized_crop(x, top, left, height, width, self.size, self.resizing)
end
function RandomResizedCrop:extra() return ("%d x %d"):format(self.size[1], self.size[2]) end

--- RandomErasing([p = 0.5 [, { scale = { 0.02, 0.33 }, ratio = { 0.3, 3.3 }, value = 0 }]]): a rectangle of the image is lost;
--- value: a number, one for each channel, or "random".
local RandomErasing = Module:extend "RandomErasing"
part.RandomErasing = RandomErasing
function RandomErasing:init(p, options)
  options = arguments.options("RandomErasing", options, { "scale", "ratio", "value" })
  self.p = probability("RandomErasing", p, 0.5)
  self.scale = range("RandomErasing", "scale", options.scale or { 0.02, 0.33 }, 0, 1)
  self.ratio = range("RandomErasing", "ratio", options.ratio or { 0.3, 3.3 }, 1e-9, math.huge)
  self.value = options.value or 0
  local kind = type(self.value)
  if kind ~= "number" and kind ~= "table" and self.value ~= "random" then
    fail("RandomErasing: value must be a number, a list of them or 'random', got %s", tostring(self.value))
  end
end
function RandomErasing:forward(x)
  local h, w, channels = arguments.image("RandomErasing", x)
  if kiln.rand(1):item() >= self.p then return x end
  local low, high = math.log(self.ratio[1]), math.log(self.ratio[2])
  for _ = 1, 10 do
    local area, aspect = h * w * uniform(self.scale[1], self.scale[2]), math.exp(uniform(low, high))
    local height, width = rounded(math.sqrt(area * aspect)), rounded(math.sqrt(area / aspect))
    if height < h and width < w and height > 0 and width > 0 then
      local value = self.value
      if value == "random" then
        value = kiln.randn(channels, height, width):to(x)
      else
        value = kiln.tensor(type(value) == "table" and value or { value }):to(x):reshape(-1, 1, 1)
      end
      local out = x:clone()
      out:narrow(-2, whole(h - height + 1), height):narrow(-1, whole(w - width + 1), width):copy_(value)
      return out
    end
  end
  return x
end
function RandomErasing:extra() return tostring(self.p) end

-- ---- colours, turning ------------------------------------------------------------------------------------------

-- The order in which ColorJitter's parts are numbered for its draw.
local adjustments = { "brightness", "contrast", "saturation", "hue" }

-- { least, most } of a factor, or nothing where the image stays as it is.
local function jitter(name, value)
  if value == nil then return nil end
  local middle, low, high = 1, 0, math.huge
  if name == "hue" then middle, low, high = 0, -0.5, 0.5 end
  if type(value) == "number" then
    if value < 0 then fail("ColorJitter: %s must not be negative, got %g", name, value) end
    value = { middle - value, middle + value }
    if name ~= "hue" then value[1] = math.max(value[1], 0) end
  end
  range("ColorJitter", name, value, low, high)
  if value[1] == middle and value[2] == middle then return nil end
  return value
end

--- ColorJitter{ brightness =, contrast =, saturation =, hue = }: factors up to so far from 1 (hue: from 0), or out of
--- { least, most }, in any order.
local ColorJitter = Module:extend "ColorJitter"
part.ColorJitter = ColorJitter
function ColorJitter:init(options)
  options = arguments.options("ColorJitter", options, adjustments)
  for _, name in ipairs(adjustments) do self[name] = jitter(name, options[name]) end
end
function ColorJitter:forward(x)
  local order = kiln.randperm(#adjustments)
  for i = 1, #adjustments do
    local name = adjustments[order[i]:item()]
    local limits = self[name]
    if limits then x = F["adjust_" .. name](x, uniform(limits[1], limits[2])) end
  end
  return x
end

--- RandomRotation(degrees [, { interpolation = "nearest", expand = false, center =, fill = 0 }]): by an angle from -degrees to
--- degrees, or out of { least, most }.
local RandomRotation = Module:extend "RandomRotation"
part.RandomRotation = RandomRotation
function RandomRotation:init(degrees, options)
  if type(degrees) == "number" then
    if degrees < 0 then fail("RandomRotation: degrees must not be negative, got %g", degrees) end
    degrees = { -degrees, degrees }
  end
  self.degrees = range("RandomRotation", "degrees", degrees, -math.huge, math.huge)
  options = arguments.options("RandomRotation", options, { "interpolation", "expand", "center", "fill" })
  self.options = { interpolation = options.interpolation, expand = options.expand, center = options.center, fill = options.fill or 0 }
end
function RandomRotation:forward(x) return F.rotate(x, uniform(self.degrees[1], self.degrees[2]), self.options) end
function RandomRotation:extra() return ("%g to %g"):format(self.degrees[1], self.degrees[2]) end

return part
