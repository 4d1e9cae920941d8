-- Losses as modules; what they compute is in functional.lua and in ops. A simple one is a row of a table.
local kiln = require "kiln"
local F = require "kiln.nn.functional"
local arguments = require "kiln.nn.arguments"
local Sequential = require("kiln.nn.container").Sequential
local ModuleList = require("kiln.nn.container").ModuleList
local Linear = require("kiln.nn.linear").Linear
local Module, fail = require("kiln.nn.module").Module, kiln.fail

local part = {}

-- How the functions are called: with as many tensors, then the weights, then the options.
local calls = {
  [2] = function(op) return function(self, a, b) return op(a, b, self.options) end end,
  [3] = function(op) return function(self, a, b, c) return op(a, b, c, self.options) end end,
  [4] = function(op) return function(self, a, b, c, d) return op(a, b, c, d, self.options) end end,
  weight = function(op) return function(self, a, b) return op(a, b, self.weight, self.options) end end,
  weights = function(op) return function(self, a, b) return op(a, b, self.weight, self.pos_weight, self.options) end end,
}

-- name = { function, how it is called, its options in PyTorch's order }; the defaults are the function's.
for name, row in pairs {
  L1Loss = { F.l1_loss, 2, { "reduction" } },
  MSELoss = { F.mse_loss, 2, { "reduction" } },
  SmoothL1Loss = { F.smooth_l1_loss, 2, { "reduction", "beta" } },
  HuberLoss = { F.huber_loss, 2, { "reduction", "delta" } },
  NLLLoss = { F.nll_loss, "weight", { "weight", "ignore_index", "reduction" } },
  CrossEntropyLoss = { F.cross_entropy, "weight", { "weight", "ignore_index", "reduction", "label_smoothing" } },
  BCELoss = { F.binary_cross_entropy, "weight", { "weight", "reduction" } },
  BCEWithLogitsLoss = { F.binary_cross_entropy_with_logits, "weights", { "weight", "reduction", "pos_weight" } },
  KLDivLoss = { F.kl_div, 2, { "reduction", "log_target" } },
  PoissonNLLLoss = { F.poisson_nll_loss, 2, { "log_input", "full", "eps", "reduction" } },
  GaussianNLLLoss = { F.gaussian_nll_loss, 3, { "full", "eps", "reduction" } },
  HingeEmbeddingLoss = { F.hinge_embedding_loss, 2, { "margin", "reduction" } },
  SoftMarginLoss = { F.soft_margin_loss, 2, { "reduction" } },
  MarginRankingLoss = { F.margin_ranking_loss, 3, { "margin", "reduction" } },
  MultiMarginLoss = { F.multi_margin_loss, "weight", { "p", "margin", "weight", "reduction" } },
  MultiLabelMarginLoss = { F.multilabel_margin_loss, 2, { "reduction" } },
  MultiLabelSoftMarginLoss = { F.multilabel_soft_margin_loss, "weight", { "weight", "reduction" } },
  CosineEmbeddingLoss = { F.cosine_embedding_loss, 3, { "margin", "reduction" } },
  TripletMarginLoss = { F.triplet_margin_loss, 3, { "margin", "p", "eps", "swap", "reduction" } },
  TripletMarginWithDistanceLoss = { F.triplet_margin_with_distance_loss, 3,
                                    { "distance_function", "margin", "swap", "reduction" } },
  CTCLoss = { F.ctc_loss, 4, { "blank", "reduction", "zero_infinity" } },
  CosineSimilarity = { F.cosine_similarity, 2, { "dim", "eps" } },
  PairwiseDistance = { F.pairwise_distance, 2, { "p", "eps", "keepdim" } },
} do
  local op, how, names = row[1], row[2], row[3]
  local Loss = Module:extend(name)
  part[name] = Loss
  Loss.about, Loss.computes = ("nn.%s([%s])"):format(name, table.concat(names, ", ")), op

  local fields, buffers = {}, {}
  for _, option in ipairs(names) do
    fields[#fields + 1], fields[#fields + 2] = option, arguments.optional
    buffers[option] = option:find "weight$" ~= nil
  end

  --- HuberLoss([reduction = "mean", delta = 1]) and the like; weights are options too, and buffers.
  function Loss:init(...)
    for option, value in pairs(arguments.read(name, fields, ...)) do
      if buffers[option] then
        self:register_buffer(option, value)
      else -- without any none: an empty table could be a list of numbers
        self.options = self.options or {}
        self.options[option] = value
      end
    end
  end

  Loss.forward = calls[how](op)

  function Loss:extra()
    local list = {}
    for _, option in ipairs(names) do
      local value = self.options and self.options[option]
      if value ~= nil then list[#list + 1] = ("%s = %s"):format(option, type(value) == "function" and "function" or tostring(value)) end
    end
    return table.concat(list, ", ")
  end
end

-- ---- many classes ----------------------------------------------------------------------------------------------

--- AdaptiveLogSoftmaxWithLoss(inputs, classes, cutoffs [, div_value = 4, head_bias = false]) (Grave et al., 2017): frequent
--- classes, those up to cutoffs[1], in the head; the rest in clusters that end at the further cutoffs, each narrower than the
--- one before by div_value. Called with x [N, inputs] or [inputs] and targets: the log-probability of each target, and the loss.
local Adaptive = Module:extend "AdaptiveLogSoftmaxWithLoss"
part.AdaptiveLogSoftmaxWithLoss = Adaptive

function Adaptive:init(inputs, classes, cutoffs, ...)
  local options = arguments.read(Adaptive.name, { "div_value", 4, "head_bias", false }, ...)
  arguments.count(Adaptive.name, "the number of inputs", inputs)
  arguments.count(Adaptive.name, "the number of classes", classes)
  local ends, before = {}, 0
  for i, cutoff in ipairs(type(cutoffs) == "table" and cutoffs or {}) do
    if math.type(cutoff) ~= "integer" or cutoff <= before or cutoff >= classes then ends = {} break end
    ends[i], before = cutoff, cutoff
  end
  if #ends == 0 then
    fail("%s: cutoffs must be a list of growing integers between 1 and %d", Adaptive.name, classes - 1)
  end
  self.n_classes, self.in_features, self.div_value = classes, inputs, options.div_value
  self.shortlist_size, self.n_clusters = ends[1], #ends
  ends[#ends + 1] = classes
  self.cutoffs = ends
  self.head = Linear(inputs, ends[1] + self.n_clusters, { bias = options.head_bias })
  self.tail = ModuleList {}
  for i = 1, self.n_clusters do
    local width = math.floor(inputs // options.div_value ^ i)
    if width < 1 then fail("%s: cluster %d would have no width: fewer clusters, or a smaller div_value", Adaptive.name, i) end
    self.tail:append(Sequential(Linear(inputs, width, { bias = false }), Linear(width, ends[i + 1] - ends[i], { bias = false })))
  end
end

--- Log-probabilities of all classes: [N, classes].
function Adaptive:log_prob(x)
  local head = self.head(x):log_softmax(2)
  local parts = { head:narrow(2, 1, self.shortlist_size) }
  for i = 1, self.n_clusters do
    parts[i + 1] = self.tail[i](x):log_softmax(2) + head:narrow(2, self.shortlist_size + i, 1)
  end
  return kiln.cat(parts, 2)
end

--- The most probable class of each row.
function Adaptive:predict(x) return self:log_prob(x):argmax(2) end

-- Every row goes through every cluster, so that no size depends on data; a target's own is chosen at the end.
function Adaptive:forward(x, target)
  local single = target:dim() == 0
  if single then x, target = x:unsqueeze(1), target:unsqueeze(1) end
  local out = self:log_prob(x):gather(2, target:unsqueeze(2)):squeeze(2)
  local loss = -out:mean()
  if single then out = out:squeeze(1) end
  return out, loss
end

function Adaptive:extra() return ("%d -> %d"):format(self.in_features, self.n_classes) end

return part
