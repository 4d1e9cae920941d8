-- kiln.data.ImageFolder: pictures sorted into a folder for each class, as files or in an archive of such folders.
local kiln = require "kiln"
local Dataset = require("kiln.data.dataset").Dataset
local read_options = require "kiln.data.options"
local fail = kiln.fail

local endings = { jpg = true, jpeg = true, png = true, ppm = true, pgm = true, pnm = true }

local function is_picture(name)
  local ending = name:match "%.(%w+)$"
  return ending ~= nil and endings[ending:lower()] ~= nil
end

-- Appends { name =, path = } of the pictures below a folder.
local function walk(folder, name, out)
  local folders, files = kiln.list_directory(folder)
  for _, file in ipairs(files) do
    if is_picture(file) then out[#out + 1] = { name = name .. "/" .. file, path = folder .. "/" .. file } end
  end
  for _, sub in ipairs(folders) do walk(folder .. "/" .. sub, name .. "/" .. sub, out) end
end

-- Pictures by class, from a folder: class -> list. A class without pictures is there with an empty list.
local function from_folder(root)
  local by_class = {}
  for _, class in ipairs((kiln.list_directory(root))) do
    by_class[class] = {}
    walk(root .. "/" .. class, class, by_class[class])
  end
  return by_class
end

-- The same from an archive, whose pictures stay in memory as they are packed there. Only what is below `under` counts.
local function from_archive(path, under)
  local by_class, inside = {}, under and under:gsub("/*$", "/") or ""
  for entry, bytes in kiln.io.archive(path) do
    local name = entry:gsub("^%./", "")
    if name:sub(1, #inside) == inside and is_picture(name) then
      name = name:sub(#inside + 1)
      local class = name:match "^([^/]+)/"
      if class then
        by_class[class] = by_class[class] or {}
        table.insert(by_class[class], { name = name, bytes = bytes })
      end
    end
  end
  return by_class
end

local known = {
  transform = { "function or table" },
  target_transform = { "function" },
  mode = { "string", "RGB" },
  under = { "string" },
}

--- ImageFolder(root [, { transform =, target_transform =, mode = "RGB", under = }]): example i is a picture, uint8 [C, H, W]
--- or what `transform` makes of it, and the number of its class, from 1 on. root is a folder with a folder for each
--- class, or an archive (.tar, .tar.xz, .zip, …) of that; `under` names a folder in it. `classes` is the sorted list of
--- the folders' names, `class_to_index` the other way round, `targets` the class of each example.
local ImageFolder = Dataset:extend "ImageFolder"
function ImageFolder:init(root, options)
  if type(root) ~= "string" then fail("ImageFolder: a path is needed, got %s", type(root)) end
  options = read_options("ImageFolder", options, known)
  self.transform, self.target_transform, self.mode = options.transform, options.target_transform, options.mode
  local below = options.under and root .. "/" .. options.under or root
  local by_class
  if pcall(kiln.list_directory, root) then
    by_class = from_folder(below)
  else
    local file = io.open(root, "rb")
    if not file then fail("ImageFolder: there is no folder and no archive %s", root) end
    file:close()
    by_class = from_archive(root, options.under)
  end

  self.classes, self.class_to_index, self.pictures, self.targets = {}, {}, {}, {}
  for class in pairs(by_class) do table.insert(self.classes, class) end
  table.sort(self.classes)
  if #self.classes == 0 then fail("ImageFolder: there are no folders of classes in %s", below) end
  for number, class in ipairs(self.classes) do
    self.class_to_index[class] = number
    local list = by_class[class]
    if #list == 0 then fail("ImageFolder: there are no pictures in the folder %s of %s", class, below) end
    table.sort(list, function(a, b) return a.name < b.name end)
    for _, picture in ipairs(list) do
      table.insert(self.pictures, picture)
      table.insert(self.targets, number)
    end
  end
end

function ImageFolder:len() return #self.pictures end

function ImageFolder:request(i)
  local picture = self.pictures[i]
  if not picture then fail("ImageFolder: there is no picture %s of %d", tostring(i), #self.pictures) end
  return { path = picture.path, bytes = picture.bytes, decode = "image", mode = self.mode }
end

function ImageFolder:describe(i) return self.pictures[i].path or self.pictures[i].name end

function ImageFolder:finish(i, decoded)
  local class = self.targets[i]
  if self.transform then decoded = self.transform(decoded) end
  if self.target_transform then class = self.target_transform(class) end
  return decoded, class
end

function ImageFolder:get(i)
  local job = self:request(i)
  local bytes = job.bytes or kiln.io.read_file(job.path, { raw = true })
  local ok, decoded = pcall(kiln.io.decode_image, bytes, job.mode)
  if not ok then fail("ImageFolder: example %d: %s: %s", i, self:describe(i), (tostring(decoded):gsub("^.-decode_image: ", ""))) end
  return self:finish(i, decoded)
end

return { ImageFolder = ImageFolder }
