-- kiln.vision: images in files, transforms and models. Only gathers; the parts are in the folder vision.
local vision = {
  functional = require "kiln.vision.functional",
  transforms = require "kiln.vision.transforms",
  models = require "kiln.vision.models",
}

for name, value in pairs(require "kiln.vision.io") do vision[name] = value end

return vision
