-- The samples that learn from text, for a few steps: they run to their end, learn, and write; without their data they say
-- how to get it.
local check = require "check"
local test, truth, equal = check.test, check.truth, check.equal
local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."

local function run(arguments)
  local pipe = assert(io.popen(("KILN_NUM_THREADS=1 '%s' '%s'/samples/%s 2>&1"):format(check.program(), source, arguments)))
  local text = pipe:read "a"
  local _, _, code = pipe:close()
  return text, code
end

local function need(name)
  if not pcall(kiln.data.find, name) then check.skip("needs " .. name .. " in $KILN_DATA") end
end

-- The last validation loss that a run printed.
local function loss_of(text) return tonumber(text:match ".*validation loss ([%d.]+)") end

test("names.lua learns and makes up names", function()
  need "text/names.txt"
  local text, code = run "names.lua --steps 25 --validate 100 --names 4"
  equal(code, 0)
  truth(loss_of(text) < 2.75, text) -- log(27) is 3.30; letters by how often they are, 2.83
  local _, count = text:match("made up.*"):gsub("\n  %l+", "")
  equal(count, 4)
end)

test("shakespeare.lua learns and writes, eager and captured", function()
  need "text/tinyshakespeare.txt"
  for _, how in ipairs { "", " --captured" } do
    local text, code = run("shakespeare.lua --steps 20 --validate 12 --characters 90 --prompt 'ROMEO:'" .. how)
    equal(code, 0)
    truth(loss_of(text) < 3.4, text) -- log(65) is 4.17; characters by how often they are, 3.31
    truth(#text:match "%-%-%-%-\n(ROMEO:.*)" > 95, text)
  end
end)

test("without their data they say how to get it", function()
  for _, name in ipairs { "names", "shakespeare" } do
    local text, code = run(name .. ".lua --data /nowhere")
    equal(code, 1)
    truth(text:match("^[^\n]*"):find("the GitHub repository karpathy/", 1, true), text)
  end
end)
