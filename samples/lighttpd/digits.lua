-- Runs in lighttpd's mod_magnet, once a request: its body is images of 64 bytes, pixels from 0 to 16; the answer has a line
-- for each, "class confidence deep", as samples/host writes them. See digits.conf.
local kiln = require "kiln"

-- The interpreter stays from request to request: the graph is loaded by the first.
local loaded = package.loaded
local model = loaded.digits_model
if not model then
  model = kiln.load(os.getenv "DIGITS_MODEL")
  loaded.digits_model = model
end

local r = lighty.r
if not r.req_body.collect then return 0 end -- runs again when all of it is there
local body = r.req_body.get
if #body == 0 or #body % 64 ~= 0 then
  r.resp_body.set("images of 64 bytes each are needed\n")
  return 400
end

local lines = {}
for first = 1, #body, 64 do
  local image = kiln.tensor({ body:byte(first, first + 63) }, { dtype = "float32" }):div_(16):reshape(1, 1, 8, 8)
  local class, confidence, deep = model(image)
  lines[#lines + 1] = ("%d %.9g %s\n"):format(class, confidence, deep)
end
r.resp_header["Content-Type"] = "text/plain"
r.resp_body.set(lines)
return 200
