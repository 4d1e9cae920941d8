-- A line search for the strong Wolfe conditions (Nocedal, Wright: Numerical Optimization, algorithms 3.5 and 3.6) with cubic
-- interpolation. Of functions of one number; knows nothing of tensors or optimisers.

local ENOUGH, FLAT = 1e-4, 0.9 -- of decrease, of the slope that may be left

-- Where the cubic through two points with these values and slopes has its minimum, kept in [low, high].
local function cubic_minimum(a, b, low, high)
  local d1 = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
  local square = d1 * d1 - a.slope * b.slope
  if not (square >= 0) then return (low + high) / 2 end
  if a.t > b.t then a, b = b, a end
  local d2 = math.sqrt(square)
  local t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
  return math.min(math.max(t, low), high)
end

-- A trial step inside the bracket. Twice close to an end, it is moved a tenth of the bracket away from there.
local function trial(one, two, slow)
  local low, high = math.min(one.t, two.t), math.max(one.t, two.t)
  local t = cubic_minimum(one, two, low, high)
  local margin = 0.1 * (high - low)
  if math.min(high - t, t - low) >= margin then return t, false end
  if not slow and t < high and t > low then return t, true end
  return math.abs(t - high) < math.abs(t - low) and high - margin or low + margin, false
end

-- From the start and the first step: a point that will do, or two around one. `evaluate(t)` gives a point { t, f, slope, … }.
local function bracket(start, evaluate, t, most)
  local before, count, n = start, 1, 0
  local now = evaluate(t)
  while n < most do
    if now.f > start.f + ENOUGH * now.t * start.slope or (n > 1 and now.f >= before.f) then return { before, now }, count, n end
    if math.abs(now.slope) <= -FLAT * start.slope then return { now }, count, n end
    if now.slope >= 0 then return { before, now }, count, n end
    local next_t = cubic_minimum(before, now, now.t + 0.01 * (now.t - before.t), now.t * 10)
    before = now
    now = evaluate(next_t)
    count, n = count + 1, n + 1
  end
  return { start, now }, count, n
end

local function lower(ends) return ends[1].f <= ends[#ends].f and 1 or #ends end

--- search(start, evaluate, t, most, smallest): the point found and how often evaluate was called. start is the point at t = 0,
--- t the first step to try, most the limit of tries, smallest(width) whether a bracket is too small to go on.
return function(start, evaluate, t, most, smallest)
  local ends, count, n = bracket(start, evaluate, t, most)
  local low, slow = lower(ends), false
  while #ends == 2 and n < most and not smallest(math.abs(ends[2].t - ends[1].t)) do
    t, slow = trial(ends[1], ends[2], slow)
    local now = evaluate(t)
    count, n = count + 1, n + 1
    local high = 3 - low
    if now.f > start.f + ENOUGH * t * start.slope or now.f >= ends[low].f then
      ends[high] = now
      low = lower(ends)
    else
      local done = math.abs(now.slope) <= -FLAT * start.slope
      if not done and now.slope * (ends[high].t - ends[low].t) >= 0 then ends[high] = ends[low] end
      ends[low] = now
      if done then break end
    end
  end
  return ends[low], count
end
