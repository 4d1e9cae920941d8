-- Distributions of whole numbers: Bernoulli, Categorical, Geometric, Poisson, Binomial. Probabilities are given as
-- probs, { probs = } or { logits = }.
local kiln = require "kiln"
local distributions = require "kiln.distributions"
local define, broadcast, need, read_probs = distributions.define, distributions.broadcast, distributions.need,
  distributions.read_probs

local function quietly(f)
  return function(self, shape) return kiln.no_grad(function() return f(self, shape):detach() end) end
end

-- Minus the logarithm of 1 - p, from logits.
local function softplus(x) return kiln.logaddexp(x, kiln.zeros_like(x)) end

local function binary_entropy(self) return softplus(self.logits) - self.probs * self.logits end

--- Bernoulli(probs or { probs = } or { logits = }): 1 with that probability, else 0.
define("Bernoulli", {
  init = function(self, probs)
    self.probs, self.logits = read_probs("Bernoulli", probs, true)
    self.batch_shape = self.probs.shape
  end,
  sample = quietly(function(self, shape) return self:spread(self.probs, shape):bernoulli() end),
  log_prob = function(self, x) return x * self.logits - softplus(self.logits) end,
  entropy = binary_entropy,
  get = {
    mean = function(self) return self.probs end,
    variance = function(self) return self.probs * (1 - self.probs) end,
  },
})

-- Classes have no mean.
local function undefined(self)
  return kiln.full(self.batch_shape, 0 / 0, { dtype = self.probs.dtype, device = self.probs.device })
end

--- Categorical(probs or { probs = } or { logits = }): a class, from 1 on; the last dim of probs are the classes.
define("Categorical", {
  init = function(self, probs)
    self.probs, self.logits = read_probs("Categorical", probs, false)
    self.batch_shape = { table.unpack(self.probs.shape, 1, #self.probs.shape - 1) }
  end,
  sample = quietly(function(self, shape)
    local classes, wanted, count = self.probs:size(-1), self:extended(shape), 1
    for i = 1, #wanted - #self.batch_shape do count = count * wanted[i] end
    local drawn = self.probs:reshape(-1, classes):multinomial(count, true)
    return drawn:transpose(1, 2):reshape(wanted)
  end),
  log_prob = function(self, x)
    x = x:long()
    local like = x:unsqueeze(-1) + kiln.zeros_like(self.logits:detach()):long() -- broadcast, for each class
    return self.logits:expand(like.shape):gather(like:narrow(-1, 1, 1), -1):squeeze(-1)
  end,
  entropy = function(self) return -(self.probs * self.logits):sum(-1) end,
  get = {
    mean = undefined,
    variance = undefined,
  },
})

-- How many failures come before the first success: 0, 1, …
--- Geometric(probs or { probs = } or { logits = }): how many failures come before the first success.
define("Geometric", {
  init = function(self, probs)
    self.probs, self.logits = read_probs("Geometric", probs, true)
    need("Geometric", self.probs:gt(0), "probs must be above 0")
    self.batch_shape = self.probs.shape
  end,
  sample = quietly(function(self, shape)
    local p = self:spread(self.probs, shape)
    return ((-kiln.rand_like(p)):log1p() / (-p):log1p()):floor()
  end),
  log_prob = function(self, x) return kiln.xlog1py(x, -self.probs) + self.probs:log() end,
  entropy = function(self) return binary_entropy(self) / self.probs end,
  get = {
    mean = function(self) return 1 / self.probs - 1 end,
    variance = function(self) return (1 / self.probs - 1) / self.probs end,
  },
})

--- Poisson(rate): how often something happens that does `rate` times on average.
define("Poisson", {
  init = function(self, rate)
    self.rate = broadcast("Poisson", { rate })
    need("Poisson", self.rate:ge(0), "rate must be at least 0")
    self.batch_shape = self.rate.shape
  end,
  sample = quietly(function(self, shape) return self:spread(self.rate, shape):poisson() end),
  log_prob = function(self, x) return kiln.xlogy(x, self.rate) - self.rate - (x + 1):lgamma() end,
  get = { mean = function(self) return self.rate end, variance = function(self) return self.rate end },
})

--- Binomial(total_count, probs or { probs = } or { logits = }): how many of so many are 1.
define("Binomial", {
  init = function(self, total_count, probs)
    local p, logits = read_probs("Binomial", probs, true)
    self.total_count, self.probs, self.logits = broadcast("Binomial", { total_count, p, logits })
    need("Binomial", self.total_count:ge(0), "total_count must be at least 0")
    self.batch_shape = self.probs.shape
  end,
  sample = quietly(function(self, shape)
    return kiln.binomial(self:spread(self.total_count, shape), self:spread(self.probs, shape))
  end),
  log_prob = function(self, x)
    local n = self.total_count
    local ways = (n + 1):lgamma() - (x + 1):lgamma() - (n - x + 1):lgamma()
    return ways + x * self.logits - n * softplus(self.logits)
  end,
  get = {
    mean = function(self) return self.total_count * self.probs end,
    variance = function(self) return self.total_count * self.probs * (1 - self.probs) end,
  },
})
