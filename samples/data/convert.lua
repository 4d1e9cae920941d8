-- How digits-images.idx3-ubyte and digits-labels.idx1-ubyte were made: reads the CSV of the data set (64 pixels
-- and the digit on each line) and writes both files, in the order of the lines. Plain Lua 5.4:
--   zcat digits.csv.gz | lua5.4 samples/data/convert.lua samples/data
local dir = assert(arg[1], "usage: zcat digits.csv.gz | lua5.4 convert.lua DIRECTORY")

local images, labels = {}, {}
for line in io.lines() do
  local row = {}
  for field in line:gmatch "[^,]+" do row[#row + 1] = assert(math.tointeger(tonumber(field)), line) end
  assert(#row == 65, "65 fields on a line")
  labels[#labels + 1] = string.char(table.remove(row))
  for _, pixel in ipairs(row) do assert(pixel >= 0 and pixel <= 16, "a pixel out of 0 .. 16") end
  images[#images + 1] = string.char(table.unpack(row))
end

-- IDX: two zero bytes, 8 for unsigned bytes, the rank; the sizes as big-endian 32-bit integers; the bytes.
local function write(name, sizes, parts)
  local file = assert(io.open(dir .. "/" .. name, "wb"))
  assert(file:write(string.pack(">BBBB", 0, 0, 8, #sizes)))
  for _, size in ipairs(sizes) do assert(file:write(string.pack(">I4", size))) end
  assert(file:write(table.concat(parts)))
  assert(file:close())
end
write("digits-images.idx3-ubyte", { #images, 8, 8 }, images)
write("digits-labels.idx1-ubyte", { #labels }, labels)
print(#images .. " images")
