-- Whole files as strings, packed ones (gzip, xz, …) unpacked, for the readers beside this file.
local kiln = require "kiln"
local fail = kiln.fail

--- The bytes of a file. `where` is who asks, for messages.
local function read_bytes(path, where)
  if type(path) ~= "string" then fail("%s: a path is needed, got %s", where, type(path)) end
  local ok, bytes = pcall(kiln.io.read_file, path)
  if not ok then fail("%s: %s", where, (tostring(bytes):gsub("^.-read_file: ", ""))) end
  return bytes
end

return { read_bytes = read_bytes }
