-- The samples with `--device cuda`, as short as they can be: they run to their end and say what they say on the CPU. Runs where there is a
-- device; one of software takes only those that are quick there.
local check = require "check"
local list = require "sample_list"
if not kiln.cuda.is_available() then return end

local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."
local software = kiln.cuda.get_device_name() == "software device"

local function run(name, row, more)
  local path, arguments = os.tmpname(), row.arguments .. more
  if row.saves then arguments = ("%s --save '%s'"):format(arguments, path) end
  local pipe = assert(io.popen(("timeout 200 '%s' '%s/samples/%s' %s 2>&1"):format(check.program(), source, name, arguments)))
  local text = check.said(pipe:read "a")
  local _, _, code = pipe:close()
  os.remove(path)
  check.truth(code == 0, text)
  return text
end

-- The last of what it says.
local function result(text, row)
  local last
  for found in text:gmatch(row.says) do last = found end
  check.truth(last, text)
  return last
end

local names = {}
for name, row in pairs(list) do names[#names + 1] = not row.host and name or nil end
table.sort(names)
for _, name in ipairs(names) do
  local row = list[name]
  check.test(name .. " --device cuda", function()
    if software and not row.quick then check.skip "the device is of software, which is too slow" end
    if row.needs and not pcall(kiln.data.find, row.needs) then check.skip(row.needs .. " is not there") end
    local here, there = result(run(name, row, ""), row), result(run(name, row, " --device cuda"), row)
    local a, b = tonumber(here), tonumber(there)
    check.truth(a and math.abs(a - b) <= row.within * math.max(1, math.type(a) == "integer" and 1 or a) or here == there,
      ("%s on cuda, %s on the CPU"):format(there, here))
  end)
end

check.test("--device names one that works", function()
  local pipe = assert(io.popen(("'%s' '%s/samples/iris.lua' --device cudda 2>&1"):format(check.program(), source)))
  local text = pipe:read "a"
  pipe:close()
  check.truth(text:find("--device must be cpu or cuda, not cudda", 1, true), text)
end)
