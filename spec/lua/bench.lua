-- The rows of `./dev bench`, each once in small, so that none of them breaks unseen. Timing them is no test.
local check = require "check"

local here = arg[0]:match "^(.*)/lua/[^/]*$" or ".."
local folder = here .. "/bench/"
local list, code = dofile(folder .. "rows.lua"), dofile(folder .. "code.lua")
local compile = assert(loadfile(folder .. "worker.lua")) "module"

check.test("every row of the bench runs", function()
  for _, row in ipairs(list(true)) do
    local setup, statement = code(row, "kiln")
    local ok, why = pcall(compile(setup, statement, row.no_grad), 1)
    if not ok then error(("row '%s': %s"):format(row.name, why), 0) end
    check.truth(why >= 0, row.name)
  end
end)

check.test("the rows of the bench have names of their own, and both languages", function()
  local seen = {}
  for _, row in ipairs(list(false)) do
    check.truth(not seen[row.name], "that only one row is called " .. row.name)
    seen[row.name] = true
    local setup, statement = code(row, "torch")
    check.truth(#setup > 0 and #statement > 0, row.name)
    check.truth(not (setup .. statement):find "local ", row.name .. ": Lua where Python is wanted")
  end
end)
