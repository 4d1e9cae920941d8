-- Random numbers from Lua: moments and frequencies of samplers at fixed seeds (bounds of at least five standard
-- errors), the stream (same numbers on one thread and on two, moved on by as much whatever the data), refusals.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises

local N = 40000

-- Mean and variance within five standard errors; the fourth moment is taken from the sample.
local function moments(x, mean, variance, what)
  x = x:double()
  local n, d = x:numel(), x - mean
  local second, fourth = (d * d):mean():item(), (d ^ 4):mean():item()
  local m = d:mean():item()
  check.truth(math.abs(m) <= 5 * math.sqrt(variance / n), ("%s: the mean is off by %g"):format(what, m))
  check.truth(math.abs(second - variance) <= 5 * math.sqrt(fourth / n) + 1e-12,
    ("%s: the variance is %g instead of %g"):format(what, second, variance))
end

-- Kolmogorov's distance between the sample and cdf(sorted sample).
local function distance(x, cdf)
  local sorted = (x:double():sort())
  local n = sorted:numel()
  return ((cdf(sorted) - (kiln.arange(n):double() + 0.5) / n):abs():max():item() + 0.5 / n) * math.sqrt(n)
end

test("samplers have the moments of their distributions", function()
  kiln.manual_seed(11)
  local function full(v) return kiln.full({ N }, v + 0.0) end
  for _, rate in ipairs { 0, 0.3, 4, 9.9, 10, 300 } do moments(full(rate):poisson(), rate, rate, "poisson " .. rate) end
  for _, t in ipairs { { 5, 0.3 }, { 1, 0.5 }, { 40, 0.3 }, { 1000, 0.2 }, { 100, 0.9 }, { 7, 1 }, { 0, 0.5 } } do
    local n, p = t[1], t[2]
    moments(kiln.binomial(full(n), full(p)), n * p, n * p * (1 - p), ("binomial %d %g"):format(n, p))
  end
  for _, a in ipairs { 0.1, 0.7, 1, 3, 50 } do moments(full(a):standard_gamma(), a, a, "gamma " .. a) end
  moments(kiln.normal(1, 2, N), 1, 4, "normal")
  moments(kiln.normal(kiln.zeros(N), 3.0), 0, 9, "normal of tensors")
  equal(kiln.normal(0, 1, 2, 3, { dtype = "float64" }).dtype, "float64")
end)

test("fillers write what they are named for", function()
  kiln.manual_seed(12)
  local x = kiln.zeros(N)
  moments(x:uniform_(-1, 3), 1, 16 / 12, "uniform_")
  moments(x:normal_(2, 3), 2, 9, "normal_")
  moments(x:exponential_(2), 0.5, 0.25, "exponential_")
  moments(x:geometric_(0.25), 4, 12, "geometric_")
  moments(x:log_normal_(0, 0.5), math.exp(0.125), (math.exp(0.25) - 1) * math.exp(0.25), "log_normal_")
  moments(x:bernoulli_(0.3), 0.3, 0.21, "bernoulli_")
  moments(x:bernoulli_(kiln.full({ N }, 0.6)), 0.6, 0.24, "bernoulli_ of a tensor")
  moments(x:random_(10), 4.5, 99 / 12, "random_")
  moments(x:random_(5, 8), 6, 8 / 12, "random_ from")
  check.truth(distance(x:cauchy_(1, 2), function(v) return ((v - 1) / 2):atan() / math.pi + 0.5 end) < 1.95, "cauchy_")
  check.truth(distance(x:exponential_(3), function(v) return 1 - (-3 * v):exp() end) < 1.95, "exponential_")
  check.truth(distance(x:normal_(), function(v) return (1 + (v / math.sqrt(2)):erf()) / 2 end) < 1.95, "normal_")
  check.truth(x:uniform_() == x, "the same tensor comes back")
  local whole = kiln.zeros(100, { dtype = "int8" }):random_()
  check.truth(whole:min():item() >= 0 and whole:max():item() > 64, "random_ of int8")
  check.truth(kiln.zeros(100, { dtype = "int64" }):random_():max():item() > 1 << 60, "random_ of int64")
  equal(kiln.zeros(3, { dtype = "bool" }):bernoulli_(1):totable(), { true, true, true })
  local part = kiln.zeros(4, 4)
  part[2]:fill_(0):uniform_(1, 2)
  equal({ part:ne(0):sum(2):totable() }, { { 0, 4, 0, 0 } })
end)

test("multinomial", function()
  kiln.manual_seed(13)
  local w = kiln.tensor { 1, 0, 5, 4.0 }
  local counts = w:multinomial(N, true):bincount(nil, { minlength = 4 })
  for i, p in ipairs { 0.1, 0, 0.5, 0.4 } do
    check.truth(math.abs(counts[i]:item() - N * p) <= 5 * math.sqrt(N * p * (1 - p)), "how often " .. i)
  end
  local rows = kiln.tensor { { 1, 2, 7.0 } }:expand(N, 3):multinomial(3)
  equal(rows.shape, { N, 3 })
  check.truth(rows:sort(2):eq(kiln.tensor { 1, 2, 3 }):all():item(), "each once")
  local second = rows[{ {}, 2 }]:eq(3):sum():item() / N
  local wanted = 0.1 * 7 / 9 + 0.2 * 7 / 8 -- first another one, then the third
  check.truth(math.abs(second - wanted) < 5 * math.sqrt(wanted / N), "the order of draws")
  raises(function() w:multinomial(4) end, "random.lua:", "multinomial: row 1 has 3 weights above 0, 4 are to be drawn without")
  raises(function() w:multinomial(5) end, "5 cannot be drawn of 4 without replacement")
  raises(function() w:multinomial(0) end, "num_samples must be at least 1, not 0")
  raises(function() (-w):multinomial(1) end, "weights must be finite and at least 0, element 1 of row 1 is -1")
  raises(function() kiln.zeros(2, 2):multinomial(1) end, "row 1 has 0 weights above 0")
  raises(function() kiln.ones(2, 2, 2):multinomial(1) end, "one or two dims of weights are needed")
end)

test("the stream: the same on two threads, moved on whatever the data", function()
  local before, drawn = kiln.get_num_threads(), {}
  for threads = 1, 2 do
    kiln.set_num_threads(threads)
    kiln.manual_seed(14)
    local x = kiln.rand(70000) * 30
    drawn[threads] = { x:poisson(), kiln.binomial(x:floor(), x / 30), (x + 0.1):standard_gamma(), x:reshape(100, 700):multinomial(5),
                       x:reshape(100, 700):multinomial(5, true), x:clone():normal_(), x:clone():geometric_(0.1) }
  end
  kiln.set_num_threads(before)
  for i, t in ipairs(drawn[1]) do check.truth(t:equal(drawn[2][i]), "draw " .. i) end
  local after = {}
  for i, rate in ipairs { 0.01, 50.0 } do
    kiln.manual_seed(15)
    local _ = kiln.full({ 100 }, rate):poisson(), kiln.full({ 100 }, rate):standard_gamma()
    after[i] = kiln.rand(5)
  end
  check.truth(after[1]:equal(after[2]), "what is drawn next")
  kiln.manual_seed(16)
  pcall(kiln.poisson, kiln.tensor { -1.0 })
  local a = kiln.rand(3)
  kiln.manual_seed(16)
  check.truth(a:equal(kiln.rand(3)), "a draw that fails takes nothing")
end)

test("a captured function draws what eager does", function()
  local function f(x) return x:poisson() + x:standard_gamma(), kiln.normal(x, 2.0), x:multinomial(2) end
  local g, x = kiln.script(f), kiln.rand(5) + 0.5
  kiln.manual_seed(17)
  local eager = { f(x) }
  kiln.manual_seed(17)
  local captured = { g(x) }
  for i = 1, #eager do check.truth(eager[i]:allclose(captured[i]), "result " .. i) end
end)

test("gamma variates move with their shape", function()
  kiln.manual_seed(18)
  for _, a in ipairs { 0.2, 1, 5, 80, 1200 } do
    local x = kiln.full({ N }, a + 0.0, { dtype = "float64", requires_grad = true })
    local y = x:standard_gamma()
    y:sum():backward()
    local g = x.grad
    local spread = (g - 1):square():mean():sqrt():item()
    check.truth(math.abs(g:mean():item() - 1) < 5 * spread / math.sqrt(N) + 1e-4, "the mean of the gradients at " .. a)
    -- E z² = a + a², so E 2 z dz/da = 1 + 2 a
    local second = 2 * y:detach() * g
    local off = (second:mean() - (1 + 2 * a)):item()
    check.truth(math.abs(off) < 5 * (second - second:mean()):square():mean():sqrt():item() / math.sqrt(N) + 1e-3 * a, "of squares at " .. a)
  end
end)

test("refusals", function()
  local x = kiln.zeros(3)
  raises(function() kiln.poisson(kiln.tensor { 1.0, -2.0 }) end, "poisson: rates must be numbers of at least 0, element 2 is -2")
  raises(function() kiln.standard_gamma(x) end, "standard_gamma: shapes must be positive, element 1 is 0")
  raises(function() kiln.binomial(x, x + 2) end, "binomial: probabilities must lie in [0, 1], element 1 is 2")
  raises(function() kiln.binomial(x, x:double()) end, "binomial: inputs 1 and 2 must have one dtype")
  raises(function() kiln.poisson(x:long()) end, "poisson: a floating dtype is needed, not int64")
  raises(function() x:uniform_(2, 1) end, "uniform_: from must not be above to, not 2")
  raises(function() x:normal_(0, -1) end, "normal_: std must be at least 0, not -1")
  raises(function() x:long():normal_() end, "normal_: a floating dtype is needed")
  raises(function() x:geometric_(1.5) end, "geometric_: p must lie between 0 and 1, not 1.5")
  raises(function() x:geometric_() end, "geometric_: p is missing")
  raises(function() x:bernoulli_(2) end, "bernoulli_: p must lie in [0, 1], not 2")
  raises(function() x:exponential_(0) end, "exponential_: lambd must be positive, not 0")
  raises(function() x:random_(5, 5) end, "random_", "there is no whole number in [5, 5)")
  raises(function() kiln.normal(0, -1, 3) end, "normal: std must be at least 0")
  raises(function() kiln.normal("a", 1, 3) end, "normal: mean must be a number or a tensor, got a string")
  raises(function() kiln.polygamma(x, -1) end, "polygamma: n must lie between 0 and 150, not -1")
  local leaf = kiln.zeros(3, { requires_grad = true })
  raises(function() leaf:uniform_() end, "uniform_")
end)
