-- kiln spec/lua/run.lua [--device NAME] [FILE.lua …]: runs these specs, or all beside this file, and counts; with tensors
-- on that device.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. package.path
local check = require "check"

local files = { table.unpack(arg) }
if files[1] == "--device" then
  require "on_device" (files[2])
  files = { table.unpack(files, 3) }
end
if #files == 0 then
  local list = assert(io.popen(("ls '%s'/*.lua"):format(here)))
  for path in list:lines() do
    local name = path:match "[^/]*$"
    if name ~= "run.lua" and name ~= "check.lua" then files[#files + 1] = path end
  end
  list:close()
end

for _, path in ipairs(files) do
  check.file = path:match "[^/]*$"
  local before, started = check.passed, kiln.clock()
  local count = before + check.failed + check.skipped
  local chunk, why = loadfile(path)
  if chunk then
    local ok, problem = xpcall(chunk, debug.traceback)
    if not ok then why = problem end
  end
  if why then
    check.failed = check.failed + 1
    print(("FAILED %s: %s"):format(check.file, why))
  end
  if check.passed + check.failed + check.skipped > count then -- files without tests are helpers of others
    print(("%-20s %3d passed  %.2f s"):format(check.file, check.passed - before, kiln.clock() - started))
  end
end

for _, last in ipairs(check.last) do last(#arg == 0) end

local skipped = check.skipped > 0 and (", %d skipped"):format(check.skipped) or ""
print(("%d passed, %d failed%s"):format(check.passed, check.failed, skipped))
os.exit(check.failed == 0 and check.passed > 0, true)
