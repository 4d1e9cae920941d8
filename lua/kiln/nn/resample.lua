-- Images in another size or layout, as modules: Upsample, PixelShuffle, PixelUnshuffle, ChannelShuffle, Unfold, Fold.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local Module = require("kiln.nn.module").Module
local optional = arguments.optional

local part = {}

-- A class whose instances hand a table of options to kiln.interpolate.
local function upsample(name, fields, fixed)
  local Upsample = Module:extend(name)
  part[name] = Upsample
  function Upsample:init(...)
    local given = arguments.read(name, fields, ...)
    if (given.size == nil) == (given.scale_factor == nil) then
      kiln.fail("%s: either size or scale_factor is needed", name)
    end
    self.options = { size = given.size, scale_factor = given.scale_factor, mode = fixed.mode or given.mode,
                     align_corners = fixed.align_corners or given.align_corners or false }
  end
  function Upsample:forward(x) return kiln.interpolate(x, self.options) end
  function Upsample:extra()
    local o = self.options
    return ("%s, %s"):format(o.size and arguments.text(o.size) or "by " .. o.scale_factor, o.mode)
  end
end

--- Upsample(size, scale_factor, mode = "nearest", align_corners = false): one of the first two, best by name.
upsample("Upsample", { "size", optional, "scale_factor", optional, "mode", "nearest", "align_corners", optional }, {})
--- UpsamplingNearest2d(size, scale_factor), UpsamplingBilinear2d(size, scale_factor), whose corners are aligned.
upsample("UpsamplingNearest2d", { "size", optional, "scale_factor", optional }, { mode = "nearest" })
upsample("UpsamplingBilinear2d", { "size", optional, "scale_factor", optional }, { mode = "bilinear", align_corners = true })

--- PixelShuffle(factor), PixelUnshuffle(factor), ChannelShuffle(groups): channels into the plane, the plane into channels,
--- channels dealt out anew.
for name, row in pairs {
  PixelShuffle = { kiln.pixel_shuffle, "the factor" },
  PixelUnshuffle = { kiln.pixel_unshuffle, "the factor" },
  ChannelShuffle = { kiln.channel_shuffle, "groups" },
} do
  local op, what = row[1], row[2]
  local Shuffle = Module:extend(name)
  part[name] = Shuffle
  function Shuffle:init(n) self.n = arguments.count(name, what, n) end
  function Shuffle:forward(x) return op(x, self.n) end
  function Shuffle:extra() return tostring(self.n) end
end

-- What windows have in common.
local windows = { "dilation", 1, "padding", 0, "stride", 1 }
local function set_windows(self, name, kernel, ...)
  local given = arguments.read(name, windows, ...)
  self.kernel = arguments.sizes(name, "kernel", kernel, 2)
  for i = 1, #windows, 2 do self[windows[i]] = arguments.sizes(name, windows[i], given[windows[i]], 2) end
end

--- Unfold(kernel [, dilation, padding, stride]): the windows of [N,C,H,W] as columns [N,C k,L].
local Unfold = Module:extend "Unfold"
function Unfold:init(kernel, ...) set_windows(self, "Unfold", kernel, ...) end
function Unfold:forward(x) return kiln.im2col(x, self.kernel, self.dilation, self.padding, self.stride) end
function Unfold:extra() return arguments.text(self.kernel) end

--- Fold(size, kernel [, dilation, padding, stride]): columns added up where Unfold took them from.
local Fold = Module:extend "Fold"
function Fold:init(size, kernel, ...)
  self.size = arguments.sizes("Fold", "the size", size, 2)
  set_windows(self, "Fold", kernel, ...)
end
function Fold:forward(x) return kiln.col2im(x, self.size, self.kernel, self.dilation, self.padding, self.stride) end
function Fold:extra() return ("%s, %s"):format(arguments.text(self.size), arguments.text(self.kernel)) end

part.Unfold, part.Fold = Unfold, Fold
return part
