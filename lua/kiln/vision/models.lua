-- kiln.vision.models: only gathers the families in the folder models.
local models = {}

return models
