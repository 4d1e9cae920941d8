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

-- More of them: volumes, pooling, resampling, losses with margins.
for _, name in ipairs {
  "conv3d", "conv_transpose3d", "max_pool3d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_unpool1d", "max_unpool2d",
  "max_unpool3d", "adaptive_avg_pool1d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool3d", "grid_sample",
  "affine_grid", "channel_shuffle", "normalize", "local_response_norm", "alpha_dropout", "feature_alpha_dropout", "gumbel_softmax",
  "soft_margin_loss", "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss", "multilabel_margin_loss",
  "multilabel_soft_margin_loss", "poisson_nll_loss", "gaussian_nll_loss",
} do
  F[name] = kiln[name]
end
F.dropout1d, F.dropout2d, F.dropout3d = kiln.feature_dropout, kiln.feature_dropout, kiln.feature_dropout

-- Recurrent networks and cells.
for _, name in ipairs { "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell" } do
  F[name] = kiln[name]
end

-- Windows of an image as columns, and back. (kiln.unfold is the method: windows along one dimension.)
F.unfold, F.fold = kiln.im2col, kiln.col2im

return F
