-- kiln.distributions: what PyTorch's give (golden/distributions.txt), samples by their moments, gradients of samples,
-- shapes, refusals.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local D = kiln.distributions

local here = debug.getinfo(1, "S").source:match "@(.*)/" or "."
local golden = os.getenv "KILN_SOURCE" and os.getenv "KILN_SOURCE" .. "/spec/golden/" or here .. "/../golden/"

local f64 = { dtype = "float64" }
local names = {
  D = D,
  T = function(list) return kiln.tensor(list, f64) end,
  I = function(list) return kiln.tensor(list) end,
}
function names.G(f, ...)
  local leaves = { ... }
  for _, x in ipairs(leaves) do x.requires_grad = true end
  f(...):sum():backward()
  local parts = {}
  for i, x in ipairs(leaves) do parts[i] = x.grad:reshape(-1) end
  return kiln.cat(parts, 1)
end

test("what PyTorch gives", function()
  local count = 0
  for line in io.lines(golden .. "distributions.txt") do
    local expression, wanted = line:match "^(.*) = (.-)$"
    local got = assert(load("return " .. expression, line, "t", names))():double():reshape(-1):totable()
    local i = 0
    for word in wanted:gmatch "%S+" do
      i = i + 1
      local w = word == "inf" and math.huge or word == "-inf" and -math.huge or word == "nan" and 0 / 0 or tonumber(word)
      local g = got[i]
      local ok = g == w or (g ~= g and w ~= w) or (g and math.abs(g - w) <= 1e-9 * math.max(1, math.abs(w)))
      check.truth(ok, ("%s, element %d: %s instead of %s; it"):format(expression, i, g, word))
    end
    equal(#got, i)
    count = count + 1
  end
  check.truth(count > 140, "the length of the file")
end)

local N = 10000
local cases = {
  { D.Normal(1.0, 2.0) }, { D.LogNormal(0.1, 0.5) }, { D.Uniform(-1.0, 3.0) }, { D.Exponential(2.0) }, { D.Gamma(2.5, 3.0) },
  { D.Gamma(0.3, 1.0) }, { D.Beta(2.0, 0.7) }, { D.Laplace(1.0, 0.5) }, { D.StudentT(9.0, 1.0, 2.0) }, { D.Gumbel(0.5, 2.0) },
  { D.Bernoulli(0.3) }, { D.Geometric(0.3) }, { D.Poisson(4.0) }, { D.Binomial(12.0, 0.4) },
  { D.Dirichlet(kiln.tensor { 0.7, 2.0, 5.0 }) }, { D.Multinomial(5, kiln.tensor { 0.2, 0.3, 0.5 }) },
  { D.MultivariateNormal(kiln.tensor { 1.0, -1.0 }, kiln.tensor { { 2.0, 0.5 }, { 0.5, 1.0 } }) },
}

test("samples have the mean and the variance that are told", function()
  kiln.manual_seed(31)
  for _, case in ipairs(cases) do
    local d = case[1]
    local x = d:sample { N }
    equal(x.shape, D.joined({ N }, d.batch_shape, d.event_shape))
    x = x:double()
    local apart = x - d.mean
    local second, fourth = apart:square():mean(1), apart:square():square():mean(1)
    local off = apart:mean(1):abs() / (d.variance / N):sqrt()
    check.truth(off:max():item() < 5, d.name .. ": the mean, off by " .. off:max():item() .. " deviations; it")
    off = (second - d.variance):abs() / (fourth / N):sqrt()
    check.truth(off:max():item() < 5, d.name .. ": the variance, off by " .. off:max():item() .. " deviations; it")
    check.truth(d:log_prob(x:float()):isfinite():all():item(), d.name .. ": log_prob of samples")
  end
  local x = D.Cauchy(1.0, 2.0):sample { N }:double()
  local cdf = ((x:sort() - 1) / 2):atan() / math.pi + 0.5
  check.truth((cdf - kiln.arange(N):double() / N):abs():max():item() * math.sqrt(N) < 1.95, "Cauchy")
  local often = D.Categorical(kiln.tensor { 1, 2, 5.0 }):sample { N }:bincount():double() / N
  check.truth((often - kiln.tensor({ 1, 2, 5 }, f64) / 8):abs():max():item() < 5 * math.sqrt(0.25 / N), "Categorical")
end)

test("gradients of samples: of the mean, of the second moment", function()
  kiln.manual_seed(32)
  -- parameters, and d E x / d parameter for each
  local list = {
    { "Normal", { 1.0, 2.0 }, { 1, 0 } }, { "Uniform", { -1.0, 3.0 }, { 0.5, 0.5 } }, { "Exponential", { 2.0 }, { -0.25 } },
    { "Gamma", { 2.5, 3.0 }, { 1 / 3, -2.5 / 9 } }, { "Beta", { 2.0, 3.0 }, { 3 / 25, -2 / 25 } }, { "Laplace", { 1.0, 0.5 }, { 1, 0 } },
    { "LogNormal", { 0.1, 0.5 }, { math.exp(0.225), 0.5 * math.exp(0.225) } }, { "StudentT", { 9.0, 1.0, 2.0 }, { 0, 1, 0 } },
    { "Gumbel", { 0.5, 2.0 }, { 1, 0.57721566 } },
  }
  for _, row in ipairs(list) do
    local name, values, wanted = table.unpack(row)
    local leaves = {}
    for i, v in ipairs(values) do leaves[i] = kiln.full({ N }, v, { dtype = "float64", requires_grad = true }) end
    D[name](table.unpack(leaves)):rsample():sum():backward()
    for i, w in ipairs(wanted) do
      local g = leaves[i].grad
      local error = math.sqrt((g - g:mean()):square():mean():item() / N)
      check.truth(math.abs(g:mean():item() - w) <= 5 * error + 1e-6, ("%s, parameter %d: %g instead of %g; it"):format(name, i, g:mean():item(), w))
    end
  end
  local x = D.Normal(kiln.ones(2, { requires_grad = true }), 1.0):sample()
  equal(x.requires_grad, false)
end)

test("shapes, dtypes, the stream", function()
  local d = D.Normal(kiln.zeros(3, 1), kiln.ones(2))
  equal(d.batch_shape, { 3, 2 })
  equal(d:sample().shape, { 3, 2 })
  equal(d:sample(4).shape, { 4, 3, 2 })
  equal(d:rsample({ 5, 4 }).shape, { 5, 4, 3, 2 })
  equal(tostring(d), "Normal(batch {3, 2}, event {})")
  equal(D.Normal(0, 1):sample().shape, {})
  equal(D.Normal(kiln.tensor(0.0, f64), 1):sample(2).dtype, "float64")
  local c = D.Categorical(kiln.ones(4, 3))
  equal(c:sample({ 5 }).shape, { 5, 4 })
  equal(c:log_prob(c:sample({ 5 })).shape, { 5, 4 })
  equal(c:sample().dtype, "int64")
  equal(D.Dirichlet(kiln.ones(4, 3)):sample({ 2 }).shape, { 2, 4, 3 })
  equal(D.Multinomial(7, kiln.ones(4, 3)):sample({ 2 }):sum(-1):eq(7):all():item(), true)
  local m = D.MultivariateNormal(kiln.zeros(3), { scale_tril = kiln.eye(3):expand(4, 3, 3) })
  equal({ m.batch_shape, m.event_shape, m:sample({ 2 }).shape }, { { 4 }, { 3 }, { 2, 4, 3 } })
  check.truth(m.precision_matrix:allclose(kiln.eye(3):expand(4, 3, 3)), "the precision")
  local before, drawn = kiln.get_num_threads(), {}
  for threads = 1, 2 do
    kiln.set_num_threads(threads)
    kiln.manual_seed(33)
    drawn[threads] = {}
    for i, case in ipairs(cases) do drawn[threads][i] = case[1]:sample { 20000 } end
  end
  kiln.set_num_threads(before)
  for i, x in ipairs(drawn[1]) do check.truth(x:equal(drawn[2][i]), cases[i][1].name .. " on two threads") end
end)

test("refusals", function()
  raises(function() D.Normal(0, -1) end, "distributions.lua:", "Normal: scale must be positive")
  raises(function() D.Normal("a", 1) end, "Normal: parameter 1 must be a tensor or a number, got string")
  raises(function() D.Uniform(1, 1) end, "Uniform: low must be below high")
  raises(function() D.Bernoulli(1.5) end, "Bernoulli: probs must lie in [0, 1]")
  raises(function() D.Bernoulli {} end, "Bernoulli: either probs or logits are needed")
  raises(function() D.Categorical(0.5) end, "Categorical: at least one dim of classes is needed")
  raises(function() D.Categorical(kiln.tensor { 1.0, -1.0 }) end, "Categorical: probs must be at least 0")
  raises(function() D.Multinomial(0.5, kiln.ones(2)) end, "Multinomial: total_count must be a positive integer, got 0.5")
  raises(function() D.MultivariateNormal(kiln.zeros(2)) end, "one of covariance_matrix, precision_matrix and scale_tril is needed")
  raises(function() D.Poisson(1.0):rsample() end, "Poisson: there is no rsample")
  raises(function() D.Poisson(1.0):entropy() end, "Poisson: there is no entropy")
  raises(function() D.kl_divergence(D.Normal(0, 1), D.Cauchy(0, 1)) end, "kl_divergence: there is none for Normal and Cauchy")
  raises(function() D.kl_divergence(1, 2) end, "kl_divergence: two distributions are needed")
end)
