-- Tensors in a page: make them, look at them, compute, index, differentiate.
--   kiln samples/tensors.lua
local kiln = kiln or require "kiln"

-- Tables become tensors. Whole numbers give int64, others float32.
local a = kiln.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
print(a)
print(a.dtype, a:size(1), a:size(2), #a)

-- Every op is a function and a method; arithmetic is written as usual and broadcasts.
print(a * 10 + kiln.tensor { 1, 2, 3 })
print(a:float():mean(2))
print(a:sum { dim = 1, keepdim = true })

-- Positions count from 1, -1 is the last, ranges are inclusive. Such indexing gives views of the same memory.
print(a[-1])
print(a[{ {}, { 2, 3 } }])
a[{ 1, 3 }] = 30
a[a:gt(5)] = 0
print(a)

-- Gradients: mark what is to be differentiated by, compute, go back.
local x = kiln.tensor({ 1.0, 2.0, 3.0 }, { requires_grad = true })
local y = (x ^ 3):sum()
y:backward()
print("dy/dx", x.grad)

-- A line fitted by hand: the slope and offset that made the data are found again.
kiln.manual_seed(1)
local input = kiln.rand(100)
local target = input * 3 - 1 + kiln.randn(100) * 0.01
local slope, offset = kiln.zeros(1):requires_grad_(), kiln.zeros(1):requires_grad_()
local opt = kiln.optim.SGD({ slope, offset }, { lr = 0.5 })
for _ = 1, 200 do
  opt:zero_grad()
  kiln.mse_loss(input * slope + offset, target):backward()
  opt:step()
end
print(("slope %.2f, offset %.2f"):format(slope:item(), offset:item()))

-- Mistakes are errors that say what was given.
print(pcall(function() return a + kiln.zeros(2) end))
