-- kiln.distributions: probability distributions with PyTorch's names and parameters. This file: what all share; the
-- distributions are in the files of this folder, by what they give.
--   local d = kiln.distributions.Normal(0, kiln.tensor { 1, 2.0 })
--   d:sample { 3 }  d:rsample { 3 }  d:log_prob(x)  d.mean  d.variance  d.stddev  d:entropy()  d:cdf(x)  d:icdf(p)
--   kiln.distributions.kl_divergence(p, q)
-- Parameters are tensors or numbers and are broadcast. Results have the sizes asked for, then batch_shape, then event_shape.
-- rsample is there where results can be differentiated by the parameters. Classes that are drawn count from 1.
local kiln = require "kiln"
local fail = kiln.fail

local distributions = {}

-- ---- parameters ------------------------------------------------------------------------------------------------

-- Numbers become tensors of the others' dtype, float32 when there is none.
local function to_tensors(name, list)
  local like
  for _, value in ipairs(list) do
    if kiln.is_tensor(value) and value.dtype:find "float" then like = like or value end
  end
  for i, value in ipairs(list) do
    if type(value) == "number" then
      list[i] = kiln.tensor(value + 0.0, { dtype = like and like.dtype or "float32", device = like and like.device or "cpu" })
    elseif not kiln.is_tensor(value) then
      fail("%s: parameter %d must be a tensor or a number, got %s", name, i, type(value))
    elseif not value.dtype:find "float" then
      list[i] = like and value:type_as(like) or value:float()
    end
  end
  return list
end

local function expand(t, shape)
  if #t.shape == #shape and table.concat(t.shape, ",") == table.concat(shape, ",") then return t end
  return t:expand(shape)
end

--- The list of parameters as tensors of one shape.
function distributions.broadcast(name, list)
  list = to_tensors(name, list)
  local all = list[1]:detach()
  for i = 2, #list do all = all + list[i]:detach() end
  for i, t in ipairs(list) do list[i] = expand(t, all.shape) end
  return table.unpack(list)
end

--- Fails unless the condition, a bool tensor, holds everywhere. Not asked while a graph is recorded.
function distributions.need(name, condition, sentence)
  if not kiln.is_capturing() and not condition:all():item() then fail("%s: %s", name, sentence) end
end

--- eps_of(t): 1e-7 or so keeps logits of probabilities 0 and 1 finite.
local function eps_of(t) return t.dtype == "float64" and 2.220446049250313e-16 or 1.1920928955078125e-07 end
distributions.eps_of = eps_of

--- probs, or { probs = } or { logits = }: both as tensors. binary: of one event each, else the last dim are classes.
function distributions.read_probs(name, given, binary)
  local probs, logits = given, nil
  if type(given) == "table" and not kiln.is_tensor(given) then probs, logits = given.probs, given.logits end
  if (probs == nil) == (logits == nil) then fail("%s: either probs or logits are needed", name) end
  local value = to_tensors(name, { probs or logits })[1]
  if not binary then
    if #value.shape == 0 then fail("%s: at least one dim of classes is needed", name) end
    if logits then
      logits = value - value:logsumexp(-1, true)
      return logits:exp(), logits
    end
    distributions.need(name, value:ge(0), "probs must be at least 0")
    probs = value / value:sum(-1, true)
    return probs, probs:clamp(eps_of(probs), 1 - eps_of(probs)):log()
  end
  if logits then return value:sigmoid(), value end
  distributions.need(name, value:ge(0) & value:le(1), "probs must lie in [0, 1]")
  local inside = value:clamp(eps_of(value), 1 - eps_of(value))
  return value, inside:log() - (-inside):log1p()
end

-- ---- classes ---------------------------------------------------------------------------------------------------

--- Distribution: what all of them have: sample and rsample of a shape, log_prob, cdf, icdf, entropy where they have a formula,
--- and the fields mean, variance, stddev.
local Distribution = {}
local properties = {}
distributions.Distribution = Distribution

--- joined(list, …): one list of all their elements.
local function joined(...)
  local out = {}
  for i = 1, select("#", ...) do
    for _, n in ipairs((select(i, ...))) do out[#out + 1] = n end
  end
  return out
end
distributions.joined = joined

--- The shape of what is drawn for `shape`, a number, a list or nothing.
function Distribution:extended(shape)
  if type(shape) == "number" then shape = { shape } end
  return joined(shape or {}, self.batch_shape, self.event_shape)
end

--- A parameter in the shape of what is drawn (without the dims of an event).
function Distribution:spread(t, shape)
  if type(shape) == "number" then shape = { shape } end
  return expand(t, joined(shape or {}, t.shape))
end

--- As rsample, where there is one, without gradient.
function Distribution:sample(shape)
  if not self.has_rsample then fail("%s: there is no sample", self.name) end
  return kiln.no_grad(function() return self:rsample(shape):detach() end)
end

for _, missing in ipairs { "rsample", "entropy", "cdf", "icdf" } do
  Distribution[missing] = function(self) fail("%s: there is no %s", self.name, missing) end
end

function properties.stddev(self) return self.variance:sqrt() end

local function text(self)
  return ("%s(batch {%s}, event {%s})"):format(self.name, table.concat(self.batch_shape, ", "),
    table.concat(self.event_shape, ", "))
end

--- A new class. Its functions in `class`; those in class.get are read as fields, d.mean.
function distributions.define(name, class)
  local get = class.get
  class.name, class.get = name, nil
  local meta = { __tostring = text, __class = class }
  function meta.__index(self, key)
    local value = class[key]
    if value == nil then value = Distribution[key] end
    if value ~= nil then return value end
    local property = get[key] or properties[key]
    return property and property(self)
  end
  distributions[name] = setmetatable(class, {
    __call = function(_, ...)
      local self = setmetatable({ event_shape = {} }, meta)
      self:init(...)
      return self
    end,
  })
  return class
end

-- ---- divergences -----------------------------------------------------------------------------------------------

local divergences = {}

--- The divergence of two kinds of distributions, by their names: f(p, q).
function distributions.register_kl(p, q, f) divergences[p .. " " .. q] = f end

--- The Kullback-Leibler divergence of p from q, where it has a closed form.
function distributions.kl_divergence(p, q)
  local pm, qm = getmetatable(p), getmetatable(q)
  if not (pm and pm.__class and qm and qm.__class) then fail "kl_divergence: two distributions are needed" end
  local f = divergences[p.name .. " " .. q.name]
  if not f then fail("kl_divergence: there is none for %s and %s", p.name, q.name) end
  return f(p, q)
end

package.loaded["kiln.distributions"] = distributions
require "kiln.distributions.continuous"
require "kiln.distributions.discrete"
require "kiln.distributions.multivariate"
require "kiln.distributions.kl"

return distributions
