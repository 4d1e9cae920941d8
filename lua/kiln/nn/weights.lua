-- Weights that are made of other tensors before each forward: weight_norm and spectral_norm. Gathered by utils.lua.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local module = require "kiln.nn.module"
local Parameter, fail = module.Parameter, kiln.fail

local weights = {}

-- The field _made of a module has, by the name of the tensor, { kind =, handle =, make = }. Functions get the module, and hold
-- none, so that they serve clones too.
local function begin(name, self, which)
  if not module.is_module(self) then fail("%s: a module is needed, got %s", name, type(self)) end
  local made = rawget(self, "_made") or {}
  if made[which] then fail("%s: '%s' already is made by %s", name, which, made[which].kind) end
  local w = rawget(self, which)
  if not kiln.is_tensor(w) or not w.is_leaf then fail("%s: %s has no parameter '%s'", name, self.name, tostring(which)) end
  self._made = made
  return w, made
end

-- Sets the tensor from now on before each forward, and at once.
local function keep(self, made, kind, which, make)
  self[which] = make(self)
  local handle = self:register_forward_pre_hook(function(m) m[which] = make(m) end)
  made[which] = { kind = kind, handle = handle, make = make }
end

-- The tensor as a parameter again, and what it was made of gone.
local function finish(name, self, which, kind, ...)
  local made = module.is_module(self) and rawget(self, "_made")
  if not made or not made[which] or made[which].kind ~= kind then
    fail("%s: '%s' is not made by %s", name, tostring(which), kind)
  end
  local w = kiln.no_grad(made[which].make, self)
  made[which].handle:remove()
  made[which] = nil
  if next(made) == nil then self._made = nil end
  for _, suffix in ipairs { ... } do
    self[which .. suffix] = nil
    if rawget(self, "_buffers") then self._buffers[which .. suffix] = nil end
  end
  self[which] = Parameter(w:detach())
  return self
end

-- ---- weight_norm -----------------------------------------------------------------------------------------------

-- Norms of the slices along dim, all other dims kept as 1; dim -1: of all.
local function norm_except(v, dim)
  if dim == -1 then return v:norm() end
  local others = {}
  for i = 1, v:dim() do
    if i ~= dim then others[#others + 1] = i end
  end
  return kiln.linalg.vector_norm(v, 2, others, true)
end

--- weight_norm(module [, name = "weight", dim = 1]): that parameter becomes name_g, the lengths of its slices along dim, and
--- name_v, their direction (Salimans, Kingma 2016). dim -1: one length for all.
function weights.weight_norm(self, ...)
  local o = arguments.read("weight_norm", { "name", "weight", "dim", 1 }, ...)
  local name, dim = o.name, o.dim
  local w, made = begin("weight_norm", self, name)
  if math.type(dim) ~= "integer" or dim ~= -1 and (dim < 1 or dim > w:dim()) then
    fail("weight_norm: dim must be -1 or from 1 to %d, got %s", w:dim(), tostring(dim))
  end
  local g, v = name .. "_g", name .. "_v"
  self[g], self[v] = Parameter(kiln.no_grad(norm_except, w, dim)), Parameter(w:detach():clone())
  keep(self, made, "weight_norm", name, function(m) return m[v] * (m[g] / norm_except(m[v], dim)) end)
  return self
end

--- remove_weight_norm(module [, name = "weight"]): the parameter is what it was made into.
function weights.remove_weight_norm(self, name)
  return finish("remove_weight_norm", self, name or "weight", "weight_norm", "_g", "_v")
end

-- ---- spectral_norm ---------------------------------------------------------------------------------------------

-- The weight as a matrix whose rows are slices along dim.
local function matrix(w, dim)
  if dim ~= 1 then w = w:transpose(1, dim) end
  return w:reshape(w:size(1), -1)
end

local function unit(x, eps) return x / x:norm():clamp_min(eps) end

--- spectral_norm(module [, name = "weight", n_power_iterations = 1, eps = 1e-12, dim]): that parameter becomes name_orig, and is
--- divided by its largest singular value, which the buffers name_u and name_v follow while training (Miyato et al. 2018). dim
--- is that of the outputs: 1, of transposed convolutions 2.
function weights.spectral_norm(self, ...)
  local o = arguments.read("spectral_norm",
    { "name", "weight", "n_power_iterations", 1, "eps", 1e-12, "dim", arguments.optional }, ...)
  local name, eps = o.name, o.eps
  local w, made = begin("spectral_norm", self, name)
  if w:dim() < 2 then fail("spectral_norm: '%s' must have at least two dimensions", name) end
  local times = arguments.count("spectral_norm", "n_power_iterations", o.n_power_iterations)
  local dim = o.dim or (self.name:find "^ConvTranspose" and 2 or 1)
  local rows = matrix(w, dim)
  local orig, un, vn = name .. "_orig", name .. "_u", name .. "_v"
  local like = { dtype = w.dtype, device = w.device }
  self[orig] = Parameter(w:detach())
  self:register_buffer(un, unit(kiln.randn(rows:size(1), like), eps))
  self:register_buffer(vn, unit(kiln.randn(rows:size(2), like), eps))
  local function follow(m, steps)
    local a = matrix(m[orig], dim)
    for _ = 1, steps do
      m[vn]:copy_(unit(a:t():mv(m[un]), eps))
      m[un]:copy_(unit(a:mv(m[vn]), eps))
    end
  end
  kiln.no_grad(follow, self, 15)
  keep(self, made, "spectral_norm", name, function(m)
    if m.training then kiln.no_grad(follow, m, times) end
    local sigma = m[un]:clone():dot(matrix(m[orig], dim):mv(m[vn]:clone()))
    return m[orig] / sigma
  end)
  return self
end

--- remove_spectral_norm(module [, name = "weight"]): the parameter is what it was made into.
function weights.remove_spectral_norm(self, name)
  return finish("remove_spectral_norm", self, name or "weight", "spectral_norm", "_orig", "_u", "_v")
end

return weights
