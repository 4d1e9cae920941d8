-- kiln.vision: images, transforms and models. Only gathers; the parts are in the folder vision.
local vision = {
  functional = require "kiln.vision.functional",
  transforms = require "kiln.vision.transforms",
  models = require "kiln.vision.models",
}

return vision
