-- Images in another size or layout, as modules.
local F = require "kiln.nn.functional"
local Module = require("kiln.nn.module").Module

--- Upsample{ size =, scale_factor =, mode = "nearest", align_corners = }
local Upsample = Module:extend "Upsample"
function Upsample:init(options)
  options = options or {}
  self.options = { size = options.size, scale_factor = options.scale_factor, mode = options.mode or "nearest",
                   align_corners = options.align_corners or false }
end
function Upsample:forward(x) return F.interpolate(x, self.options) end
function Upsample:extra() return self.options.mode end

return { Upsample = Upsample }
