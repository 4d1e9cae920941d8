-- Kullback-Leibler divergences in closed form.
local kiln = require "kiln"
local distributions = require "kiln.distributions"
local register = distributions.register_kl

local function same(name, f) register(name, name, f) end

local function normal(p, q)
  local ratio, moved = (p.scale / q.scale):square(), ((p.loc - q.loc) / q.scale):square()
  return (ratio + moved - 1 - ratio:log()) / 2
end
same("Normal", normal)
same("LogNormal", normal)

same("Bernoulli", function(p, q)
  local function part(a, b) return kiln.xlogy(a, a) - kiln.xlogy(a, b) end
  return part(p.probs, q.probs) + part(1 - p.probs, 1 - q.probs)
end)

same("Categorical", function(p, q)
  local part = kiln.where(p.probs:eq(0), 0.0, p.probs * (p.logits - q.logits))
  return part:sum(-1)
end)

same("Uniform", function(p, q)
  local inside = q.low:le(p.low) & q.high:ge(p.high)
  return kiln.where(inside, ((q.high - q.low) / (p.high - p.low)):log(), math.huge)
end)

same("Exponential", function(p, q)
  local ratio = q.rate / p.rate
  return ratio - 1 - ratio:log()
end)

same("Gamma", function(p, q)
  local a, b = p.concentration, q.concentration
  return b * (p.rate / q.rate):log() + b:lgamma() - a:lgamma() + (a - b) * a:digamma() + (q.rate - p.rate) * (a / p.rate)
end)

same("Beta", function(p, q)
  local a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
  local all, other = a + b, c + d
  return c:lgamma() + d:lgamma() + all:lgamma() - a:lgamma() - b:lgamma() - other:lgamma() + (a - c) * a:digamma()
    + (b - d) * b:digamma() + (other - all) * all:digamma()
end)

same("Dirichlet", function(p, q)
  local a, b = p.concentration, q.concentration
  local all = a:sum(-1)
  return all:lgamma() - b:sum(-1):lgamma() - (a:lgamma() - b:lgamma()):sum(-1)
    + ((a - b) * (a:digamma() - all:digamma():unsqueeze(-1))):sum(-1)
end)

same("Laplace", function(p, q)
  local apart = (p.loc - q.loc):abs()
  return (q.scale / p.scale):log() + apart / q.scale + p.scale / q.scale * (-apart / p.scale):exp() - 1
end)

same("Poisson", function(p, q) return p.rate * (p.rate:log() - q.rate:log()) - (p.rate - q.rate) end)

same("Geometric", function(p, q)
  return -p:entropy() - (-q.probs):log1p() / p.probs - q.logits
end)

same("Binomial", function(p, q)
  local n = p.total_count
  if not kiln.is_capturing() and not n:eq(q.total_count):all():item() then
    kiln.fail "kl_divergence: Binomials of different total_count have no closed form"
  end
  return n * (p.probs * (p.logits - q.logits) + (-p.probs):log1p() - (-q.probs):log1p())
end)

same("Cauchy", function(p, q)
  return ((p.scale + q.scale):square() + (p.loc - q.loc):square()):log() - (4 * p.scale * q.scale):log()
end)

same("Gumbel", function(p, q)
  local ratio, apart, euler = p.scale / q.scale, (q.loc - p.loc) / q.scale, 0.57721566490153286
  return -ratio:log() - apart + ratio * euler + (apart + (1 + ratio):lgamma()):exp() - (1 + euler)
end)

same("MultivariateNormal", function(p, q)
  local function solved(b) return kiln.solve_triangular(q.scale_tril, b, { upper = false }) end
  local spread = solved(p.scale_tril):square():sum({ -2, -1 })
  local moved = solved((q.loc - p.loc):unsqueeze(-1)):square():sum({ -2, -1 })
  return q:half_log_det() - p:half_log_det() + (spread + moved - p.loc:size(-1)) / 2
end)
