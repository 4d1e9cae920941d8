-- A recurrent network that tells the next token: an embedding, LSTM, GRU or RNN layers, a linear head (Graves, 2013).
local kiln = require "kiln"
local nn = require "kiln.nn"
local options = require "kiln.text.options"
local generate = require "kiln.text.generate".generate
local fail = kiln.fail

local defaults = { vocab_size = 256, embedding_size = 64, hidden_size = 256, num_layers = 1, dropout = 0.0, cell = "LSTM" }

--- CharRNN{ vocab_size = 256, embedding_size = 64, hidden_size = 256, num_layers = 1, dropout = 0, cell = "LSTM" }; cell is
--- LSTM, GRU or RNN. forward(ids [N, T] [, state]): logits [N, T, vocab_size], and the state to go on with.
local CharRNN = nn.Module:extend "CharRNN"
function CharRNN:init(given)
  local o = options.read("CharRNN", given, defaults)
  if o.cell ~= "LSTM" and o.cell ~= "GRU" and o.cell ~= "RNN" then
    fail("CharRNN: cell must be 'LSTM', 'GRU' or 'RNN', got '%s'", o.cell)
  end
  self.embedding = nn.Embedding(o.vocab_size, o.embedding_size)
  self.rnn = nn[o.cell](o.embedding_size, o.hidden_size, o.num_layers, { batch_first = true, dropout = o.dropout })
  self.head = nn.Linear(o.hidden_size, o.vocab_size)
end

function CharRNN:forward(ids, state)
  local out, after = self.rnn(self.embedding(options.ids_of("CharRNN", ids)), state)
  return self.head(out), after
end

--- loss(ids [, state]): the mean cross entropy of each token given those before it, and the state after them.
function CharRNN:loss(ids, state)
  ids = options.ids_of("CharRNN", ids)
  local n = ids:size(2)
  local logits, after = self(ids[{ {}, { 1, n - 1 } }], state)
  return kiln.cross_entropy(logits:reshape(-1, logits:size(3)), ids[{ {}, { 2, n } }]:reshape(-1)), after
end

CharRNN.generate = generate

return { CharRNN = CharRNN }
