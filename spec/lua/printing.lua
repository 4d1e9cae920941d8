-- How tensors look as text: one notation for all elements, aligned, wrapped, the middle left out, the type below.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises

local function here() return "printing.lua:" .. debug.getinfo(2, "l").currentline .. ": " end

local looks = {
  { function() return kiln.tensor(2.5) end,
    [=[
2.5000
float32[]]=] },
  { function() return kiln.tensor(-3) end,
    [=[
-3
int64[]]=] },
  { function() return kiln.tensor(true) end,
    [=[
true
bool[]]=] },
  { function() return kiln.tensor(0 / 0) end,
    [=[
nan
float32[]]=] },
  { function() return kiln.tensor(1e-20) end,
    [=[
1.0000e-20
float32[]]=] },
  { function() return kiln.tensor {} end,
    [=[
{}
float32[0]]=] },
  { function() return kiln.zeros(0, 3) end,
    [=[
{}
float32[0,3]]=] },
  { function() return kiln.zeros(3, 0, 2, { dtype = "int8" }) end,
    [=[
{}
int8[3,0,2]]=] },
  { function() return kiln.zeros(1000000, 0) end,
    [=[
{}
float32[1000000,0]]=] },
  { function() return kiln.tensor { 1.0, -2.0, 3.0 } end,
    [=[
{ 1.0, -2.0,  3.0}
float32[3]]=] },
  { function() return kiln.tensor { 1.5, -20.25, 3 } end,
    [=[
{  1.5000, -20.2500,   3.0000}
float32[3]]=] },
  { function() return kiln.tensor { 0.0, -0.0 } end,
    [=[
{ 0.0, -0.0}
float32[2]]=] },
  { function() return kiln.tensor { -0.0, 0.5 } end,
    [=[
{-0.0000,  0.5000}
float32[2]]=] },
  { function() return kiln.tensor { 0 / 0, 1 / 0, -1 / 0, 1 } end,
    [=[
{ nan,  inf, -inf,  1.0}
float32[4]]=] },
  { function() return kiln.tensor { 0 / 0, -1 / 0, 0.25 } end,
    [=[
{   nan,   -inf, 0.2500}
float32[3]]=] },
  { function() return kiln.tensor { 1 / 0, 1e12 } end,
    [=[
{       inf, 1.0000e+12}
float32[2]]=] },
  { function() return kiln.tensor { 1e-9, 1 } end,
    [=[
{1.0000e-09, 1.0000e+00}
float32[2]]=] },
  { function() return kiln.tensor { 1.5e-5, -2.5e-5 } end,
    [=[
{ 1.5000e-05, -2.5000e-05}
float32[2]]=] },
  { function() return kiln.tensor { 99999999.0, 1 } end,
    [=[
{1.0000e+08, 1.0000e+00}
float32[2]]=] },
  { function() return kiln.tensor { 1e8, -1 } end,
    [=[
{ 1.0000e+08, -1.0000e+00}
float32[2]]=] },
  { function() return kiln.tensor { 123456.5, 0.5 } end,
    [=[
{123456.5000,      0.5000}
float32[2]]=] },
  { function() return kiln.tensor { 1234567.5, 0.5 } end,
    [=[
{1.2346e+06, 5.0000e-01}
float32[2]]=] },
  { function() return kiln.tensor({ 1e300, -1e-300 }, { dtype = "float64" }) end,
    [=[
{ 1.0000e+300, -1.0000e-300}
float64[2]]=] },
  { function() return kiln.tensor({ 1 / 3, 100 }, { dtype = "float16" }) end,
    [=[
{  0.3333, 100.0000}
float16[2]]=] },
  { function() return kiln.tensor({ 1e38, 3 }, { dtype = "bfloat16" }) end,
    [=[
{9.9692e+37, 3.0000e+00}
bfloat16[2]]=] },
  { function() return kiln.tensor({ -128, 127 }, { dtype = "int8" }) end,
    [=[
{-128,  127}
int8[2]]=] },
  { function() return kiln.tensor { math.mininteger, math.maxinteger } end,
    [=[
{-9223372036854775808,  9223372036854775807}
int64[2]]=] },
  { function() return kiln.tensor { { true, false }, { false, true } } end,
    [=[
{{ true, false},
 {false,  true}}
bool[2,2]]=] },
  { function() return kiln.tensor { { 1, 20 }, { -300, 4 } } end,
    [=[
{{   1,   20},
 {-300,    4}}
int64[2,2]]=] },
  { function() return kiln.arange(24.0):reshape(2, 3, 4) end,
    [=[
{{{ 0.0,  1.0,  2.0,  3.0},
  { 4.0,  5.0,  6.0,  7.0},
  { 8.0,  9.0, 10.0, 11.0}},

 {{12.0, 13.0, 14.0, 15.0},
  {16.0, 17.0, 18.0, 19.0},
  {20.0, 21.0, 22.0, 23.0}}}
float32[2,3,4]]=] },
  { function() return kiln.arange(8):reshape(2, 1, 2, 2) end,
    [=[
{{{{0, 1},
   {2, 3}}},


 {{{4, 5},
   {6, 7}}}}
int64[2,1,2,2]]=] },
  { function() return kiln.arange(6):reshape(2, 3):t() end,
    [=[
{{0, 3},
 {1, 4},
 {2, 5}}
int64[3,2]]=] },
  { function() return kiln.arange(20)[{ { 3, 20, 4 } }] end,
    [=[
{ 2,  6, 10, 14, 18}
int64[5]]=] },
  { function() return kiln.tensor({ 1 }):expand(2, 3) end,
    [=[
{{1, 1, 1},
 {1, 1, 1}}
int64[2,3]]=] },
  { function() return kiln.tensor({ 1.0 }, { requires_grad = true }) end,
    [=[
{1.0}
float32[1] requires_grad]=] },
  { function() return kiln.tensor({ 1.0 }, { requires_grad = true }):exp() end,
    [=[
{2.7183}
float32[1] from exp]=] },
  { function() return kiln.tensor({ 1.0, 2 }, { requires_grad = true })[1] end,
    [=[
1.0
float32[] from select]=] },
  { function() return kiln.arange(40) end,
    [=[
{ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16, 17, 18,
 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37,
 38, 39}
int64[40]]=] },
  { function() return kiln.linspace(0, 1, 25) end,
    [=[
{0.0000, 0.0417, 0.0833, 0.1250, 0.1667, 0.2083, 0.2500, 0.2917, 0.3333,
 0.3750, 0.4167, 0.4583, 0.5000, 0.5417, 0.5833, 0.6250, 0.6667, 0.7083,
 0.7500, 0.7917, 0.8333, 0.8750, 0.9167, 0.9583, 1.0000}
float32[25]]=] },
  { function() return kiln.arange(1000):reshape(2, 500)[{ {}, { 1, 30 } }] end,
    [=[
{{  0,   1,   2,   3,   4,   5,   6,   7,   8,   9,  10,  11,  12,  13,  14,
   15,  16,  17,  18,  19,  20,  21,  22,  23,  24,  25,  26,  27,  28,  29},
 {500, 501, 502, 503, 504, 505, 506, 507, 508, 509, 510, 511, 512, 513, 514,
  515, 516, 517, 518, 519, 520, 521, 522, 523, 524, 525, 526, 527, 528, 529}}
int64[2,30]]=] },
  { function() return kiln.arange(1001) end,
    [=[
{   0,    1,    2, ...,  998,  999, 1000}
int64[1001]]=] },
  { function() return kiln.arange(10000):reshape(100, 100) end,
    [=[
{{   0,    1,    2, ...,   97,   98,   99},
 { 100,  101,  102, ...,  197,  198,  199},
 { 200,  201,  202, ...,  297,  298,  299},
 ...,
 {9700, 9701, 9702, ..., 9797, 9798, 9799},
 {9800, 9801, 9802, ..., 9897, 9898, 9899},
 {9900, 9901, 9902, ..., 9997, 9998, 9999}}
int64[100,100]]=] },
  { function() return kiln.arange(1536):reshape(4, 6, 8, 8)[{ { 1, 2 }, { 1, 1 }, {}, {} }] end,
    [=[
{{{{  0,   1,   2,   3,   4,   5,   6,   7},
   {  8,   9,  10,  11,  12,  13,  14,  15},
   { 16,  17,  18,  19,  20,  21,  22,  23},
   { 24,  25,  26,  27,  28,  29,  30,  31},
   { 32,  33,  34,  35,  36,  37,  38,  39},
   { 40,  41,  42,  43,  44,  45,  46,  47},
   { 48,  49,  50,  51,  52,  53,  54,  55},
   { 56,  57,  58,  59,  60,  61,  62,  63}}},


 {{{384, 385, 386, 387, 388, 389, 390, 391},
   {392, 393, 394, 395, 396, 397, 398, 399},
   {400, 401, 402, 403, 404, 405, 406, 407},
   {408, 409, 410, 411, 412, 413, 414, 415},
   {416, 417, 418, 419, 420, 421, 422, 423},
   {424, 425, 426, 427, 428, 429, 430, 431},
   {432, 433, 434, 435, 436, 437, 438, 439},
   {440, 441, 442, 443, 444, 445, 446, 447}}}}
int64[2,1,8,8]]=] },
  { function() return kiln.arange(1536):reshape(2, 3, 256) end,
    [=[
{{{   0,    1,    2, ...,  253,  254,  255},
  { 256,  257,  258, ...,  509,  510,  511},
  { 512,  513,  514, ...,  765,  766,  767}},

 {{ 768,  769,  770, ..., 1021, 1022, 1023},
  {1024, 1025, 1026, ..., 1277, 1278, 1279},
  {1280, 1281, 1282, ..., 1533, 1534, 1535}}}
int64[2,3,256]]=] },
  { function() return kiln.zeros(1):expand(100000000) end,
    [=[
{0.0, 0.0, 0.0, ..., 0.0, 0.0, 0.0}
float32[100000000]]=] },
  { function() return kiln.zeros(1, { dtype = "bool" }):expand(3000, 4) end,
    [=[
{{false, false, false, false},
 {false, false, false, false},
 {false, false, false, false},
 ...,
 {false, false, false, false},
 {false, false, false, false},
 {false, false, false, false}}
bool[3000,4]]=] },
  { function() return kiln.ones(1):expand(6, 6, 6, 6, 6, 6)[{ 1, 1, 1, 1 }] end,
    [=[
{{1.0, 1.0, 1.0, 1.0, 1.0, 1.0},
 {1.0, 1.0, 1.0, 1.0, 1.0, 1.0},
 {1.0, 1.0, 1.0, 1.0, 1.0, 1.0},
 {1.0, 1.0, 1.0, 1.0, 1.0, 1.0},
 {1.0, 1.0, 1.0, 1.0, 1.0, 1.0},
 {1.0, 1.0, 1.0, 1.0, 1.0, 1.0}}
float32[6,6]]=] },
}

test("golden texts", function()
  for i, case in ipairs(looks) do
    local got = tostring(case[1]())
    if got ~= case[2] then error(("case %d looks like\n%s\ninstead of\n%s"):format(i, got, case[2]), 0) end
  end
end)

test("what is printed can be read back", function()
  for _, t in ipairs { kiln.arange(24):reshape(2, 3, 4), kiln.tensor { 1.5, -2, 3e-3 }, kiln.tensor { true, false } } do
    local text = tostring(t):match "^(.*)\n"
    truth(load("return kiln.tensor " .. text)():allclose(t), text)
  end
end)

local function with(options, body)
  kiln.set_printoptions(options)
  local ok, why = pcall(body)
  kiln.set_printoptions { profile = "default" }
  if not ok then error(why, 0) end
end

test("options", function()
  local x = kiln.tensor { 1 / 3, -20 }
  with({ precision = 2 }, function()
    equal(tostring(x), "{  0.33, -20.00}\nfloat32[2]")
    equal(kiln.get_printoptions(), { precision = 2, threshold = 1000, edgeitems = 3, sci_mode = "auto" })
  end)
  with({ precision = 0 }, function() equal(tostring(x), "{  0, -20}\nfloat32[2]") end)
  with({ sci_mode = true }, function() equal(tostring(kiln.tensor { 1.0, 2 }), "{1.0000e+00, 2.0000e+00}\nfloat32[2]") end)
  with({ sci_mode = false, precision = 12 }, function()
    equal(tostring(kiln.tensor({ 1e-9, 1 }, { dtype = "float64" })), "{0.000000001000, 1.000000000000}\nfloat64[2]")
  end)
  with({ sci_mode = false, precision = 30 }, function()
    truth(#tostring(kiln.tensor({ -1.5e308, 0.5 }, { dtype = "float64" })) > 680, "every digit is there")
  end)
  with({ threshold = 5, edgeitems = 1 }, function()
    equal(tostring(kiln.arange(5)), "{0, 1, 2, 3, 4}\nint64[5]")
    equal(tostring(kiln.arange(6)), "{0, ..., 5}\nint64[6]")
    equal(tostring(kiln.arange(9):reshape(3, 3)), "{{0, ..., 2},\n ...,\n {6, ..., 8}}\nint64[3,3]")
  end)
  with({ linewidth = 10 }, function()
    equal(tostring(kiln.arange(5)), "{0, 1, 2,\n 3, 4}\nint64[5]")
    equal(kiln.get_printoptions().linewidth, 10)
  end)
  with({ linewidth = 1 }, function() equal(tostring(kiln.arange(2)), "{0,\n 1}\nint64[2]") end)
  with({ profile = "short" }, function() equal(tostring(kiln.rand(2000) * 0), "{0.0, 0.0, ..., 0.0, 0.0}\nfloat32[2000]") end)
  with({ profile = "full" }, function() truth(#tostring(kiln.zeros(5000)) > 25000, "all of it") end)
  with({ threshold = math.huge }, function() truth(#tostring(kiln.zeros(5000)) > 25000, "all of it") end)
  equal(kiln.get_printoptions(), { precision = 4, threshold = 1000, edgeitems = 3, sci_mode = "auto" })
end)

test("options that are wrong change nothing", function()
  local before = kiln.get_printoptions()
  for _, case in ipairs {
    { { precision = -1 }, "precision must be an integer from 0 to 30, got -1" },
    { { precision = 2.5 }, "precision must be an integer from 0 to 30, got a number" },
    { { precision = "4" }, "precision must be an integer from 0 to 30, got a string" },
    { { edgeitems = 0 }, "edgeitems must be an integer from 1" },
    { { linewidth = 0 }, "linewidth must be an integer from 1" },
    { { threshold = -1 }, "threshold must be an integer from 0" },
    { { sci_mode = 1 }, 'sci_mode must be true, false or "auto", got an integer' },
    { { profile = "long" }, 'profile must be "default", "short" or "full", got long' },
    { { profile = 3 }, 'profile must be "default", "short" or "full", got an integer' },
    { { precison = 3 }, "there is no option 'precison'; there are precision, threshold, edgeitems, linewidth, sci_mode, profile" },
    { { 3 }, "there is no option '?'" },
  } do
    case[1].threshold = case[1].threshold or 7
    raises(function() kiln.set_printoptions(case[1]) end, here(), "set_printoptions: ", case[2])
  end
  raises(function() kiln.set_printoptions(4) end, here(), "set_printoptions: a table of options is needed, got an integer")
  equal(kiln.get_printoptions(), before)
end)

test("nothing is read that is not shown", function()
  local count, started = 0, os.clock()
  local shapes = { { 100000000 }, { 10000, 10000 }, { 6, 6, 6, 6, 6, 6, 6, 6 }, { 100, 100, 100, 100 }, { 100000000, 0 } }
  for _, shape in ipairs(shapes) do
    for _, dtype in ipairs { "float32", "int8", "bool", "float16" } do
      count = count + #tostring(kiln.zeros(1, { dtype = dtype }):expand(shape))
    end
  end
  truth(os.clock() - started < 0.5, "quick")
  truth(count < 400000, ("%d characters"):format(count))
end)
