-- Every sample runs to its end, as short as it can, but those that have a spec of their own. Those that need data which is not part of
-- the project are skipped, visibly, where it is not there.
local check = require "check"
local how = require "sample_list"

local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."

-- What is written to both outputs, and the exit code.
local function run(path, arguments)
  local pipe = assert(io.popen(("'%s' '%s' %s 2>&1"):format(check.program(), path, arguments or "")))
  local text = pipe:read "a"
  local _, _, code = pipe:close()
  return text, code
end

local list = assert(io.popen(("ls '%s'/samples/*.lua"):format(source)))
for path in list:lines() do
  local name = path:match "[^/]*$"
  local row = how[name] or {}
  if not row.own then
    check.test(name, function()
      if row.needs and not pcall(kiln.data.find, row.needs) then check.skip(row.needs .. " is not there") end
      local text, code = run(path, row.arguments)
      check.truth(code == 0, text)
    end)
  end
end
list:close()

check.test("where data is missing they say how to get it", function()
  for name, row in pairs(how) do
    local text, code = "", 1
    if row.needs then text, code = run(source .. "/samples/" .. name, "--data /no/such/folder") end
    check.truth(code ~= 0, name .. " fails")
    local said = text:find("^%S+: there is no [%w/_.-]+ in /no/such/folder%. %u%l[^\n]*\n$") -- no line, no traceback
    check.truth(said or not row.needs, text)
  end
end)

check.test("mnist_pretrained.lua answers as the network it was made from", function()
  if not pcall(kiln.data.find, "models/mnist_burn/mnist.safetensors") then check.skip "models/mnist_burn is not there" end
  local text = run(source .. "/samples/mnist_pretrained.lua", "--limit 1000")
  check.truth(text:find "990 of 1000 images are right", text)
end)
