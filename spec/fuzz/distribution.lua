-- What random functions are made of, and how often: the one place to change that. A production is
-- { weight, feature or false, template … }; a template's <kind> is replaced by a production of that kind (generate.lua
-- has the rest of the notation). Features are counted; each must occur in at least `least` of the functions,
-- tensor branches in loops in at least `in_loop`; at most `refused` of the functions may be refused.
local D = { least = 0.05, in_loop = 0.30, refused = 0.001 }

-- How large: statements at the top, in a block, how deep blocks and expressions nest.
D.top, D.block, D.depth, D.compound, D.expression = { 6, 10 }, { 1, 3 }, 3, 0.45, 3

-- A production may need something: "main" to stand in the function itself, "loop", "label"; "in place" and "replacing"
-- are two sorts of functions, those that overwrite tensors and those that put others into outside places (to do both to
-- one place is refused).

-- Tensor kinds: v float32[4], s float32 of no dimension, m float64[2, 2], i int64[4], b bool[4].
-- Others: n number, j integer, J integer nobody sets, L boolean, c number constant, r record { t = v, n = n, o = v or nil }, l list of two v,
-- f function of a v giving a v, p object of class P, w nil, number, tensor or string.
-- The first row of a kind is what stands where expressions may nest no deeper.
D.v = {
  { 9, false, "<var v>" },
  { 3, false, "<var r>.t" },
  { 5, false, "(<v> <op> <v>)" },
  { 4, false, "(<v> <op> <c>)" },
  { 2, false, "(<v> * <s>)" },
  { 2, false, "(<v> * <n>)" },
  { 3, false, "<v>:<map>()" },
  { 1, false, "(-<v>)" },
  { 2, "values of and, or", "(<L> and <v> or <v>)" },
  { 2, "calls", "<var f>(<v>)" },
  { 2, "varargs", "(pick(<v>, <v>, <n>))" },
  { 1, "varargs", "(select(2, <n>, <v>))" },
  { 1, "several dtypes", "kiln.where(<b>, <v>, <v>)" },
  { 1, "several dtypes", "<v>:masked_fill(<b>, <c>)" },
  { 1, "several dtypes", "<i>:to('float32')" },
  { 1, "several ranks", "<m>:reshape(4):to('float32')" },
  { 1, "reading views", "<v>:view(2, 2):t():reshape(4)" },
  { 1, "reading views", "kiln.cat({ <v>[{ { 3, 4 } }], <v>[{ { 1, 2 } }] })" },
  { 1, false, "<v>:flip(1)" },
  { 1, false, "<v>:cumsum(1)" },
  { 1, "lists", "<var l>[<one two>]" },
  { 2, "lists indexed by data", "(<var l>[<j>] or <v>)" },
  { 1, "draws", "(<v> + kiln.rand(4))" },
  { 1, "draws", "kiln.randn(4)" },
  { 1, "__call", "<var p>(<v>)" },
  { 1, "methods", "(<var p>:step(<v>, <n>))" },
  { 1, "upvalues", "ut" },
  { 1, "globals", "gt" },
  { 1, "module fields", "mod.w" },
  { 1, "module fields", "mod.f(<v>)" },
  { 1, "argument tables", "rec.t" },
}
D.s = {
  { 4, false, "<var v>:sum()" },
  { 2, "several ranks", "<var s>" },
  { 3, false, "<v>:<reduce>()" },
  { 1, "several ranks", "<m>:sum():to('float32')" },
  { 1, "several ranks", "<v>[<one two>]" },
  { 1, false, "kiln.arange(<j> % 4, 5, { dtype = 'float32' }):sum()" },
  { 1, false, "(<s> <op> <s>)" },
  { 1, false, "(<s> <op> <c>)" },
}
D.m = {
  { 3, "several ranks", "<var m>" },
  { 1, "several ranks", "<v>:reshape(2, 2):to('float64')" },
  { 1, false, "(<m> <op> <m>)" },
  { 1, false, "<m>:matmul(<m>)" },
  { 1, "reading views", "<m>:t()" },
}
D.i = {
  { 2, "several dtypes", "<var i>" },
  { 1, "several dtypes", "<v>:gt(<c>):to('int64')" },
  { 1, "several dtypes", "<v>:argsort()" },
  { 1, "draws", "kiln.randint(5, { 4 })" },
  { 1, false, "(<i> <op> <i>)" },
  { 1, false, "(<i> <op> <whole>)" },
}
D.b = {
  { 3, "several dtypes", "<v>:gt(<c>)" },
  { 1, "several dtypes", "<v>:le(<v>)" },
  { 1, "several dtypes", "<i>:eq(<whole>)" },
  { 1, false, "(<b> & <b>)" },
}
D.n = {
  { 6, false, "<var n>" },
  { 4, "integers", "<j>" },
  { 2, "floats", "<fraction>" },
  { 4, false, "(<n> <op> <n>)" },
  { 1, false, "(<n> // <divisor>)" },
  { 1, false, "(<n> % <divisor>)" },
  { 1, false, "(<n> / 2)" },
  { 1, false, "(- <n>)" },
  { 2, "item", "<s>:item()" },
  { 1, "item", "<v>[<one two>]:item()" },
  { 1, false, "<var r>.n" },
  { 1, false, "math.<extreme>(<n>, <n>)" },
  { 1, false, "math.<round>(<n>)" },
  { 1, "values of and, or", "(<L> and <n> or <n>)" },
  { 1, "counters", "<var h>()" },
  { 1, "upvalues", "un" },
  { 1, "globals", "gn" },
  { 1, "module fields", "mod.n" },
  { 1, "argument tables", "rec.n" },
}
D.j = {
  { 3, "integers", "<var j>" },
  { 2, false, "<whole>" },
  { 1, false, "(<j> <op> <j>)" },
  { 1, "item", "<i>:sum():item()" },
  { 1, "sizes", "#<var v>" },
  { 1, "sizes", "<v>:size(1)" },
  { 1, "lists", "#<var l>" },
  { 2, "integers", "<var J>" },
}
D.L = {
  { 5, "tensor branches", "<s> <compare> <c>" },
  { 1, false, "<var L>" },
  { 2, "tensor branches", "<s> <compare> <s>" },
  { 2, false, "<n> <compare> <n>" },
  { 1, false, "<n> <equal> <n>" },
  { 1, "tensor branches", "<b>:any():item()" },
  { 1, "sizes", "<v>:size(1) > <j>" },
  { 1, false, "not <var L>" },
  { 2, false, "(<L> and <L>)" },
  { 2, false, "(<L> or <L>)" },
  { 1, false, "not (<L>)" },
  { 1, "nil or a value", "<var r>.o <equal> nil" },
  { 1, "nil or a value", "<var w> <equal> nil" },
  { 1, "identity", "<var v> == <var v>" },
  { 1, "identity", "<var r> == <var r>" },
  { 1, "__lt", "<var p> < <var p>" },
  { 1, "__le", "<var p> <= <var p>" },
  { 1, "__eq", "<var p> == <var p>" },
  { 1, "upvalues", "ub" },
  { 1, "module fields", "mod.on" },
  { 1, false, "flag" },
}
D.op = { { 3, false, "+" }, { 2, false, "-" }, { 2, false, "*" } }
D.c = { { 2, false, "0" }, { 2, false, "1" }, { 1, false, "2" }, { 1, false, "-1" }, { 2, false, "0.5" }, { 1, false, "-0.5" } }
D.whole = { { 2, false, "0" }, { 3, false, "1" }, { 2, false, "2" }, { 1, false, "3" }, { 1, false, "-1" } }
D.fraction = { { 2, false, "0.5" }, { 1, false, "1.5" }, { 1, false, "-0.25" }, { 1, false, "2.0" } }
D.divisor = { { 2, false, "2" }, { 2, false, "3" }, { 1, false, "0.5" }, { 1, false, "-2" } }
D.inplace = { { 2, false, "add_" }, { 1, false, "sub_" }, { 2, false, "mul_" }, { 2, false, "copy_" } }
D.map = { { 2, false, "relu" }, { 2, false, "tanh" }, { 1, false, "abs" }, { 1, false, "sigmoid" }, { 1, false, "sin" } }
D.reduce = { { 2, false, "sum" }, { 1, false, "mean" }, { 1, false, "max" }, { 1, false, "min" } }
D.compare = { { 2, false, ">" }, { 2, false, "<" }, { 1, false, ">=" }, { 1, false, "<=" } }
D.equal = { { 1, false, "==" }, { 1, false, "~=" } }
D.extreme = { { 1, false, "max" }, { 1, false, "min" } }
D.round = { { 1, false, "floor" }, { 1, false, "abs" }, { 1, false, "ceil" } }
D["one two"] = { { 1, false, "1" }, { 1, false, "2" } }
D.trips = { { 1, false, "1" }, { 3, false, "2" }, { 3, false, "3" }, { 1, false, "4" } }
D.bounds = {
  { 3, "for over integers", "1, <trips>" },
  { 1, "for over integers", "<trips>, 1, -1" },
  { 2, "for with free bounds", "1, math.min(<n>, 3)" },
  { 1, "for with free bounds", "math.max(<j>, 1), 3" },
  { 1, "sizes", "1, #<var v>" },
}
D["float bounds"] = { { 1, false, "0.5, 2" }, { 1, false, "2, 0.5, -0.75" }, { 1, false, "<n> * 0.0 + 1, 2.5" } }

-- Statements without blocks.
D.simple = {
  { 8, false, "<var v> = <v>" },
  { 5, false, "<var n> = <n>" },
  { 2, "integers", "<var j> = <j>" },
  { 3, false, "<var L> = <L>" },
  { 2, "several ranks", "<var s> = <s>" },
  { 2, "several ranks", "<var m> = <m>" },
  { 2, "several dtypes", "<var i> = <i>" },
  { 2, false, "local $t:v! = <v>" },
  { 2, false, "local $n:n! = <n>" },
  { 2, "records", "<var r>.t = <v>" },
  { 2, "records", "<var r>.n = <n>" },
  { 2, "nil or a value", "<var r>.o = <v>" },
  { 1, "nil or a value", "<var r>.o = nil" },
  { 2, "nil or a value", "if <var r>.o then <var r>.n = <n> end" },
  { 2, "new records", "<var r> = { t = <v>, n = <n> }" },
  { 1, "new records", "local $r:r! = { t = <v>, n = <n>, o = <v> }" },
  { 3, "aliases", "<var r> = <var r>" },
  { 1, "records in records", "<var r>.next = <var r>", "<var r>.next = nil" },
  { 1, "lists", "<var l>[<one two>] = <v>" },
  { 1, "lists", "<var l> = { <v>, <v> }" },
  { 1, "aliases", "<var l> = <var l>" },
  { 2, "closures", "<var f> = function(a) return a <op> <inner v> end", need = "main" },
  { 2, "closures", "<var f> = <var f>", need = "main" },
  { 2, "counters", "local $k = <n>", "local $h:h! = function() $k = $k + <c> return $k end" },
  { 1, "counters", "<var n> = <var h>() + <var h>()" },
  { 2, "draws", "<var v> = <v> + kiln.rand(4)" },
  { 1, "errors", "if <s> > 4 then error('raised', <level>) end" },
  { 1, "errors", "assert(<s> < 6, 'asserted')" },
  { 1, "errors", "assert(<L> or <s> < 4)" },
  { 1, "errors", "if <s> > 3.5 then <var n> = <var n> + nothing end" },
  { 1, "errors", "if <s> > 3.5 then <var v> = <var r>.o + nothing.x end" },
  { 3, "in place", "<var v>:<inplace>(<v>)" },
  { 2, "in place", "<var v>:<inplace>(<c>)" },
  { 1, "in place", "<var r>.t:<inplace>(<v>)" },
  { 1, "in place", "<var v>:zero_()" },
  { 1, "in place", "<var s>:<inplace>(<s>)" },
  { 1, "in place", "<var i>:<inplace>(<whole>)" },
  { 1, "draws in place", "<var v>:uniform_(-1, 1)" },
  { 1, "outside in place", "ut:<inplace>(<v>)" },
  { 1, "outside in place", "mod.w:<inplace>(<v>)" },
  { 1, "aliases of tensors", "<var v> = <var v>" },
  { 1, "aliases of tensors", "<var r>.t = <var v>" },
  { 2, "index assignment", "<var v>[<one two>] = <s>" },
  { 1, "index assignment", "<var v>[{ { 2, 3 } }] = <v>[{ { 1, 2 } }]" },
  { 1, "index assignment", "<var v>[<b>] = <c>" },
  { 1, "index assignment", "<var m>[<one two>] = <m>[1]" },
  { 1, "views", "local $t = <var v>:view(2, 2):t()", "($t):<inplace>(<c>)", "<var n> = <var n> + ($t):sum():item()" },
  { 1, "views", "local $t = <var v>:view(2, 2)", "local $u = ($t):t()", "<var v>:<inplace>(<v>)",
    "$u[<one two>]:<inplace>(<c>)", "<var v> = ($t):reshape(4) + ($u):reshape(4)" },
  { 1, "views", "local $t:v = <var v>:detach()" },
  { 1, "views", "<var m> = <var m>:t()" },
  { 2, "views kept", "local $t:v! = <var v>:view(4)", "<var v>:<inplace>(<c>)" },
  { 1, "views kept", "<var r>.t = <var v>:view(4)", "<var v>:<inplace>(<v>)" },
  { 2, "several values at once", "<var v>, <var n> = <v>, <n>" },
  { 1, "several values at once", "<var v>, <var v> = <var v>, <var v>" },
  { 2, "several results", "<var v>, <var n> = both(<v>, <n>)" },
  { 1, "varargs", "<var n> = <var n> + select('#', pick(<v>, <v>, <n>))" },
  { 1, "varargs", "do local a, b = ... if a then <var v> = <var v> + a end end", need = "main" },
  { 2, "nil or a value", "if <L> then <var w> = <any> end" },
  { 1, "nil or a value", "if type(<var w>) == '<type>' then <var n> = <var n> + 1 end" },
  { 2, "strings", "local $s = 'a'", "if <L> then $s = 'b' end", "if $s == 'b' then <var v> = <v> end" },
  { 2, "insert, remove, unpack", "local $l = { <v>, <v> }", "table.insert($l, <v>)", "table.insert($l, 1, <v>)",
    "<var v> = table.remove($l) + #$l", "<var v>, <var v> = table.unpack($l, 2)" },
  { 1, "insert, remove, unpack", "local $l = table.pack(<v>, <n>)", "<var v> = $l[1] * $l.n",
    "$l[#$l + 1] = <v>", "<var v> = table.remove($l, 1) + $l[2]" },
  { 1, "upvalues", "un = un + 1" },
  { 1, "upvalues", "un = <n>" },
  { 2, "upvalues", "ut = <v>", need = "replacing" },
  { 1, "upvalues", "ub = <L>" },
  { 1, "globals", "gn = gn + <n>" },
  { 2, "globals", "gt = <v>", need = "replacing" },
  { 2, "module fields", "mod.n = mod.n + <n>" },
  { 2, "module fields", "mod.w = <v>", need = "replacing" },
  { 1, "module fields", "mod.on = <L>" },
  { 1, "methods", "<var v>, <var n> = <var p>:step(<v>, <n>)" },
  { 2, "protected calls", "local $ok, $e = pcall(function(a) if a:sum() <compare> <c> then error('caught', <level>) end return a <op> 2 end, <v>)",
    "if $ok then <var v> = $e end" },
  { 2, "protected calls", "local $ok, $e = pcall(function(a, b) return a // b end, <whole>, <whole>)", "if $ok then <var n> = $e end" },
  { 1, "protected calls", "local $ok, $e = pcall(base, <v>)", "if $ok then <var v> = $e else error($e, 0) end" },
  { 1, "__add", "<var p> = <var p> + <var p>" },
  { 1, "__unm", "<var p> = -<var p>" },
  { 1, "__len", "<var n> = #<var p>" },
  { 2, "__newindex", "<var p>.extra = <n>" },
  { 1, "__index", "<var n> = <var p>.twice" },
  { 1, "aliases", "<var p> = <var p>" },
  { 1, "methods", "local $p:p! = P.new(<v>, <n>)" },
  { 1, false, "<var p>.t = <v>" },
  { 2, "in place", "<var v>:add_(<v>)", need = "in place" },
  { 2, "in place", "<var v>:mul_(<c>)", need = "in place" },
  { 2, "in place", "<var v>:copy_(<v>)", need = "in place" },
  { 2, "in place", "<var r>.t:add_(<c>)", need = "in place" },
  { 1, "in place outside", "ut:add_(<c>)", need = "in place" },
  { 1, "in place outside", "mod.w:mul_(<c>)", need = "in place" },
  { 2, "in place", "if <L> then <var v>:add_(1) end", need = "in place" },
  { 2, "writing views", "local $a = <var v>[{ { 1, 2 } }]", "$a:add_(<c>)", "<var s> = $a:sum()", need = "in place" },
  { 2, "writing views", "local $a = <var v>:view(2, 2)", "<var v>:add_(<c>)", "$a[1]:mul_(2)", "<var s> = $a:sum()", need = "in place" },
  { 2, "writing views", "<var v>:view(2, 2):t():add_(<c>)", need = "in place" },
  { 2, "index assignment", "<var v>[<one two>] = <c>", need = "in place" },
  { 2, "index assignment", "<var v>[{ { 2, 3 } }] = <v>[{ { 1, 2 } }]", need = "in place" },
  { 2, "index assignment", "<var v>[<b>] = <c>", need = "in place" },
  { 1, "early returns", "if <L> then return <return> end" },
  { 1, "break", "if <L> then break end", need = "loop" },
  { 1, "goto", "if <L> then goto <label> end", need = "label" },
}
D.level = { { 3, false, "1" }, { 1, false, "0" }, { 1, false, "2" } }
D.any = { { 2, false, "<v>" }, { 2, false, "<n>" }, { 1, false, "nil" }, { 1, false, "'text'" }, { 1, false, "<s>" }, { 1, false, "<r>" } }
D.r = { { 1, false, "<var r>" } }
D.type = { { 1, false, "nil" }, { 1, false, "number" }, { 1, false, "string" }, { 1, false, "userdata" } }

-- Statements with blocks: {} a block, {loop} one in a loop, {function K} the body of a function that gives a K.
D.compounds = {
  { 3, "if", "if <L> then", "{}", "end" },
  { 3, "if, else", "if <L> then", "{}", "else", "{}", "end" },
  { 2, "elseif", "if <L> then", "{}", "elseif <L> then", "{}", "else", "{}", "end" },
  { 2, "early returns", "if <L> then", "{}", "return <return>", "end" },
  { 2, "while", "local $k:J = 0", "while $k < <trips> and <L> do", "$k = $k + 1", "{loop}", "end" },
  { 2, "while", "local $k:J = 0", "while true do", "$k = $k + 1", "if $k > <trips> or <L> then break end", "{loop}", "end" },
  { 2, "repeat", "local $k:J = 0", "repeat", "$k = $k + 1", "{loop}", "until $k > <trips> or <L>" },
  { 1, "repeat", "local $k = 0", "repeat", "$k = $k + 1", "local $t:v = <v>", "{loop}", "until $k > 2 or $t:sum() > 1" },
  { 4, false, "for $i:j = <bounds> do", "{loop}", "<var n> = <var n> + $i", "end" },
  { 3, "for over floats", "for $i:n = <float bounds> do", "{loop}", "<var n> = <var n> + $i", "end" },
  { 2, "for with free bounds", "for $i:j = 1, #<var v> do", "{loop}", "<var s> = <var s> + <var v>[$i]", "end" },
  { 2, "nested loops", "for $i:j = 1, <trips> do", "for $j:j = $i, 2 do", "{loop}", "if <L> then break end", "end", "end" },
  { 1, "values handed on", "local $a:v = <v>", "local $b:v = $a", "local $k:J = 0", "while $k < <trips> and <L> do", "$k = $k + 1",
    "{loop}", "$b, $a = $a, <v>", "<var v> = <var v> + $b", "end" },
  { 1, "values handed on", "local $a, $b:n = 1, 1", "for $i:j = 1, math.min(<n>, 4) do", "{loop}", "$b, $a = $a, $a + <n>", "end", "<var n> = <var n> + $b" },
  { 2, "for, ipairs", "for $i:j, $v:v in ipairs { <v>, <v> } do", "{loop}", "<var v> = <var v> + $v * $i", "end" },
  { 1, "for, ipairs", "for $i:j, $v:v in ipairs(mod.list) do", "{loop}", "<var v> = <var v> * $v", "end" },
  { 2, "for, pairs", "for $q:j, $v:v in pairs { <v>, <v> } do", "{loop}", "if $q == 1 then <var v> = $v end", "end" },
  { 2, "for, closure", "for $i:j, $v:v in upto(<trips>, <v>) do", "{loop}", "<var v> = <var v> + $v", "end" },
  { 2, "goto", "for $i:j = 1, <trips> do", "if <L> then goto $go end", "{loop $go}", "::$go::", "end" },
  { 1, "goto", "do", "local $k = 0", "::$go::", "$k = $k + 1", "do", "{}", "end", "if $k < <trips> and <L> then goto $go end", "end" },
  { 1, "goto", "do", "for $i:j = 1, 2 do", "for $j:j = 1, 2 do", "if <L> then goto $out end", "{loop}", "end", "end", "::$out::", "end" },
  { 2, "closures", "local function $f:f!($a:v?)", "{function v}", "return <inner v>", "end" },
  { 2, "closures", "<var f> = function($a:v?)", "{function v}", "return <inner v>", "end", need = "main" },
  { 1, "closures in lists", "local $l = {}", "for $i:j = 1, <trips> do", "local $u:n? = <n>",
    "$l[$i] = function($a:v?)", "$u = $u + $i", "{function v}", "return <inner v> * $u", "end", "end",
    "for $i:j = 1, #$l do", "<var v> = $l[$i](<v>)", "end" },
  { 1, "several results", "local $f = function($a:v?, ...)", "{function v, n}", "return <inner v>, select('#', ...)", "end",
    "<var v>, <var n> = $f(<v>, <n>, <v>)" },
  { 1, "recursion", "local function $f(a, d)", "if d > 0 then",
    "if a:sum() > 1 then a = a * 0.5 else a = $f(a <op> <v>, d - 1) + 1 end", "end", "return a * 0.5", "end",
    "<var v> = $f(<v>, <trips>)" },
  { 1, "blocks", "do", "local $t:v = <v>", "{}", "end" },
}

-- What functions that give a K return; of the first, one for the whole function.
D.returns = {
  main = {
    { 3, false, "<v>, <n>, <L>, <var r>.t" },
    { 2, "result tables", "<v>, <n>, <L>, { t = <v>, list = { <n>, <v> } }" },
    { 1, "several dtypes", "<v>, <n>, <L>, <m>, <i>" },
    { 2, false, "<var v>, <var v>, <n>, <var r>.t" },
    { 1, false, "<n>, <s>" },
    { 2, "results of many kinds", "<any>, <var w>, <var r>.o" },
    { 1, "results of many kinds", "<L> and <any> or <n>, <L>" },
    { 1, "strings of data", "'n is ' .. <n>, <n> .. ''" },
    { 1, "several results", "<L>, both(<v>, <n>)" },
    { 1, "methods", "<var p>:step(<v>, <n>)" },
  },
  v = { { 1, false, "<v>" } },
  ["v, n"] = { { 1, false, "<v>, <n>" } },
}

-- The classes and functions around the function, and its locals.
D.before = {
  "local un, ut, ub = 1, kiln.tensor { 0.5, -1, 0, 2 }, true",
  "gn, gt = 2, kiln.tensor { 1.0, 1, -2, 0 }",
  "local mod = { n = 0, w = kiln.tensor { 0.0, 1, -1, 0.5 }, on = false, list = { kiln.ones(4), kiln.ones(4) * 0.5 } }",
  "function mod.f(a) return a * un end",
  "local P = {}",
  "<P index>",
  "function P.__add(a, b) return P.new(a.t + b.t, a.n + b.n) end",
  "function P.__unm(a) return P.new(-a.t, a.n) end",
  "function P.__lt(a, b) return a.t:sum() < b.t:sum() end",
  "function P.__le(a, b) return a.n <= b.n end",
  "function P.__eq(a, b) return a.n == b.n end",
  "function P.__len(a) return a.n end",
  "function P.__newindex(o, k, x) rawset(o, 'n', o.n + x) end",
  "function P.__call(o, a) if a:sum() > 1 then o.n = o.n + 1 end return a * o.n end",
  "function P.new(t, n) return setmetatable({ t = t, n = n }, P) end",
  "function P.step(o, a, n) o.n = o.n + n if a:sum() < 0 then o.t = a return o.t, n end return o.t + a, o.n end",
  "local function base(a) return a * 0.5 end",
  "local function both(a, n) if n > 1 then return a + 1, n - 1 end return a, n end",
  "local function pick(...) local a, b, n = ... if n < 0 then a = b end return a, ... end",
  "local function upto(n, a) local i = 0 return function() i = i + 1 if i <= n then return i, a * i end end end",
}
D["P index"] = {
  { 2, false, "P.__index = P P.twice = 2" },
  { 1, false, "P.__index = function(o, k) if k == 'twice' then return o.n * 2 end return P[k] end" },
  { 1, false, "local Q = { twice = 4 } Q.__index = Q setmetatable(P, Q) P.__index = P" },
}
D.locals = {
  { "local $t:v!, $u:v!, $v:v! = x, y, x * y" },
  { "local $n:n!, $f:n!, $k:n! = 0, 1.5, k" },
  { "local $i:j!, $j:j!, $z:J! = 1, 2, select('#', ...)" },
  { "local $s:s!, $m:m!, $i:i! = x:sum(), q, x:gt(0):to('int64')" },
  { "local $b:L!, $c:L! = true, false" },
  { "local $r:r!, $q:r! = { t = x, n = 1 }, { t = y, n = 0.5, o = x }" },
  { "local $l:l!, $w:w! = { x, y }, nil" },
  { "local $f:f! = function(a) <var n> = <var n> + 1 return a + <var n> end" },
  { "local $c = 0", "local $h:h! = function() $c = $c + 1 return $c end" },
  { "local $p:p!, $q:p! = P.new(x, 1), P.new(y, 2)" },
}

-- What the driver does to the outside before the run `i`: tensors are replaced often; numbers, booleans and functions,
-- which are guarded and mean another capture, seldom. The kinds of the arguments change with the runs 4 and 6: what must
-- be noticed by itself changes at another.
D.poke = {
  "if i % 2 == 0 then ut = kiln.tensor { 1.0, i, -i, 0 } end",
  "if i % 3 == 0 then gt = kiln.ones(4) * i end",
  "if i % 2 == 1 then mod.w = mod.w + 1 end",
  "if i == <numbers change> then un = un + 3 gn = gn * 0.5 mod.n = -i end",
  "if i == <functions change> then mod.f = function(a) return a + un end end",
  "if i == 6 then ub = not ub mod.on = not mod.on end",
}
D["numbers change"] = { { 3, false, "4" }, { 1, false, "3" }, { 1, false, "5" } }
D["functions change"] = { { 1, false, "6" }, { 1, false, "5" }, { 1, false, "2" } }
D.peek = { "un", "ut", "ub", "gn", "gt", "mod.n", "mod.w", "mod.on", "mod.list[1]", "mod.list[2]" }

--- All features there are, as a set.
function D.features()
  local all = { ["tensor branches in loops"] = true }
  local function visit(list)
    for _, p in pairs(list) do
      if type(p) == "table" then
        if type(p[2]) == "string" and type(p[1]) == "number" then all[p[2]] = true end
        visit(p)
      end
    end
  end
  visit(D)
  return all
end

return D
