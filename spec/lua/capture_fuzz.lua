-- Random functions, eager and captured. KILN_FUZZ=first:count runs others than the usual ones and prints what failed.
local check = require "check"
local compare = require "capture_compare"
local random = require "capture_random"

local first, count = (os.getenv "KILN_FUZZ" or "1:300"):match "(%d+):(%d+)"
first, count = tonumber(first), tonumber(count)
local refused, reasons, features = 0, {}, {}

check.test(("%d random functions"):format(count), function()
  local bad = {}
  for seed = first, first + count - 1 do
    local text, used = random.make(seed)
    local f = assert(load(text, "=f" .. seed))()
    for name in pairs(used) do features[name] = (features[name] or 0) + 1 end
    local g = kiln.script(f)
    local x = kiln.tensor { 1.0, 2, -1, 0.5 }
    local ok, why = pcall(g, x, x, 2)
    -- a refusal, told from an error of the function itself by what eager does
    kiln.manual_seed(1)
    if not ok and pcall(f, x, x, 2) then
      refused = refused + 1
      reasons[#reasons + 1] = ("f%d: %s"):format(seed, why)
    else
      local same, problem = pcall(compare.compare, f, g, { "T", "T", "I" }, 8, seed, true)
      if not same and tostring(problem):find "captured .*cannot be captured" then
        refused = refused + 1 -- met by other arguments only
        reasons[#reasons + 1] = ("f%d: %s"):format(seed, problem)
      elseif not same then bad[#bad + 1] = ("f%d: %s"):format(seed, tostring(problem)) end
    end
    if seed % 50 == 0 then collectgarbage() end
  end
  if os.getenv "KILN_FUZZ" then
    for _, r in ipairs(reasons) do print("refused " .. r) end
    for _, b in ipairs(bad) do print("DIFFERS " .. b) end
    for name, n in pairs(features) do print(("%6.1f%%  %s"):format(100 * n / count, name)) end
  end
  check.truth(#bad == 0, ("agreement of %d functions, the first of them %s"):format(#bad, tostring(bad[1])))
  check.truth(refused * 20 <= count, ("few refusals: %d of %d, the first %s"):format(refused, count, tostring(reasons[1])))
end)
