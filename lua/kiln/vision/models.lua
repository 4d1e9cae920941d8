-- kiln.vision.models: networks for images; the families are in the folder models. With torchvision's parameter names, so that a
-- safetensors file of its weights loads as it is: kiln.vision.models.resnet18{ weights = "resnet18.safetensors" }.
local models = {}

for _, family in ipairs { "lenet", "resnet", "mobilenet", "vit" } do
  for name, value in pairs(require("kiln.vision.models." .. family)) do models[name] = value end
end

return models
