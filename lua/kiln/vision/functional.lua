-- kiln.vision.functional: what transforms do to images, as functions on tensors [..., C, H, W]. Only gathers.
local functional = {}

for _, name in ipairs { "resize", "geometry", "color" } do
  for key, value in pairs(require("kiln.vision." .. name)) do functional[key] = value end
end

return functional
