-- kiln.nn.functional: what layers and losses compute, as functions. They are ops of the engine, under PyTorch's names.
local kiln = require "kiln"

local F = {}

-- Ops that are used as functions of networks.
for _, name in ipairs {
  "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardswish",
  "hardsigmoid", "glu", "prelu", "threshold", "logsigmoid", "tanhshrink", "softshrink", "hardshrink", "tanh", "sigmoid",
  "softmax", "log_softmax", "linear", "embedding", "dropout", "one_hot", "conv1d", "conv2d", "conv_transpose1d",
  "conv_transpose2d", "max_pool1d", "avg_pool1d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
  "interpolate", "pad", "pixel_shuffle", "pixel_unshuffle", "layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm",
  "scaled_dot_product_attention", "cosine_similarity", "pairwise_distance", "cross_entropy", "nll_loss", "mse_loss", "l1_loss",
  "smooth_l1_loss", "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "cosine_embedding_loss",
  "triplet_margin_loss",
} do
  F[name] = kiln[name]
end

-- Recurrent networks and cells.
for _, name in ipairs { "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell" } do
  F[name] = kiln[name]
end

-- Windows of an image as columns, and back. (kiln.unfold is the method: windows along one dimension.)
F.unfold, F.fold = kiln.im2col, kiln.col2im

return F
