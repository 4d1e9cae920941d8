-- Distributions of one real number: Normal, LogNormal, Uniform, Exponential, Gamma, Beta, Laplace, Cauchy, StudentT,
-- Gumbel. rsample is written so that gradients reach the parameters.
local kiln = require "kiln"
local distributions = require "kiln.distributions"
local define, broadcast, need = distributions.define, distributions.broadcast, distributions.need

local HALF_LOG_2PI, LOG_PI, EULER = 0.5 * math.log(2 * math.pi), math.log(math.pi), 0.57721566490153286

local function nan_like(x) return kiln.full_like(x, 0 / 0) end

-- Parameters loc and scale, which most have.
local function loc_scale(self, loc, scale)
  self.loc, self.scale = broadcast(self.name, { loc, scale })
  need(self.name, self.scale:gt(0), "scale must be positive")
  self.batch_shape = self.loc.shape
end

-- loc + scale times what `draw` gives for the shape.
local function moved(draw)
  return function(self, shape)
    local loc, scale = self:spread(self.loc, shape), self:spread(self.scale, shape)
    return loc + scale * draw(loc)
  end
end

-- Uniform in (0, 1).
local function open_uniform(like)
  return kiln.rand_like(like:detach()):clamp(distributions.eps_of(like) / 4, 1)
end

--- Normal(loc, scale): the bell curve of that mean and deviation.
define("Normal", {
  has_rsample = true,
  init = loc_scale,
  rsample = moved(function(like) return kiln.randn_like(like:detach()) end),
  log_prob = function(self, x)
    local z = (x - self.loc) / self.scale
    return z * z * -0.5 - self.scale:log() - HALF_LOG_2PI
  end,
  entropy = function(self) return self.scale:log() + (0.5 + HALF_LOG_2PI) end,
  cdf = function(self, x) return (((x - self.loc) / (self.scale * math.sqrt(2))):erf() + 1) / 2 end,
  icdf = function(self, p) return self.loc + self.scale * math.sqrt(2) * (p * 2 - 1):erfinv() end,
  get = { mean = function(self) return self.loc end, variance = function(self) return self.scale:square() end },
})

--- LogNormal(loc, scale): exp of a Normal.
define("LogNormal", {
  has_rsample = true,
  init = function(self, loc, scale)
    self.base = distributions.Normal(loc, scale)
    self.loc, self.scale, self.batch_shape = self.base.loc, self.base.scale, self.base.batch_shape
  end,
  rsample = function(self, shape) return self.base:rsample(shape):exp() end,
  log_prob = function(self, x) return self.base:log_prob(x:log()) - x:log() end,
  entropy = function(self) return self.base:entropy() + self.loc end,
  cdf = function(self, x) return self.base:cdf(x:log()) end,
  icdf = function(self, p) return self.base:icdf(p):exp() end,
  get = {
    mean = function(self) return (self.loc + self.scale:square() / 2):exp() end,
    variance = function(self)
      local square = self.scale:square()
      return square:expm1() * (self.loc * 2 + square):exp()
    end,
  },
})

--- Uniform(low, high): every number from low to high alike.
define("Uniform", {
  has_rsample = true,
  init = function(self, low, high)
    self.low, self.high = broadcast("Uniform", { low, high })
    need("Uniform", self.low:lt(self.high), "low must be below high")
    self.batch_shape = self.low.shape
  end,
  rsample = function(self, shape)
    local low, high = self:spread(self.low, shape), self:spread(self.high, shape)
    return low + kiln.rand_like(low:detach()) * (high - low)
  end,
  log_prob = function(self, x)
    local inside = x:ge(self.low) & x:lt(self.high)
    return kiln.where(inside, -(self.high - self.low):log(), -math.huge)
  end,
  entropy = function(self) return (self.high - self.low):log() end,
  cdf = function(self, x) return ((x - self.low) / (self.high - self.low)):clamp(0, 1) end,
  icdf = function(self, p) return self.low + p * (self.high - self.low) end,
  get = {
    mean = function(self) return (self.low + self.high) / 2 end,
    variance = function(self) return (self.high - self.low):square() / 12 end,
  },
})

--- Exponential(rate): the time until something that happens `rate` times in one.
define("Exponential", {
  has_rsample = true,
  init = function(self, rate)
    self.rate = broadcast("Exponential", { rate })
    need("Exponential", self.rate:gt(0), "rate must be positive")
    self.batch_shape = self.rate.shape
  end,
  rsample = function(self, shape)
    local rate = self:spread(self.rate, shape)
    return -(-kiln.rand_like(rate:detach())):log1p() / rate
  end,
  log_prob = function(self, x) return self.rate:log() - self.rate * x end,
  entropy = function(self) return 1 - self.rate:log() end,
  cdf = function(self, x) return -(-self.rate * x):expm1() end,
  icdf = function(self, p) return -(-p):log1p() / self.rate end,
  get = {
    mean = function(self) return 1 / self.rate end,
    variance = function(self) return 1 / self.rate:square() end,
  },
})

--- Gamma(concentration, rate): the sum of `concentration` Exponentials.
define("Gamma", {
  has_rsample = true,
  init = function(self, concentration, rate)
    self.concentration, self.rate = broadcast("Gamma", { concentration, rate })
    need("Gamma", self.concentration:gt(0) & self.rate:gt(0), "concentration and rate must be positive")
    self.batch_shape = self.rate.shape
  end,
  rsample = function(self, shape)
    return self:spread(self.concentration, shape):standard_gamma() / self:spread(self.rate, shape)
  end,
  log_prob = function(self, x)
    local c = self.concentration
    return kiln.xlogy(c, self.rate) + kiln.xlogy(c - 1, x) - self.rate * x - c:lgamma()
  end,
  entropy = function(self)
    local c = self.concentration
    return c - self.rate:log() + c:lgamma() + (1 - c) * c:digamma()
  end,
  get = {
    mean = function(self) return self.concentration / self.rate end,
    variance = function(self) return self.concentration / self.rate:square() end,
  },
})

--- Beta(concentration1, concentration0): of a part, in (0, 1).
define("Beta", {
  has_rsample = true,
  init = function(self, a, b)
    self.concentration1, self.concentration0 = broadcast("Beta", { a, b })
    need("Beta", self.concentration1:gt(0) & self.concentration0:gt(0), "concentrations must be positive")
    self.batch_shape = self.concentration1.shape
  end,
  rsample = function(self, shape)
    local a = self:spread(self.concentration1, shape):standard_gamma()
    local b = self:spread(self.concentration0, shape):standard_gamma()
    return a / (a + b)
  end,
  log_prob = function(self, x)
    local a, b = self.concentration1, self.concentration0
    return kiln.xlogy(a - 1, x) + kiln.xlog1py(b - 1, -x) + (a + b):lgamma() - a:lgamma() - b:lgamma()
  end,
  entropy = function(self)
    local a, b = self.concentration1, self.concentration0
    local all = a + b
    return a:lgamma() + b:lgamma() - all:lgamma() - (a - 1) * a:digamma() - (b - 1) * b:digamma()
      + (all - 2) * all:digamma()
  end,
  get = {
    mean = function(self) return self.concentration1 / (self.concentration1 + self.concentration0) end,
    variance = function(self)
      local all = self.concentration1 + self.concentration0
      return self.concentration1 * self.concentration0 / (all:square() * (all + 1))
    end,
  },
})

--- Laplace(loc, scale): an Exponential to both sides.
define("Laplace", {
  has_rsample = true,
  init = loc_scale,
  rsample = moved(function(like) -- a sign and an exponential, both of one uniform
    local u = open_uniform(like) * 2 - 1
    return -u:sign() * (-u:abs()):clamp(-1 + distributions.eps_of(like) / 2, 0):log1p()
  end),
  log_prob = function(self, x) return -(self.scale * 2):log() - (x - self.loc):abs() / self.scale end,
  entropy = function(self) return (self.scale * 2):log() + 1 end,
  cdf = function(self, x)
    local d = x - self.loc
    return 0.5 - 0.5 * d:sign() * (-d:abs() / self.scale):expm1()
  end,
  icdf = function(self, p)
    local d = p - 0.5
    return self.loc - self.scale * d:sign() * (-2 * d:abs()):log1p()
  end,
  get = { mean = function(self) return self.loc end, variance = function(self) return 2 * self.scale:square() end },
})

--- Cauchy(loc, scale): tails so heavy that there is no mean.
define("Cauchy", {
  has_rsample = true,
  init = loc_scale,
  rsample = moved(function(like) return ((open_uniform(like) - 0.5) * math.pi):tan() end),
  log_prob = function(self, x)
    return -LOG_PI - self.scale:log() - ((x - self.loc) / self.scale):square():log1p()
  end,
  entropy = function(self) return self.scale:log() + math.log(4 * math.pi) end,
  cdf = function(self, x) return ((x - self.loc) / self.scale):atan() / math.pi + 0.5 end,
  icdf = function(self, p) return ((p - 0.5) * math.pi):tan() * self.scale + self.loc end,
  get = {
    mean = function(self) return nan_like(self.loc) end,
    variance = function(self) return kiln.full_like(self.loc, math.huge) end,
  },
})

--- StudentT(df [, loc = 0, scale = 1]): a bell curve with heavier tails, by its degrees of freedom.
define("StudentT", {
  has_rsample = true,
  init = function(self, df, loc, scale)
    self.df, self.loc, self.scale = broadcast("StudentT", { df, loc or 0, scale or 1 })
    need("StudentT", self.df:gt(0) & self.scale:gt(0), "df and scale must be positive")
    self.batch_shape = self.df.shape
  end,
  rsample = function(self, shape)
    local df, loc, scale = self:spread(self.df, shape), self:spread(self.loc, shape), self:spread(self.scale, shape)
    local normal = kiln.randn_like(loc:detach())
    return loc + scale * normal * (df / ((df / 2):standard_gamma() * 2)):sqrt()
  end,
  log_prob = function(self, x)
    local df, y = self.df, (x - self.loc) / self.scale
    local constant = self.scale:log() + df:log() / 2 + 0.5 * LOG_PI + (df / 2):lgamma() - ((df + 1) / 2):lgamma()
    return (df + 1) * (y:square() / df):log1p() * -0.5 - constant
  end,
  entropy = function(self)
    local df, more = self.df, (self.df + 1) / 2
    local beta = (df / 2):lgamma() + 0.5 * LOG_PI - more:lgamma()
    return self.scale:log() + more * (more:digamma() - (df / 2):digamma()) + df:log() / 2 + beta
  end,
  get = {
    mean = function(self) return kiln.where(self.df:gt(1), self.loc, 0 / 0) end,
    variance = function(self)
      local df = self.df
      local finite = self.scale:square() * df / (df - 2)
      return kiln.where(df:gt(2), finite, kiln.where(df:gt(1), kiln.full_like(df, math.huge), 0 / 0))
    end,
  },
})

--- Gumbel(loc, scale): of the largest of many.
define("Gumbel", {
  has_rsample = true,
  init = loc_scale,
  rsample = moved(function(like)
    local inside = 1 - distributions.eps_of(like) / 2
    return -(-open_uniform(like):clamp(0, inside):log()):log()
  end),
  log_prob = function(self, x)
    local y = (self.loc - x) / self.scale
    return y - y:exp() - self.scale:log()
  end,
  entropy = function(self) return self.scale:log() + (1 + EULER) end,
  cdf = function(self, x) return (-((self.loc - x) / self.scale):exp()):exp() end,
  icdf = function(self, p) return self.loc - self.scale * (-p:log()):log() end,
  get = {
    mean = function(self) return self.loc + self.scale * EULER end,
    variance = function(self) return self.scale:square() * (math.pi ^ 2 / 6) end,
  },
})
