-- Normalisation as modules: by the batch, by the sample, by groups of channels, over the last dims. The arithmetic is in ops;
-- here are the running values and which of them an op is given.
local kiln = require "kiln"
local F = require "kiln.nn.functional"
local arguments = require "kiln.nn.arguments"
local module = require "kiln.nn.module"
local Module, Parameter, fail = module.Module, module.Parameter, kiln.fail

local part = {}

-- ---- batch and instance ----------------------------------------------------------------------------------------

-- What both kinds have: weight and bias, and running values. num_batches_tracked counts the batches seen in training.
local function begin(self, features, options)
  self.num_features = arguments.count(self.name, "the number of channels", features)
  self.eps, self.momentum = options.eps, options.momentum
  self.affine, self.track_running_stats = options.affine, options.track_running_stats
  if self.momentum and type(self.momentum) ~= "number" then
    fail("%s: momentum must be a number, or false for the average of all batches, got %s", self.name, tostring(self.momentum))
  end
  if self.affine then self.weight, self.bias = Parameter(kiln.ones(features)), Parameter(kiln.zeros(features)) end
  if self.track_running_stats then
    self:register_buffer("running_mean", kiln.zeros(features))
    self:register_buffer("running_var", kiln.ones(features))
    self:register_buffer("num_batches_tracked", kiln.tensor(0))
  end
end

local function extra(self)
  return ("%d%s%s"):format(self.num_features, self.affine and "" or ", no weight",
    self.track_running_stats and "" or ", no running values")
end

-- x has to have `least` to `most` dims.
local function check_rank(self, x, least, most)
  local rank = x:dim()
  if rank < least or rank > most then
    fail("%s: an input of %s%d dims is needed, got %d", self.name, least < most and least .. " or " or "", most, rank)
  end
end

local function check_channels(self, x, dim)
  local channels = x:size(dim)
  if channels ~= self.num_features then
    fail("%s: made for %d channels, the input has %d (dim %d)", self.name, self.num_features, channels, dim)
  end
end

for dims = 1, 3 do
  --- BatchNorm2d(channels [, eps = 1e-5, momentum = 0.1, affine = true, track_running_stats = true]) on [N, C, H, W];
  --- BatchNorm1d on [N, C] and [N, C, L], BatchNorm3d on [N, C, D, H, W]. While training, by the batch, whose mean and
  --- variance the running values follow: by the momentum, or with momentum = false as the average of all batches.
  local Batch = Module:extend(("BatchNorm%dd"):format(dims))
  part[Batch.name] = Batch

  function Batch:init(features, ...)
    begin(self, features, arguments.read(Batch.name,
      { "eps", 1e-5, "momentum", 0.1, "affine", true, "track_running_stats", true }, ...))
  end

  function Batch:forward(x)
    check_rank(self, x, dims == 1 and 2 or dims + 2, dims + 2)
    check_channels(self, x, 2)
    local mean, var = self.running_mean, self.running_var
    local by_batch = self.training or not mean
    if not (self.training and mean) then return F.batch_norm(x, mean, var, self.weight, self.bias, by_batch, 0, self.eps) end
    kiln.no_grad(function() self.num_batches_tracked:add_(1) end)
    if self.momentum then return F.batch_norm(x, mean, var, self.weight, self.bias, true, self.momentum, self.eps) end
    -- With a momentum of 1 what follows is the batch's own.
    local own_mean, own_var = kiln.zeros_like(mean), kiln.zeros_like(var)
    local y = F.batch_norm(x, own_mean, own_var, self.weight, self.bias, true, 1, self.eps)
    kiln.no_grad(function()
      local share = 1 / self.num_batches_tracked
      mean:copy_(mean + (own_mean - mean) * share)
      var:copy_(var + (own_var - var) * share)
    end)
    return y
  end
  Batch.extra = extra

  --- InstanceNorm2d(channels [, eps = 1e-5, momentum = 0.1, affine = false, track_running_stats = false]) on [N, C, H, W]
  --- or [C, H, W]: each channel of each sample by itself, or, in eval and with running values, by these.
  local Instance = Module:extend(("InstanceNorm%dd"):format(dims))
  part[Instance.name] = Instance

  function Instance:init(features, ...)
    begin(self, features, arguments.read(Instance.name,
      { "eps", 1e-5, "momentum", 0.1, "affine", false, "track_running_stats", false }, ...))
  end

  function Instance:forward(x)
    check_rank(self, x, dims + 1, dims + 2)
    local single = x:dim() == dims + 1
    check_channels(self, x, -dims - 1)
    if single then x = x:unsqueeze(1) end
    local y = F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
      self.training or not self.track_running_stats, self.momentum or 0, self.eps)
    return single and y:squeeze(1) or y
  end
  Instance.extra = extra
end

-- ---- over the last dims, over groups of channels ---------------------------------------------------------------

-- The sizes at the end of the input, as a list.
local function shape_of(class, shape)
  local list = type(shape) == "table" and shape or { shape }
  for i = 1, #list do arguments.count(class, "normalized_shape", list[i]) end
  if #list == 0 then fail("%s: normalized_shape must be a size or a list of sizes", class) end
  return list
end

local function last_dims(self)
  return table.concat(self.normalized_shape, "x") .. (self.weight and "" or ", no weight")
end

--- LayerNorm(normalized_shape [, eps = 1e-5, elementwise_affine = true, bias = true]): a size or a list of sizes.
local LayerNorm = Module:extend "LayerNorm"
part.LayerNorm = LayerNorm
function LayerNorm:init(shape, ...)
  local options = arguments.read("LayerNorm", { "eps", 1e-5, "elementwise_affine", true, "bias", true }, ...)
  self.normalized_shape, self.eps = shape_of("LayerNorm", shape), options.eps
  if options.elementwise_affine then
    self.weight = Parameter(kiln.ones(self.normalized_shape))
    if options.bias then self.bias = Parameter(kiln.zeros(self.normalized_shape)) end
  end
end
function LayerNorm:forward(x) return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps) end
LayerNorm.extra = last_dims

--- RMSNorm(normalized_shape [, eps, elementwise_affine = true]): without eps that of the dtype.
local RMSNorm = Module:extend "RMSNorm"
part.RMSNorm = RMSNorm
function RMSNorm:init(shape, ...)
  local options = arguments.read("RMSNorm", { "eps", arguments.optional, "elementwise_affine", true }, ...)
  self.normalized_shape, self.eps = shape_of("RMSNorm", shape), options.eps
  if options.elementwise_affine then self.weight = Parameter(kiln.ones(self.normalized_shape)) end
end
function RMSNorm:forward(x) return F.rms_norm(x, self.normalized_shape, self.weight, self.eps or -1) end
RMSNorm.extra = last_dims

--- GroupNorm(groups, channels [, eps = 1e-5, affine = true])
local GroupNorm = Module:extend "GroupNorm"
part.GroupNorm = GroupNorm
function GroupNorm:init(groups, channels, ...)
  local options = arguments.read("GroupNorm", { "eps", 1e-5, "affine", true }, ...)
  arguments.count("GroupNorm", "the number of groups", groups)
  arguments.count("GroupNorm", "the number of channels", channels)
  if channels % groups ~= 0 then fail("GroupNorm: %d groups do not divide %d channels", groups, channels) end
  self.num_groups, self.num_channels, self.eps = groups, channels, options.eps
  if options.affine then self.weight, self.bias = Parameter(kiln.ones(channels)), Parameter(kiln.zeros(channels)) end
end
function GroupNorm:forward(x) return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps) end
function GroupNorm:extra() return ("%d of %d%s"):format(self.num_groups, self.num_channels, self.weight and "" or ", no weight") end

--- LocalResponseNorm(size [, alpha = 1e-4, beta = 0.75, k = 1]): by the squares in a window of channels.
local LocalResponseNorm = Module:extend "LocalResponseNorm"
part.LocalResponseNorm = LocalResponseNorm
function LocalResponseNorm:init(size, ...)
  local options = arguments.read("LocalResponseNorm", { "alpha", 1e-4, "beta", 0.75, "k", 1 }, ...)
  self.size = arguments.count("LocalResponseNorm", "the size", size)
  self.alpha, self.beta, self.k = options.alpha, options.beta, options.k
end
function LocalResponseNorm:forward(x) return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k) end
function LocalResponseNorm:extra() return tostring(self.size) end

return part
