-- kiln.metrics: how good predictions are. Functions of one batch, and objects that add up over many: update(…), compute(),
-- reset(). Class labels are 1-based, scores are [N, classes, …], predictions and targets [N, …].
local kiln = require "kiln"
local fail, no_grad = kiln.fail, kiln.no_grad

local metrics = {}

-- ---- of one batch ----------------------------------------------------------------------------------------------

local function shape_text(t) return "[" .. table.concat(t.shape, ", ") .. "]" end

local function check_pair(name, scores, target)
  if not kiln.is_tensor(scores) then fail("%s: a tensor of scores or predictions is needed, got %s", name, type(scores)) end
  if not kiln.is_tensor(target) then fail("%s: a tensor of targets is needed, got %s", name, type(target)) end
  if target.dtype:find "float" then fail("%s: targets are class labels, of an integer dtype, got %s", name, target.dtype) end
end

local function check_classes(name, target)
  if target:eq(0):any():item() then fail("%s: a target is 0, and classes count from 1", name) end
end

-- Do the sizes say [N, classes, …] beside [N, …]?
local function are_scores(scores, target)
  local s, t = scores.shape, target.shape
  if #s ~= #t + 1 or s[1] ~= t[1] then return false end
  for i = 2, #t do
    if s[i + 1] ~= t[i] then return false end
  end
  return true
end

local function same_shape(a, b)
  local s, t = a.shape, b.shape
  if #s ~= #t then return false end
  for i = 1, #s do
    if s[i] ~= t[i] then return false end
  end
  return true
end

-- Predicted labels, from scores or as they are.
local function labels(name, scores, target)
  check_pair(name, scores, target)
  if are_scores(scores, target) then return scores:argmax(2) end
  if not same_shape(scores, target) then
    fail("%s: scores must be [N, classes, ...] and predictions as the targets; got %s and targets %s", name, shape_text(scores),
      shape_text(target))
  end
  if scores.dtype:find "float" then fail("%s: predictions are class labels, of an integer dtype, got %s", name, scores.dtype) end
  return scores
end

local function count_true(t) return t:sum():item() end

local function hits(name, scores, target)
  local found = labels(name, scores, target)
  check_classes(name, target)
  return count_true(found:eq(target)), target:numel()
end

local function top_hits(name, scores, target, k)
  check_pair(name, scores, target)
  check_classes(name, target)
  if not are_scores(scores, target) then
    fail("%s: scores must be [N, classes, ...] beside targets [N, ...]; got %s and %s", name, shape_text(scores), shape_text(target))
  end
  if k > scores:size(2) then fail("%s: there are %d classes, fewer than %d", name, scores:size(2), k) end
  local _, places = kiln.topk(scores, k, 2)
  return count_true(places:eq(target:unsqueeze(2))), target:numel()
end

local function need_k(name, k)
  if math.type(k) ~= "integer" or k < 1 then fail("%s: k must be a positive integer, got %s", name, tostring(k)) end
end

--- The part of the targets that are predicted, in [0, 1]: from scores (the highest counts) or predicted labels.
function metrics.accuracy(scores, target)
  local right, all = no_grad(hits, "accuracy", scores, target)
  return right / all
end

--- The part of the targets that are among the k highest scores.
function metrics.topk_accuracy(scores, target, k)
  need_k("topk_accuracy", k)
  local right, all = no_grad(top_hits, "topk_accuracy", scores, target, k)
  return right / all
end

-- ---- over many batches -----------------------------------------------------------------------------------------

-- A class: calling it makes one; init gets the arguments, reset follows.
local function class(name)
  local c = { name = name }
  c.__index = c
  metrics[name] = setmetatable(c, {
    __call = function(_, ...)
      local self = setmetatable({}, c)
      if c.init then c.init(self, ...) end
      self:reset()
      return self
    end,
  })
  return c
end

--- RunningMean(): update(value [, weight = 1]); a value may be a tensor of one element. compute() gives the weighted mean.
local RunningMean = class "RunningMean"
function RunningMean:reset() self.sum, self.weight = 0.0, 0.0 end
function RunningMean:update(value, weight)
  if kiln.is_tensor(value) then value = value:item() end
  if type(value) ~= "number" then fail("RunningMean: a number is needed, got %s", type(value)) end
  weight = weight or 1
  if type(weight) ~= "number" or not (weight >= 0) then
    fail("RunningMean: the weight must be a number that is not negative, got %s", tostring(weight))
  end
  self.sum, self.weight = self.sum + value * weight, self.weight + weight
  return self
end
function RunningMean:compute() return self.sum / self.weight end

--- Accuracy(): update(scores or predictions, targets). update gives the accuracy of its batch.
local Accuracy = class "Accuracy"
function Accuracy:reset() self.right, self.count = 0, 0 end
function Accuracy:update(scores, target)
  local right, all = no_grad(hits, "Accuracy", scores, target)
  self.right, self.count = self.right + right, self.count + all
  return right / all
end
function Accuracy:compute() return self.right / self.count end

--- TopKAccuracy(k): update(scores, targets).
local TopKAccuracy = class "TopKAccuracy"
function TopKAccuracy:init(k)
  need_k("TopKAccuracy", k)
  self.k = k
end
TopKAccuracy.reset, TopKAccuracy.compute = Accuracy.reset, Accuracy.compute
function TopKAccuracy:update(scores, target)
  local right, all = no_grad(top_hits, "TopKAccuracy", scores, target, self.k)
  self.right, self.count = self.right + right, self.count + all
  return right / all
end

-- ---- the confusion matrix --------------------------------------------------------------------------------------

--- ConfusionMatrix(classes [, names]): update(scores or predictions, targets). matrix() counts: a row for each class that is,
--- a column for each that was predicted. precision(), recall() and f1() are lists of one number for each class; nan where
--- there is nothing to divide by.
local ConfusionMatrix = class "ConfusionMatrix"

function ConfusionMatrix:init(classes, names)
  if math.type(classes) ~= "integer" or classes < 1 then
    fail("ConfusionMatrix: the number of classes must be a positive integer, got %s", tostring(classes))
  end
  if names ~= nil and (type(names) ~= "table" or #names ~= classes) then
    fail("ConfusionMatrix: names must be a list of %d", classes)
  end
  self.classes, self.names = classes, names
end

function ConfusionMatrix:reset() self.counts = kiln.zeros(self.classes, self.classes, { dtype = "int64" }) end

local function check_range(name, what, t, classes)
  local least, most = t:min():item(), t:max():item()
  if least < 1 or most > classes then
    fail("%s: %s go from %d to %d, classes from 1 to %d", name, what, least, most, classes)
  end
end

local function add(self, scores, target)
  local n = self.classes
  local predicted = labels("ConfusionMatrix", scores, target):reshape(-1):to "int64"
  local actual = target:reshape(-1):to "int64"
  if actual:numel() == 0 then return end
  check_range("ConfusionMatrix", "targets", actual, n)
  check_range("ConfusionMatrix", "predictions", predicted, n)
  local cells = (actual - 1) * n + predicted -- counted from 1
  self.counts = self.counts + kiln.bincount(cells, { minlength = n * n }):reshape(n, n):to(self.counts.device)
end

function ConfusionMatrix:update(scores, target)
  no_grad(add, self, scores, target)
  return self
end

function ConfusionMatrix:matrix() return self.counts:clone() end

-- The counts as lists: right ones, sums of rows, sums of columns.
local function sums(self)
  return kiln.diagonal(self.counts):totable(), self.counts:sum { 2 }:totable(), self.counts:sum { 1 }:totable()
end

local function quotients(self, f)
  local right, actual, predicted = sums(self)
  local out = {}
  for i = 1, self.classes do out[i] = f(right[i], actual[i], predicted[i]) end
  return out
end

--- Of those predicted to be of the class, how many are.
function ConfusionMatrix:precision() return quotients(self, function(right, _, predicted) return right / predicted end) end

--- Of those of the class, how many were predicted to be.
function ConfusionMatrix:recall() return quotients(self, function(right, actual) return right / actual end) end

--- The harmonic mean of both.
function ConfusionMatrix:f1() return quotients(self, function(right, actual, predicted) return 2 * right / (actual + predicted) end) end

function ConfusionMatrix:accuracy()
  local right, all = 0, self.counts:sum():item()
  for _, v in ipairs((sums(self))) do right = right + v end
  return right / all
end
ConfusionMatrix.compute = ConfusionMatrix.matrix

function ConfusionMatrix:__tostring()
  local precision, recall, f1 = self:precision(), self:recall(), self:f1()
  local rows, wide = self.counts:totable(), 5
  for i = 1, self.classes do wide = math.max(wide, #tostring(self.names and self.names[i] or i)) end
  local lines = { ("%" .. wide .. "s  precision  recall     F1  predicted"):format "class" }
  for i = 1, self.classes do
    local cells = {}
    for k, v in ipairs(rows[i]) do cells[k] = ("%5d"):format(v) end
    lines[#lines + 1] = ("%" .. wide .. "s  %9.3f  %6.3f  %5.3f  %s"):format(tostring(self.names and self.names[i] or i), precision[i],
      recall[i], f1[i], table.concat(cells, " "))
  end
  return table.concat(lines, "\n")
end

return metrics
