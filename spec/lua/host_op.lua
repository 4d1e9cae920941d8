-- An op of the host: samples/op.c registers one, scripts it with samples/op.lua, and runs the saved graph without Lua.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local build = os.getenv "KILN_BUILD" or check.program():match "^(.*)/[^/]*$" or "."
local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."
local graph = os.tmpname()
check.at_end(function() os.remove(graph) end)

local function run(...)
  local pipe = assert(io.popen(table.concat({ ... }, " ") .. " 2>&1", "r"))
  local text = check.said(pipe:read "a")
  local _, _, code = pipe:close()
  equal(code, 0, text)
  return text
end

local legs = "Berlin to Paris 877 km, Paris to London 345 km\n"

test("a host op is scripted, captured, differentiated and saved", function()
  local text = run(build .. "/samples/op", source .. "/samples/op.lua", graph)
  for _, part in ipairs { "eager: 877.5 km", "on the moon: 239.3 km", "gradcheck: true",
    "the place between: 50.2", "host_op", 'name = "distance"', legs } do
    truth(text:find(part, 1, true), part .. " is not in:\n" .. text)
  end
end)

test("its graph runs without Lua, and not without the op", function()
  local text = run(build .. "/samples/op", graph)
  truth(text:find(legs, 1, true), text)
  truth(text:find("without the op: .*op 'distance' is the host's, and this context has none of that name"), text)
end)

test("kiln has no ops of a host by itself", function()
  equal(kiln.op.distance, nil)
  check.raises(function() kiln.load(graph) end, "op 'distance' is the host's")
end)
