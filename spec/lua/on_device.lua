-- `require "on_device" "cuda"`: what makes tensors makes them on that device, for specs that know nothing of devices
-- (`run.lua --device cuda FILE.lua …`). Tests of sentences that name types without a device are left out, and those of
-- what a device does not run.
local check = require "check"

local makers = { "tensor", "zeros", "ones", "empty", "full", "arange", "linspace", "logspace", "eye", "rand", "randn", "randint",
  "randperm", "normal", "tril_indices", "triu_indices" }
local apart = { "and nothing here runs that", "inside a captured function is not", "%]@cuda", 'got "cuda"' }

local function moves(device)
  for _, name in ipairs(makers) do
    local make = kiln[name]
    kiln[name] = function(...)
      local t = make(...)
      if t.device == device then return t end
      local there = t:detach():to(device)
      return t.requires_grad and there:requires_grad_(true) or there
    end
  end
  local spec = kiln.spec
  function kiln.spec(dtype, sizes, options) return spec(dtype, sizes, options or { device = device }) end
  local read = kiln.from_safetensors
  function kiln.from_safetensors(...)
    local found, about = read(...)
    for name, t in pairs(found) do found[name] = t:to(device) end
    return found, about
  end
  local test = check.test
  function check.test(name, body)
    test(name, function()
      local ok, why = xpcall(body, debug.traceback)
      if ok then return end
      for _, words in ipairs(apart) do
        if type(why) == "string" and why:find(words) then check.skip(words) end
      end
      error(why, 0)
    end)
  end
end

return moves
