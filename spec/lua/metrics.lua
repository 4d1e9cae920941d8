-- kiln.metrics against counts made by hand, and against definitions worked out in plain Lua on random labels.
local check = require "check"
local test, equal, near, raises, truth = check.test, check.equal, check.near, check.raises, check.truth
local metrics = kiln.metrics
local T = kiln.tensor

local scores = T { { 0.1, 0.7, 0.2 }, { 0.5, 0.3, 0.2 }, { 0.2, 0.3, 0.5 }, { 0.4, 0.35, 0.25 } }
local target = T { 2, 1, 1, 3 }

test("accuracy of scores and of labels", function()
  equal(metrics.accuracy(scores, target), 0.5)
  equal(metrics.accuracy(T { 2, 1, 3, 1 }, target), 0.5)
  equal(metrics.accuracy(T { { 2, 1 }, { 3, 1 } }, T { { 2, 1 }, { 3, 3 } }), 0.75)
  local pixels = kiln.zeros(1, 2, 1, 2)
  pixels[{ 1, 2, 1, 1 }] = 1
  equal(metrics.accuracy(pixels, T { { { 2, 2 } } }), 0.5)
  equal(metrics.accuracy(scores:requires_grad_(), target:to "int32"), 0.5)
end)

test("top-k accuracy", function()
  equal(metrics.topk_accuracy(scores, target, 1), 0.5)
  equal(metrics.topk_accuracy(scores, target, 2), 0.5)
  equal(metrics.topk_accuracy(scores, target, 3), 1.0)
  equal(metrics.topk_accuracy(scores, T { 1, 2, 2, 2 }, 2), 0.75)
  local top = metrics.TopKAccuracy(2)
  equal(top:update(scores, T { 1, 2, 2, 2 }), 0.75)
  top:update(scores[{ { 1, 2 } }], T { 2, 1 })
  near(top:compute(), 5 / 6)
end)

test("over batches, and reset", function()
  local accuracy = metrics.Accuracy()
  equal(accuracy:update(scores, target), 0.5)
  accuracy:update(scores[{ { 1, 2 } }], target[{ { 1, 2 } }])
  near(accuracy:compute(), 4 / 6)
  accuracy:reset()
  truth(accuracy:compute() ~= accuracy:compute(), "of nothing it is nan")
  local mean = metrics.RunningMean()
  mean:update(2.0, 3):update(kiln.tensor(6.0))
  equal(mean:compute(), 3.0)
  mean:reset()
  mean:update(1)
  equal(mean:compute(), 1.0)
end)

test("the confusion matrix", function()
  local m = metrics.ConfusionMatrix(3, { "cat", "dog", "fox" })
  m:update(scores, target)
  m:update(T { 2, 2 }, T { 2, 3 })
  check.tensor(m:matrix(), { { 1, 0, 1 }, { 0, 2, 0 }, { 1, 1, 0 } }, "int64")
  near(m:precision(), { 1 / 2, 2 / 3, 0 })
  near(m:recall(), { 1 / 2, 1, 0 })
  near(m:f1(), { 1 / 2, 4 / 5, 0 })
  near(m:accuracy(), 3 / 6)
  truth(tostring(m):find("  dog      0.667   1.000  0.800      0     2     0", 1, true), tostring(m))
  m:reset()
  check.tensor(m:matrix(), { { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 } })
end)

test("the matrix of random labels is what counting gives", function()
  kiln.manual_seed(1)
  local n, m = 5, metrics.ConfusionMatrix(5)
  local counts = {}
  for i = 1, n do counts[i] = { 0, 0, 0, 0, 0 } end
  for _ = 1, 3 do
    local predicted, actual = kiln.randint(1, n + 1, { 40 }), kiln.randint(1, n + 1, { 40 })
    m:update(predicted, actual)
    for i = 1, 40 do
      local row = counts[actual[i]:item()]
      row[predicted[i]:item()] = row[predicted[i]:item()] + 1
    end
  end
  check.tensor(m:matrix(), counts)
  local recall = m:recall()
  for i = 1, n do
    local sum = 0
    for _, v in ipairs(counts[i]) do sum = sum + v end
    near(recall[i], counts[i][i] / sum)
  end
end)

test("mistakes", function()
  raises(function() metrics.accuracy(scores, T { 1, 2 }) end, "metrics.lua:", "accuracy: scores must be [N, classes, ...]",
    "got [4, 3] and targets [2]")
  raises(function() metrics.accuracy(3, target) end, "accuracy: a tensor of scores or predictions is needed, got number")
  raises(function() metrics.accuracy(scores, T { 1.0, 2, 3, 1 }) end, "targets are class labels, of an integer dtype, got float32")
  raises(function() metrics.accuracy(T { 1.0, 2, 3, 1 }, target) end, "predictions are class labels")
  raises(function() metrics.topk_accuracy(scores, target, 4) end, "there are 3 classes, fewer than 4")
  raises(function() metrics.topk_accuracy(scores, target) end, "k must be a positive integer, got nil")
  raises(function() metrics.ConfusionMatrix() end, "the number of classes must be a positive integer, got nil")
  raises(function() metrics.RunningMean():update "a" end, "RunningMean: a number is needed, got string")
  local m = metrics.ConfusionMatrix(2)
  raises(function() m:update(scores, target) end, "ConfusionMatrix: targets go from 1 to 3, classes from 1 to 2")
  raises(function() m:update(T { 0 }, T { 1 }) end, "predictions go from 0 to 0, classes from 1 to 2")
  check.tensor(m:matrix(), { { 0, 0 }, { 0, 0 } })
end)
