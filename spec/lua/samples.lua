-- Every sample that needs no arguments runs to its end, but those that have a spec of their own.
local check = require "check"

local program
do
  local i = 0
  while arg[i] do i = i - 1 end
  program = arg[i + 1]
end
local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."

local own_spec = {
  ["digits.lua"] = true,
  ["stories.lua"] = true, -- llama.lua
}

local list = assert(io.popen(("ls '%s'/samples/*.lua"):format(source)))
for path in list:lines() do
  local name = path:match "[^/]*$"
  if not own_spec[name] then
    check.test(name, function()
      local pipe = assert(io.popen(("'%s' '%s' 2>&1"):format(program, path)))
      local text = pipe:read "a"
      local _, _, code = pipe:close()
      check.truth(code == 0, text)
    end)
  end
end
list:close()
