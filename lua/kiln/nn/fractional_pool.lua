-- FractionalMaxPool2d and 3d: the largest of windows whose places are drawn, so that sizes shrink by any ratio (Graham 2014).
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local Module, fail = require("kiln.nn.module").Module, kiln.fail
local optional = arguments.optional

local part = {}

-- Where the windows of `size` begin in a dimension of n, from 0, for each draw in s [M,1]: [M,count]. The last one ends with it.
local function starts(s, n, count, size)
  local last = s * 0 + (n - size)
  if count == 1 then return last end
  local apart = (n - size) / (count - 1)
  local first = kiln.arange(count - 1, { dtype = s.dtype, device = s.device })
  return kiln.cat({ ((first + s) * apart):floor() - (s * apart):floor(), last }, 2)
end

local fields = {
  "output_size", optional, "output_ratio", optional, "return_indices", false, "_random_samples", optional,
}

for dims = 2, 3 do
  local name = ("FractionalMaxPool%dd"):format(dims)
  local Pool = Module:extend(name)
  part[name] = Pool
  local too_many = name .. ": there are more windows than places in x"

  --- FractionalMaxPool2d(kernel, { output_size = } or { output_ratio = } [, return_indices, _random_samples]): the latter are
  --- draws [N,C,dims] in [0, 1) instead of fresh ones.
  function Pool:init(kernel, ...)
    local given = arguments.read(name, fields, ...)
    self.kernel = arguments.each(name, "kernel", kernel, dims)
    if (given.output_size == nil) == (given.output_ratio == nil) then
      fail("%s: either output_size or output_ratio is needed", name)
    end
    if given.output_size then
      self.size = arguments.each(name, "output_size", given.output_size, dims)
    else
      self.ratio = {}
      for i = 1, dims do
        local ratio = given.output_ratio
        if type(ratio) == "table" then ratio = ratio[i] end
        if type(ratio) ~= "number" or ratio <= 0 or ratio >= 1 then
          fail("%s: output_ratio must be numbers between 0 and 1, got %s", name, tostring(ratio))
        end
        self.ratio[i] = ratio
      end
    end
    self.return_indices = given.return_indices
    if given._random_samples then self:register_buffer("_random_samples", given._random_samples) end
  end

  -- What the windows hold, as places from 0 in a plane: [M, windows, places of a window]; and the sizes of the result.
  function Pool:windows(x, samples)
    local place, sizes = nil, {}
    for d = 1, dims do
      local n, size = x:size(2 + d), self.kernel[d]
      local count = self.size and self.size[d] or n * self.ratio[d] // 1 | 0
      if count < 1 or count + size - 1 > n then
        if kiln.is_capturing() then error(too_many, 0) end -- a graph raises plain text
        fail("%s: %d windows of %d do not fit into %d in dimension %d", name, count, size, n, 2 + d)
      end
      local s = samples:select(3, dims == 2 and 3 - d or d):reshape(-1, 1)
      local here = starts(s, n, count, size):to("int64"):unsqueeze(3) + kiln.arange(size, { device = s.device })
      if place then
        here = place:unsqueeze(3):unsqueeze(5) * n + here:unsqueeze(2):unsqueeze(4)
        here = here:flatten(4, 5):flatten(2, 3)
      end
      place, sizes[d] = here, count
    end
    return place, sizes
  end

  function Pool:forward(x)
    local alone = x:dim() == dims + 1
    if alone then x = x:unsqueeze(1) end
    if x:dim() ~= dims + 2 then fail("%s: x must have %d dims, or one less, got %d", name, dims + 2, x:dim()) end
    local samples = self._random_samples or kiln.rand(x:size(1), x:size(2), dims, { dtype = x.dtype, device = x.device })
    local place, sizes = self:windows(x, samples)
    local flat = x:flatten(3):flatten(1, 2)
    local values = flat:detach():gather(2, place:flatten(2, 3) + 1):reshape_as(place)
    local at = place:gather(3, values:argmax(3, true)):squeeze(3) + 1
    local y = flat:gather(2, at):unflatten(2, sizes):unflatten(1, { -1, x:size(2) })
    at = at:unflatten(2, sizes):unflatten(1, { -1, x:size(2) })
    if alone then y, at = y:squeeze(1), at:squeeze(1) end
    if self.return_indices then return y, at end
    return y
  end

  function Pool:extra() return arguments.text(self.kernel) end
end

return part
