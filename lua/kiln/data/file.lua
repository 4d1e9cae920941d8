-- Whole files as strings, packed ones unpacked, for the readers beside this file.
local kiln = require "kiln"
local fail = kiln.fail

--- The bytes of a file. `where` is who asks, for messages.
local function read_bytes(path, where)
  if type(path) ~= "string" then fail("%s: a path is needed, got %s", where, type(path)) end
  local file, why = io.open(path, "rb")
  if not file then fail("%s: %s", where, why) end
  local bytes
  bytes, why = file:read "a"
  file:close()
  if not bytes then fail("%s: %s: %s", where, path, tostring(why)) end
  return bytes
end

return { read_bytes = read_bytes }
