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

-- ---- models ----------------------------------------------------------------------------------------------------

local models = dofile(folder .. "model_rows.lua")
local worker = assert(loadfile(folder .. "model_worker.lua")) "module"

for _, row in ipairs(models(true)) do
  check.test(("the bench's model '%s' runs, captured and eager"):format(row.name), function()
    local case = row.case()
    local facts = worker.within(case, worker.facts, case)
    check.truth(facts.flops > 0 and facts.bytes > 0, "that it counts flops and bytes")
    local graph, said = worker.within(case, worker.build, case, 2)
    check.truth(said.capture >= 0 and said.plan >= 0 and said.first >= 0 and said.planned >= 0, "what it says of its build")
    check.truth(worker.within(case, worker.loop(graph, case.inputs), 1) >= 0, "a time of the graph")
    check.truth(worker.within(case, worker.loop(case.f, case.inputs), 1) >= 0, "a time of eager")
  end)
end

check.test("the bench's models have names of their own, and the peers know them", function()
  local seen, file = {}, assert(io.open(folder .. "nets.py"))
  local python = file:read "a"
  file:close()
  for _, row in ipairs(models(false)) do
    check.truth(not seen[row.name], "that only one row is called " .. row.name)
    seen[row.name] = true
    local arguments = python:match("\n@row\ndef " .. row.net .. "%(([^)]*)%)")
    check.truth(arguments, row.net .. " in nets.py")
    for name in pairs(row.size) do check.truth((", " .. arguments .. ","):find(", " .. name .. ",", 1, true), row.net .. "'s " .. name) end
  end
end)
