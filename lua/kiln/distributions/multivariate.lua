-- Distributions of vectors: Dirichlet, Multinomial, MultivariateNormal. The last dim of what they give is an event.
local kiln = require "kiln"
local distributions = require "kiln.distributions"
local define, need, fail = distributions.define, distributions.need, kiln.fail

-- All but the last `n` dims, and those.
local function split_shape(shape, n)
  return { table.unpack(shape, 1, #shape - n) }, { table.unpack(shape, #shape - n + 1) }
end

--- Dirichlet(concentration): parts that add up to 1.
define("Dirichlet", {
  has_rsample = true,
  init = function(self, concentration)
    if not kiln.is_tensor(concentration) or #concentration.shape == 0 then
      fail "Dirichlet: concentration must be a tensor of at least one dim"
    end
    self.concentration = concentration
    need("Dirichlet", concentration:gt(0), "concentration must be positive")
    self.batch_shape, self.event_shape = split_shape(concentration.shape, 1)
  end,
  rsample = function(self, shape)
    local g = self:spread(self.concentration, shape):standard_gamma()
    return g / g:sum(-1, true)
  end,
  log_prob = function(self, x)
    local c = self.concentration
    return kiln.xlogy(c - 1, x):sum(-1) + c:sum(-1):lgamma() - c:lgamma():sum(-1)
  end,
  entropy = function(self)
    local c = self.concentration
    local k, all = c:size(-1), c:sum(-1)
    return c:lgamma():sum(-1) - all:lgamma() - (k - all) * all:digamma() - ((c - 1) * c:digamma()):sum(-1)
  end,
  get = {
    mean = function(self) return self.concentration / self.concentration:sum(-1, true) end,
    variance = function(self)
      local c, all = self.concentration, self.concentration:sum(-1, true)
      return c * (all - c) / (all:square() * (all + 1))
    end,
  },
})

--- Multinomial(total_count, probs): how often each class is drawn.
define("Multinomial", {
  init = function(self, total_count, probs)
    if math.type(total_count) ~= "integer" or total_count < 1 then
      fail("Multinomial: total_count must be a positive integer, got %s", tostring(total_count))
    end
    self.total_count = total_count
    self.probs, self.logits = distributions.read_probs("Multinomial", probs, false)
    self.batch_shape, self.event_shape = split_shape(self.probs.shape, 1)
  end,
  sample = function(self, shape)
    return kiln.no_grad(function()
      local p = self:spread(self.probs, shape)
      local rows = p:reshape(-1, p:size(-1))
      local drawn = rows:multinomial(self.total_count, true)
      return kiln.zeros_like(rows):scatter_add(drawn, kiln.ones_like(drawn):type_as(rows), 2):reshape(p.shape)
    end)
  end,
  log_prob = function(self, x)
    local n = x:sum(-1)
    return (n + 1):lgamma() - (x + 1):lgamma():sum(-1) + (x * self.logits):sum(-1)
  end,
  get = {
    mean = function(self) return self.probs * self.total_count end,
    variance = function(self) return self.probs * (1 - self.probs) * self.total_count end,
  },
})

-- The lower factor of the covariance, from what was given.
local function factor(covariance, precision, scale_tril)
  if scale_tril then return scale_tril end
  if covariance then return kiln.cholesky(covariance) end
  return kiln.cholesky(kiln.inv(precision))
end

--- MultivariateNormal(loc, covariance), or (loc, { covariance_matrix = | precision_matrix = | scale_tril = }): normal vectors.
define("MultivariateNormal", {
  has_rsample = true,
  init = function(self, loc, given)
    if kiln.is_tensor(given) then given = { covariance_matrix = given } end
    given = type(given) == "table" and given or {}
    local c, p, l = given.covariance_matrix, given.precision_matrix, given.scale_tril
    if (c and 1 or 0) + (p and 1 or 0) + (l and 1 or 0) ~= 1 then
      fail "MultivariateNormal: one of covariance_matrix, precision_matrix and scale_tril is needed"
    end
    if not kiln.is_tensor(loc) or #loc.shape == 0 then
      fail "MultivariateNormal: loc must be a tensor of at least one dim"
    end
    local matrix = factor(c, p, l)
    local both = loc:detach():unsqueeze(-1) + matrix:detach()
    self.batch_shape, self.event_shape = split_shape({ table.unpack(both.shape, 1, #both.shape - 1) }, 1)
    self.loc = loc:expand({ table.unpack(both.shape, 1, #both.shape - 1) })
    self.scale_tril = matrix:expand(both.shape)
  end,
  rsample = function(self, shape)
    local loc = self:spread(self.loc, shape)
    local noise = kiln.randn_like(loc:detach()):unsqueeze(-1)
    return loc + self.scale_tril:matmul(noise):squeeze(-1)
  end,
  log_prob = function(self, x)
    local k = self.loc:size(-1)
    local z = kiln.solve_triangular(self.scale_tril, (x - self.loc):unsqueeze(-1), { upper = false }):squeeze(-1)
    return (z:square():sum(-1) + k * math.log(2 * math.pi)) * -0.5 - self:half_log_det()
  end,
  half_log_det = function(self) return self.scale_tril:diagonal(0, -2, -1):log():sum(-1) end,
  entropy = function(self) return self:half_log_det() + 0.5 * self.loc:size(-1) * (1 + math.log(2 * math.pi)) end,
  get = {
    mean = function(self) return self.loc end,
    variance = function(self) return self.scale_tril:square():sum(-1) end,
    covariance_matrix = function(self) return self.scale_tril:matmul(self.scale_tril:transpose(-2, -1)) end,
    precision_matrix = function(self)
      local eye = kiln.eye(self.loc:size(-1), { dtype = self.loc.dtype, device = self.loc.device })
      return kiln.cholesky_solve(eye, self.scale_tril)
    end,
  },
})
