-- kiln.data: datasets, loaders and readers of files. This file only gathers: they come from the parts in the folder data, each
-- of which returns a table of what it adds.
local data = {}

for _, part in ipairs {
  "batches",
  "collate",
  "csv",
  "dataset",
  "find",
  "idx",
  "image_folder",
  "loader",
  "text",
  "wav",
} do
  for name, value in pairs(require("kiln.data." .. part)) do data[name] = value end
end

return data
