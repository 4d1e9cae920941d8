-- Every model of `./dev bench models`, in small, at every level of optimisation: captured, frozen, and for inference, beside the
-- reference backend's eager ops, which another process of the program computes of the same numbers.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local rows = dofile(here .. "/../bench/model_rows.lua")(true)

-- Large ones, of which others here have all that is in them, are done where time is no matter; of the rest those that
-- take a while, where sanitizers make that minutes, are left to builds without.
local function is_left_out(name)
  if os.getenv "KILN_SWEEP" == "whole" then return false end
  if name:find "^ResNet%-50" or name:find "^MobileNetV2" then return true end
  return os.getenv "KILN_SANITIZED" and (name:find "^ResNet" or name:find "CNN" or name:find "^shakespeare" or name:find "^MiniLM")
end
local STEPS = 3 -- of a training case

-- The same numbers in every process.
local function case_of(row)
  kiln.manual_seed(20)
  return row.case()
end

local function numbers(value, into)
  if kiln.is_tensor(value) then
    value = value:detach():to "float64":contiguous():view(-1)
    for i = 1, value:size(1) do into[#into + 1] = value[i]:item() end
  elseif type(value) == "table" then
    local keys = {}
    for k in pairs(value) do keys[#keys + 1] = k end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, k in ipairs(keys) do numbers(value[k], into) end
  else
    into[#into + 1] = type(value) == "number" and value or value and 1 or 0
  end
  return into
end

-- All that f gives of the case's inputs, as numbers.
local function results(case, f)
  local all = {}
  for _ = 1, case.train and STEPS or 1 do numbers(table.pack(f(table.unpack(case.inputs))), all) end
  return all
end

if arg[1] == "reference" then
  for _, row in ipairs(rows) do
    if not is_left_out(row.name) then
      local case, all = case_of(row), nil
      if case.train then all = results(case, case.f) else kiln.no_grad(function() all = results(case, case.f) end) end
      for i, x in ipairs(all) do all[i] = ("%.17g"):format(x) end
      print(table.concat(all, " "))
    end
  end
  return
end

local check = require "check"
local test, truth = check.test, check.truth

-- Beside the largest number of the reference.
local TOLERANCE = 2e-5

local function distance(got, want)
  local largest, most = 1e-3, #got == #want and 0 or math.huge
  for i, x in ipairs(want) do
    if x == x then largest = math.max(largest, math.abs(x)) end
    local apart = math.abs(x - (got[i] or 0 / 0))
    if x ~= x and got[i] ~= got[i] or x == got[i] then apart = 0 end
    if not (apart <= most) then most = apart end
  end
  return most / largest
end

local reference = assert(io.popen(("KILN_BACKEND=ref '%s' '%s/levels.lua' reference"):format(check.program(), here)))
for _, row in ipairs(rows) do
  local want = {}
  for word in (is_left_out(row.name) and "" or reference:read "l" or ""):gmatch "%S+" do want[#want + 1] = tonumber(word) end
  if not is_left_out(row.name) then test(row.name, function()
    truth(#want > 0, "the reference gave nothing")
    local function is_near(level, case, f)
      local apart = distance(results(case, f), want)
      truth(apart <= TOLERANCE, ("%s: %g from the reference"):format(level, apart))
    end
    local case = case_of(row)
    if case.train then return is_near("captured", case, kiln.script(case.f)) end
    kiln.no_grad(function()
      local g = kiln.script(case.f)
      is_near("captured", case, g)
      is_near("frozen", case, (g:freeze()))
      is_near("for inference", case, (g:optimize_for_inference()))
    end)
  end) end
end
truth(reference:close(), "the reference's process ended well")
